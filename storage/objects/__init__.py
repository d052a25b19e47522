"""Places that keep a store's bytes, one file each."""

from pathlib import Path

from agd_core.basics.errors import InputError, first_line
from storage.objects.base import ByteRange, ObjectStore, StagedObject
from storage.objects.local import LocalObjects
from storage.objects.memory import MemoryObjects


def open_objects(url: str) -> ObjectStore:
    """A local folder, or any other place that fsspec knows (s3://bucket/prefix, gs://, memory://).

    Raises:
        InputError: fsspec does not know the protocol, or a package for it is not installed.
    """
    if "://" not in url:
        return LocalObjects(Path(url))
    from storage.objects.remote import RemoteObjects

    try:
        return RemoteObjects(url)
    except (ValueError, ImportError) as error:
        raise InputError(f"{url} cannot be used: {first_line(error)}") from error


__all__ = ["ByteRange", "LocalObjects", "MemoryObjects", "ObjectStore", "StagedObject", "open_objects"]
