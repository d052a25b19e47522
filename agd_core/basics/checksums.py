"""checksums.json: every file that a folder gives away with size and sha256, and a seal over the list itself.

It is written last and lies beside what it lists, so a folder is checked by itself wherever it is copied. The manifest
of an artefact has the same entries and is read too.
"""

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from agd_core.basics.digest import digest
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import confined, open_regular, parse_json, printable, read_bytes

CHECKSUMS = "checksums.json"
LISTS = (CHECKSUMS, "manifest.json")
"""What the list of a folder may be called: an artefact's is its manifest."""
_FORM, _FORMAT_VERSION = "agd-checksums", 1
_SEAL = "seal"
_AGAIN = "copy the folder again, or publish it again with the command in its README.md"
_MOST_BYTES = 4 << 20
_BLOCK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Sum(TypedDict):
    """What is known of one file."""

    bytes: int
    sha256: str


Sums = Mapping[str, Sum]
"""By the file's name, relative to the folder of the list."""


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data for JSON with a seal: the digest of everything else in it."""
    return {**content, _SEAL: _digest_of(content)}


def is_sealed(content: Mapping[str, Any]) -> bool:
    """Whether data carries the seal that belongs to it; data without any does not."""
    try:
        return bool(content.get(_SEAL) == _digest_of({name: value for name, value in content.items() if name != _SEAL}))
    except (ValueError, TypeError):  # NaN, or a text that is no Unicode
        return False


def sums_of(folder: Path, names: Iterable[str]) -> dict[str, Sum]:
    """Sizes and checksums of files as they are now.

    Raises:
        InputError: a file cannot be read.
    """
    return {name: _sum(folder / name) for name in sorted(names)}


def as_text(sums: Sums) -> bytes:
    """The content of checksums.json; equal sums give equal bytes."""
    return _encode(seal({"form": _FORM, "format_version": _FORMAT_VERSION, "files": sums}))


def is_ours(path: Path) -> bool:
    """Whether a file is a list of this form, damaged or not."""
    try:
        return _FORM.encode() in read_bytes(confined(path.parent, path.name), _MOST_BYTES)
    except InputError:
        return False


def read_sums(folder: Path, lists: Sequence[str] = (CHECKSUMS,)) -> Sums | None:
    """The files that a folder's list names; None where it has no list.

    Args:
        folder: holds the list.
        lists: what the list may be called; the first one that is there counts.

    Raises:
        InputError: the list is damaged, or a link that leads out of the folder.
    """
    for name in lists:
        if os.path.lexists(folder / name):
            return _read(confined(folder, name))
    return None


def problems(folder: Path, expected: Collection[str] = ()) -> list[str]:
    """One line per file that is missing, altered, or not listed; empty where everything is as it was published.

    Args:
        folder: holds the list.
        expected: names that must be listed if they are there.
    """
    try:
        sums = read_sums(folder) or {}
    except InputError as error:
        return [str(error)]
    found = [problem for name, entry in sums.items() if (problem := _problem(folder, name, entry))]
    unlisted = [name for name in expected if name not in sums and os.path.lexists(folder / name)]
    return found + [f"{printable(folder / name)}: is not in {CHECKSUMS}" for name in unlisted]


def require_intact(folder: Path, names: Iterable[str], most: int) -> None:
    """Refuse files of an adapter's folder, or of the artefact that it was trained as, that are others than listed.

    A folder without a list passes: it was published by an older version.

    Args:
        folder: holds the files, and maybe a list of them.
        names: of the files.
        most: bytes that such a file may have; a larger one is not read.

    Raises:
        InputError: the list is damaged, one of these files is missing in it or is another one, or a link leads out of
            the folder.
    """
    names = tuple(names)
    for name in names:
        confined(folder, name)
    if (sums := read_sums(folder, LISTS)) is None:
        return
    for name in names:
        if name not in sums:
            raise InputError(f"{printable(folder / name)}: is not in the folder's list of checksums; {_AGAIN}")
        if sums[name]["bytes"] > most:
            raise InputError(f"{printable(folder / name)}: more than {most:,} bytes, the most that is read of it")
        if problem := _problem(folder, name, sums[name]):
            raise InputError(f"{problem}; {_AGAIN}")


def _read(path: Path) -> Sums:
    data = read_bytes(path, _MOST_BYTES)
    content = parse_json(data, path)
    whole = isinstance(content, dict) and is_sealed(content) and _are_sums(content.get("files"))
    if not whole or (path.name == CHECKSUMS and data != _encode(content)):
        raise InputError(f"{printable(path)}: damaged or edited, its seal does not fit; {_AGAIN}")
    sums: Sums = content["files"]
    return sums


def _are_sums(files: object) -> bool:
    return isinstance(files, dict) and all(map(_is_sum, files.values()))


def _is_sum(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {"bytes", "sha256"}
        and type(entry["bytes"]) is int
        and isinstance(entry["sha256"], str)
        and bool(_SHA256.fullmatch(entry["sha256"]))
    )


def _problem(folder: Path, name: str, entry: Sum) -> str | None:
    try:
        path = confined(folder, name)
        if not os.path.lexists(path):
            return f"{printable(path)}: missing"
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry["bytes"]:
                return f"{printable(path)}: {size} bytes instead of {entry['bytes']}"
        return None if _sum(path) == entry else f"{printable(path)}: checksum differs"
    except InputError as error:
        return str(error)


def _sum(path: Path) -> Sum:
    try:
        with open_regular(path) as file:
            hasher, size = hashlib.sha256(), 0
            while block := file.read(_BLOCK_BYTES):
                hasher.update(block)
                size += len(block)
        return {"bytes": size, "sha256": hasher.hexdigest()}
    except OSError as error:
        raise InputError(f"{printable(path)} cannot be read: {error.strerror}") from error


def _encode(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def _digest_of(content: Mapping[str, Any]) -> str:
    """As JSON holds the data: tuples are lists there."""
    return digest(json.loads(json.dumps(content)))
