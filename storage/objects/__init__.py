"""Places that keep a store's bytes, one file each."""

from pathlib import Path

from storage.objects.base import ByteRange, ObjectStore, StagedObject
from storage.objects.local import LocalObjects
from storage.objects.memory import MemoryObjects


def open_objects(url: str) -> ObjectStore:
    """A local folder, or any other place that fsspec knows (s3://bucket/prefix, gs://, memory://).

    Raises:
        ValueError: fsspec does not know the protocol, or a package for it is not installed.
    """
    if "://" not in url:
        return LocalObjects(Path(url))
    from storage.objects.remote import RemoteObjects

    return RemoteObjects(url)


__all__ = ["ByteRange", "LocalObjects", "MemoryObjects", "ObjectStore", "StagedObject", "open_objects"]
