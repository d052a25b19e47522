"""WebDataset tars (https://github.com/webdataset/webdataset): image members, texts beside them under the same key."""

import os
import tarfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from agd_core.basics.errors import InputError, first_line
from agd_core.basics.safe_files import open_regular, parse_json, printable
from storage.sources.images import ImageSource
from storage.sources.pixels import MOST_BYTES, SUFFIXES, EncodedImage, read_bounded
from storage.sources.places import named_files
from storage.sources.texts import MOST_TEXT_BYTES, StoredText, decoded, first_text

SUFFIX = ".tar"
TEXT, JSON = ".txt", ".json"
"""Members with the caption of the image of the same key."""
CAPTIONS = ("caption", "prompt", "text")
"""Fields of a `.json` member that a text is looked for in, the first that is there."""
_MOST_NAMED = 8
MOST_HEADER_BYTES = 1 << 20
"""A longer name, or list of attributes, of a member is refused before it is read."""
_END = bytes(2 * tarfile.BLOCKSIZE)
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class TarImages(ImageSource):
    """Image members of tars, in the order in which they stand there.

    Members are read from the tar as it lies; nothing is unpacked. Links, sparse members and names that begin with a
    dot are left out.

    Args:
        place: a .tar, a folder of them, or a pattern, see `storage.sources.places.named_files`.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._shards = named_files(place, SUFFIX)

    @cached_property
    def _count(self) -> int:
        return sum(1 for shard in self._shards for _ in members(shard, SUFFIXES, most=None))

    def __len__(self) -> int:
        return self._count

    def files(self) -> list[Path]:
        """The tars."""
        return self._shards

    def images(self) -> Iterator[EncodedImage]:
        """Every image member."""
        for shard in self._shards:
            for name, data in members(shard, SUFFIXES, MOST_BYTES):
                yield EncodedImage(printable(f"{shard}/{name}"), data)


def tar_texts(place: str) -> Iterator[StoredText]:
    """The text of every `.txt` member as they stand; of every `.json` where there is none. Images are not read.

    Args:
        place: as for `TarImages`.

    Raises:
        InputError: a tar is not there or is broken, or a member is larger than 1 MB, not UTF-8, no JSON or without a
            text.
    """
    shards = named_files(place, SUFFIX)
    has_texts = any(True for shard in shards for _ in members(shard, (TEXT,), most=None))
    for shard in shards:
        for name, data in members(shard, (TEXT if has_texts else JSON,), MOST_TEXT_BYTES):
            where = printable(f"{shard}/{name}")
            text = decoded(data, where)
            yield StoredText(where, text if has_texts else first_text(*field_of(text, where, CAPTIONS, "text")))


def members(shard: Path, suffixes: tuple[str, ...], most: int | None) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every plain member with one of these suffixes; a larger one than `most` is refused.

    Without `most` nothing is read and the bytes are empty.

    Raises:
        InputError: the tar is compressed, broken or cut off, or a member is larger than `most`.
    """
    try:
        with open_regular(shard) as file, tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as tar:
            _require_end(shard, file)
            for member in _each(tar):
                if _wanted(member, suffixes):
                    yield member.name, b"" if most is None else _read(shard, tar, member, most)
    except InputError:
        raise
    except (tarfile.TarError, OSError, ValueError, LookupError, ArithmeticError) as error:
        # the headers of a crafted tar may hold any number
        reason = printable(first_line(error))
        raise InputError(f"{printable(shard)} is no whole tar without compression: {reason}") from error


def field_of(document: str, where: str, known: Sequence[str], what: str) -> tuple[Any, str]:
    """The first known field of a JSON object, and where it stands.

    Raises:
        InputError: it is no object, or has none of them.
    """
    fields = parse_json(document, where)
    if not isinstance(fields, dict):
        raise InputError(f"{where} is no JSON object with a field {', '.join(known[:-1])} or {known[-1]}")
    key = next((key for key in known if key in fields), None)
    if key is None:
        keys = ", ".join(repr(name) for name in list(fields)[:_MOST_NAMED]) or "none"
        raise InputError(f"{where} has no {what} ({', '.join(known)}); its fields are {keys}")
    return fields[key], f"{where}, field {key}"


class _Member(tarfile.TarInfo):
    """A member whose header is looked at before what it asks for is read."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        """As in `tarfile.TarInfo`, whose newest versions read headers without asking `frombuf`."""
        if self.size < 0 or (self.type in _HEADERS and self.size > MOST_HEADER_BYTES):
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return cast(tarfile.TarInfo, cast(Any, super())._proc_member(tar))


def _each(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Every member, each behind the last one: attributes may hold sizes that lead back."""
    last = -1
    while (member := tar.next()) is not None:
        if member.offset <= last or member.size < 0:
            raise tarfile.ReadError(f"the sizes of its members lead back to byte {member.offset}")
        last = member.offset
        yield member
        cast(Any, tar).members.clear()  # it remembers every member that it has passed


def _read(shard: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    return read_bounded(cast(BinaryIO, tar.extractfile(member)), printable(f"{shard}/{member.name}"), most)


def _wanted(member: tarfile.TarInfo, suffixes: tuple[str, ...]) -> bool:
    hidden = member.name.rpartition("/")[2].startswith(".")
    return member.isreg() and not member.issparse() and member.name.lower().endswith(suffixes) and not hidden


def _require_end(shard: Path, file: BinaryIO) -> None:
    """A tar that was cut off between two members looks whole but for this."""
    here = file.tell()
    file.seek(-min(len(_END), file.seek(0, os.SEEK_END)), os.SEEK_END)
    if file.read() != _END:
        raise InputError(f"{printable(shard)} is no whole tar without compression: its end is missing")
    file.seek(here)
