"""From what a person names to a source of images."""

import os
from collections.abc import Callable

from agd_core.errors import InputError
from agd_core.home import expand
from agd_core.safe_files import printable
from storage.images.base import ImageSource
from storage.images.folder import FolderImages
from storage.images.parquet import ParquetImages
from storage.images.webdataset import WebDatasetImages
from storage.images.zarr_array import METADATA, ZarrImages

_BY_SUFFIX: dict[str, Callable[[str], ImageSource]] = {
    ".tar": WebDatasetImages,
    ".zarr": ZarrImages,
    ".parquet": ParquetImages,
}
_BY_CONTENT: dict[str, Callable[[str], ImageSource]] = {
    **dict.fromkeys(METADATA, ZarrImages),
    "*.tar": WebDatasetImages,
    "*.parquet": ParquetImages,
}
"""What in a folder makes it more than a folder of image files; the first that fits."""
_ALLOWED = "a folder of PNG, JPEG or WebP files, WebDataset .tar files, a .zarr array, .parquet files"


def open_images(place: str) -> ImageSource:
    """The images of a place on this machine.

    Args:
        place: a folder of image files, a `.tar`, `.zarr` or `.parquet`, a folder of tars or Parquet files, or a
            pattern of such files, see `storage.images.places.named_files`.

    Raises:
        InputError: there is nothing, or nothing that is known here, or it holds no images.
    """
    source = _kind(place)(place)
    if not len(source):
        raise InputError(f"{printable(place)} holds no images; allowed are {_ALLOWED}")
    return source


def _kind(place: str) -> Callable[[str], ImageSource]:
    path = expand(place)
    if known := _BY_SUFFIX.get(path.suffix.lower()):
        return known
    if not os.path.exists(path):
        raise InputError(f"images {printable(place)} do not exist; allowed are {_ALLOWED}")
    if not path.is_dir():
        raise InputError(f"images {printable(place)} are of no known kind; allowed are {_ALLOWED}")
    found = (kind for pattern, kind in _BY_CONTENT.items() if any(path.glob(pattern)))
    return next(found, FolderImages)
