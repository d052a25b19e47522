"""What the members of WebDataset tars tell of the image of the same key: its caption, or its class.

A key is a member's name up to the first dot behind its folder
(https://github.com/webdataset/webdataset, `base_plus_ext`).
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable
from storage.sources.pixels import SUFFIXES
from storage.sources.places import named_files
from storage.sources.tar import CAPTIONS, JSON, SUFFIX, TEXT, field_of, members
from storage.sources.texts import MOST_TEXT_BYTES, StoredText, class_text, decoded, first_text

LABEL = ".cls"
"""Members with the class of the image of the same key, a number or a name."""
_LABELS = ("label", "class", "class_name", "cls")
"""Fields of a `.json` member that a class is looked for in, the first that is there."""


def tar_captions(place: str) -> Iterator[StoredText]:
    """The caption of every image: its `.txt` member, or a field of its `.json` where no tar has any `.txt`.

    Args:
        place: as for `storage.sources.tar.TarImages`.

    Raises:
        InputError: an image has none, or a tar or a member cannot be read.
    """

    def in_json(document: str, where: str) -> str:
        return first_text(*field_of(document, where, CAPTIONS, "text"))

    return _beside(named_files(place, SUFFIX), TEXT, in_json)


def tar_labels(place: str) -> Iterator[StoredText]:
    """The class of every image: its `.cls` member, or a field of its `.json` where no tar has any `.cls`.

    Args and errors as of `tar_captions`.
    """

    def in_json(document: str, where: str) -> str:
        return class_text(*field_of(document, where, _LABELS, "class"))

    return _beside(named_files(place, SUFFIX), LABEL, in_json)


def _beside(shards: Sequence[Path], suffix: str, in_json: Callable[[str, str], str]) -> Iterator[StoredText]:
    plain = any(True for shard in shards for _ in members(shard, (suffix,), most=None))
    wanted = suffix if plain else JSON
    for shard in shards:
        told = {_key(name): data for name, data in members(shard, (wanted,), MOST_TEXT_BYTES)}
        for name, _ in members(shard, SUFFIXES, most=None):
            where = printable(f"{shard}/{_key(name)}{wanted}")
            if (data := told.get(_key(name))) is None:
                raise InputError(f"{printable(f'{shard}/{name}')} is alone: {where} is not beside it")
            text = decoded(data, where)
            yield StoredText(where, text if plain else in_json(text, where))


def _key(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"
