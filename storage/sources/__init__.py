"""Real images and prompts, whatever they are kept in.

A new kind of source is one file here and one line in `storage.sources.kinds.KINDS`.
"""

from storage.sources.digest_memory import DigestMemory, stamp
from storage.sources.images import ImageSource, batches
from storage.sources.kinds import open_images, read_prompts

__all__ = ["DigestMemory", "ImageSource", "batches", "open_images", "read_prompts", "stamp"]
