"""Real images, one after another, whatever they are kept in.

A new kind of source is one file here and one line in each table of `storage.images.opening`.
"""

from storage.images.base import ImageSource, batches
from storage.images.digest_memory import DigestMemory, stamp
from storage.images.opening import open_images

__all__ = ["DigestMemory", "ImageSource", "batches", "open_images", "stamp"]
