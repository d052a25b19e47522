"""From what a person names to a list of prompts."""

import os
from collections.abc import Callable, Iterator
from itertools import islice

from agd_core.errors import InputError
from agd_core.home import expand
from agd_core.safe_files import printable
from storage.prompts import parquet, text_file, webdataset
from storage.prompts.texts import checked

Texts = Callable[[str], Iterator[tuple[str, str]]]
"""Given a place: where each text is, for messages, and the text as it is stored."""

_BY_SUFFIX: dict[str, Texts] = {
    webdataset.SUFFIX: webdataset.webdataset_prompts,
    parquet.SUFFIX: parquet.parquet_prompts,
    text_file.SUFFIX: text_file.text_prompts,
}
"""Of a folder, the first that it holds a file of."""
_ALLOWED = "a .txt file with one prompt a line, .parquet files, WebDataset .tar files, or a folder of one of these"


def read_prompts(place: str, most: int | None = None) -> tuple[str, ...]:
    """The prompts of a place on this machine: without surrounding white space, each once, as they first appear.

    Texts of nothing but white space are left out. The files are read as a stream, and images in them not at all.

    Args:
        place: a `.txt`, `.parquet` or `.tar`, a folder of such files, or a pattern of them, see
            `storage.images.places.named_files`.
        most: stop after so many prompts; what comes behind them is not looked at.

    Raises:
        InputError: there is nothing, or nothing that is known here, it is broken or holds no prompts.
    """
    prompts = tuple(islice(_distinct(_kind(place)(place)), most))
    if not prompts:
        raise InputError(f"{printable(place)} holds no prompts; allowed are {_ALLOWED}")
    return prompts


def _distinct(texts: Iterator[tuple[str, str]]) -> Iterator[str]:
    seen = {""}
    for where, text in texts:
        prompt = checked(where, text)
        if prompt not in seen:
            seen.add(prompt)
            yield prompt


def _kind(place: str) -> Texts:
    path = expand(place)
    if known := _BY_SUFFIX.get(path.suffix.lower()):
        return known
    if not place or not os.path.exists(path):
        raise InputError(f"prompts {printable(place) or repr(place)} do not exist; allowed are {_ALLOWED}")
    found = (kind for suffix, kind in _BY_SUFFIX.items() if path.is_dir() and any(path.glob(f"*{suffix}")))
    if kind := next(found, None):
        return kind
    raise InputError(f"prompts {printable(place)} are of no known kind; allowed are {_ALLOWED}")
