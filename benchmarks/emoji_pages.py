"""Pictures of the emoji world as PNG: with their captions under them, and rows that have a name."""

import io
import textwrap
from collections.abc import Mapping, Sequence

from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Images = UInt8[Tensor, "images height width 3"]
_GAP, _LETTERS, _TEXT_LINES, _TEXT_SIZE = 6, 22, 3, 11


def captioned(images: Images, captions: Sequence[str], columns: int, enlarge: int = 2) -> bytes:
    """Images row by row, each with its caption under it."""
    side, line = images.shape[2] * enlarge, _TEXT_SIZE + 3
    width, height = side + _GAP, side + _TEXT_LINES * line + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, -(-len(images) // columns) * height + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT_SIZE)
    for index, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = _GAP + index % columns * width, _GAP + index // columns * height
        sheet.paste(_picture(pixels, side), (left, top))
        text = "\n".join(textwrap.wrap(caption, max(8, _LETTERS * side // 128))[:_TEXT_LINES])
        draw.multiline_text((left, top + side + 1), text, "black", font, spacing=2)
    return _png(sheet)


def named_rows(rows: Mapping[str, Images], captions: Sequence[str], enlarge: int = 1) -> bytes:
    """A row of images per name, which stands before it; a column per caption, which stands below."""
    images = next(iter(rows.values()))
    side, margin, line = images.shape[2] * enlarge, 90, _TEXT_SIZE + 3
    size = (margin + len(captions) * (side + _GAP), len(rows) * (side + _GAP) + 5 * line)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT_SIZE)
    for row, (name, each) in enumerate(rows.items()):
        top = row * (side + _GAP)
        draw.text((2, top + side // 2), name, "black", font)
        for column, pixels in enumerate(each):
            sheet.paste(_picture(pixels, side), (margin + column * (side + _GAP), top))
    for column, caption in enumerate(captions):
        text = "\n".join(textwrap.wrap(caption, max(8, _LETTERS * side // 128))[:5])
        draw.multiline_text((margin + column * (side + _GAP), len(rows) * (side + _GAP)), text, "black", font)
    return _png(sheet)


def _picture(pixels: UInt8[Tensor, "height width 3"], side: int) -> Image.Image:
    return Image.fromarray(pixels.numpy()).resize((side, side), Image.Resampling.NEAREST)


def _png(sheet: Image.Image) -> bytes:
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
