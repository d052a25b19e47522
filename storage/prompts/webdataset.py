"""WebDataset tars (https://github.com/webdataset/webdataset): texts in `.txt` or `.json` members."""

from collections.abc import Iterator
from typing import Any

from agd_core.errors import InputError
from agd_core.safe_files import parse_json, printable
from storage.images.parquet import first_text
from storage.images.places import named_files
from storage.images.webdataset import MOST_TEXT_BYTES, TEXT, members
from storage.prompts.texts import decoded

SUFFIX = ".tar"
_JSON = ".json"
_KEYS = ("caption", "prompt", "text")
"""Fields of a `.json` member that a text is looked for in, the first that is there."""
_MOST_NAMED = 8


def webdataset_prompts(place: str) -> Iterator[tuple[str, str]]:
    """Where it is, for messages, and the text of every `.txt` member as they stand; of every `.json` where none is.

    Args:
        place: a .tar, a folder of them, or a pattern, see `storage.images.places.named_files`.

    Raises:
        InputError: a tar is not there or is broken, or a member is larger than 1 MB, not UTF-8, no JSON or without a
            text.
    """
    shards = named_files(place, SUFFIX, "prompts")
    has_texts = any(True for shard in shards for _ in members(shard, (TEXT,), most=None))
    for shard in shards:
        for name, data in members(shard, (TEXT if has_texts else _JSON,), MOST_TEXT_BYTES):
            where = printable(f"{shard}/{name}")
            text = decoded(data, where)
            yield where, text if has_texts else _text_in(text, where)


def _text_in(document: str, where: str) -> str:
    fields = _parsed(document, where)
    key = next((key for key in _KEYS if key in fields), None)
    if key is None:
        keys = ", ".join(repr(name) for name in list(fields)[:_MOST_NAMED]) or "none"
        raise InputError(f"{where} has no text ({', '.join(_KEYS)}); its fields are {keys}")
    return first_text(fields[key], f"{where}, field {key}")


def _parsed(document: str, where: str) -> dict[str, Any]:
    fields = parse_json(document, where)
    if not isinstance(fields, dict):
        raise InputError(f"{where} is no JSON object with a field {', '.join(_KEYS[:-1])} or {_KEYS[-1]}")
    return fields
