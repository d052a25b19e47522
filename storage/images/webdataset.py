"""WebDataset tars (https://github.com/webdataset/webdataset): image members, texts beside them under the same key."""

import os
import tarfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from storage.images.base import ImageSource
from storage.images.pixels import MOST_BYTES, SUFFIXES, EncodedImage, read_bounded
from storage.images.places import named_files
from storage.images.problems import ImageProblem

TEXT = ".txt"
"""Members with the caption of the image of the same key."""
MOST_TEXT_BYTES = 1 << 20
"""A larger member is no caption."""
_END = bytes(2 * tarfile.BLOCKSIZE)


class WebDatasetImages(ImageSource):
    """Image members of tars, in the order in which they stand there.

    Members are read from the tar as it lies; nothing is unpacked. Links, sparse members and names that begin with a
    dot are left out.

    Args:
        place: a .tar, a folder of them, or a pattern, see `storage.images.places.named_files`.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._shards = named_files(place, ".tar")

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
                yield EncodedImage(f"{shard}/{name}", data)

    def captions(self) -> list[str] | None:
        """The `.txt` members, by the key that they share with an image."""
        texts = [text for shard in self._shards for text in _texts(shard)]
        if all(text is None for _, text in texts):
            return None
        if missing := [name for name, text in texts if text is None]:
            raise ImageProblem(f"{missing[0]} has no .txt member beside it, other images have")
        return [text for _, text in texts if text is not None]


def _texts(shard: Path) -> list[tuple[str, str | None]]:
    found = {
        _key(name): data.decode("utf-8", "replace").strip() for name, data in members(shard, (TEXT,), MOST_TEXT_BYTES)
    }
    return [(f"{shard}/{name}", found.get(_key(name))) for name, _ in members(shard, SUFFIXES, most=None)]


def _key(name: str) -> str:
    """A member's path up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def members(shard: Path, suffixes: tuple[str, ...], most: int | None) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every plain member with one of these suffixes; a larger one than `most` is refused.

    Without `most` nothing is read and the bytes are empty.

    Raises:
        ImageProblem: the tar is compressed, broken or cut off, or a member is larger than `most`.
    """
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            _require_end(shard, file)
            while (member := tar.next()) is not None:
                if _wanted(member, suffixes):
                    yield member.name, b"" if most is None else _read(shard, tar, member, most)
                cast(Any, tar).members.clear()  # it remembers every member that it has passed
    except (tarfile.TarError, OSError) as error:
        raise ImageProblem(f"{shard} is no whole tar without compression: {error}") from error


def _read(shard: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    return read_bounded(cast(BinaryIO, tar.extractfile(member)), f"{shard}/{member.name}", most)


def _wanted(member: tarfile.TarInfo, suffixes: tuple[str, ...]) -> bool:
    hidden = member.name.rpartition("/")[2].startswith(".")
    return member.isreg() and not member.issparse() and member.name.lower().endswith(suffixes) and not hidden


def _require_end(shard: Path, file: BinaryIO) -> None:
    """A tar that was cut off between two members looks whole but for this."""
    here = file.tell()
    file.seek(-min(len(_END), file.seek(0, os.SEEK_END)), os.SEEK_END)
    if file.read() != _END:
        raise ImageProblem(f"{shard} is no whole tar without compression: its end is missing")
    file.seek(here)
