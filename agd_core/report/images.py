"""Image grids as PNG bytes."""

import io

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor


def grid_png(images: UInt8[Tensor, "images height width channels"], columns: int, enlarge: int = 2) -> bytes:
    """Images row by row, `columns` wide, with one pixel between them, enlarged without smoothing."""
    height, width = images.shape[1:3]
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + 1) - 1, rows * (height + 1) - 1), "white")
    for index, pixels in enumerate(images):
        row, column = divmod(index, columns)
        sheet.paste(_picture(pixels), (column * (width + 1), row * (height + 1)))
    buffer = io.BytesIO()
    sheet.resize((sheet.width * enlarge, sheet.height * enlarge), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def _picture(pixels: UInt8[Tensor, "height width channels"]) -> Image.Image:
    array = pixels.numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
