"""Image grids as PNG bytes, with words around them where there are any."""

import io
from collections.abc import Sequence
from typing import cast

from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_INK, _PAPER, _DOTS = "black", "white", "..."
_FONT_SHARE, _LEAST_FONT = 10, 10
"""A caption's letters are a tenth of an image high, and at least so many pixels."""
_CAPTION_LINES, _LINE_SPACE = 2, 1.25
_NAME_SHARE, _NAME_SPACE = 5, 1.7
"""A method's name has the letters that images of a fifth of the picture's width would have."""


def grid_png(
    images: UInt8[Tensor, "images height width channels"],
    columns: int,
    enlarge: int = 2,
    captions: Sequence[str] = (),
) -> bytes:
    """Images row by row, `columns` wide, with white between them, enlarged without smoothing.

    Args:
        images: so many as there are captions, if there are any.
        columns: images side by side.
        enlarge: pixels per pixel, those of the white between images too.
        captions: what stands under every image, cut where it is longer than two lines.
    """
    return _png(_grid(images, columns, enlarge, captions))


def _grid(
    images: UInt8[Tensor, "images height width channels"], columns: int, enlarge: int, captions: Sequence[str]
) -> Image.Image:
    height, width = (side * enlarge for side in images.shape[1:3])
    below = _caption_height(width) if captions else 0
    rows = -(-len(images) // columns)
    sheet = _sheet(columns * (width + enlarge) - enlarge, rows * (height + below + enlarge) - enlarge)
    for index, pixels in enumerate(images):
        left, top = index % columns * (width + enlarge), index // columns * (height + below + enlarge)
        sheet.paste(_picture(pixels, enlarge), (left, top))
        if captions:
            _write(sheet, captions[index], (left, top + height), width)
    return sheet


def comparison_png(
    methods: Sequence[tuple[str, UInt8[Tensor, "images height width channels"]]],
    captions: Sequence[str],
    enlarge: int = 2,
) -> bytes:
    """A row of images per method under its name; the last has captions, since all rows show the same subjects."""
    strips = [_grid(images, len(captions), enlarge, ()) for _, images in methods[:-1]]
    strips.append(_grid(methods[-1][1], len(captions), enlarge, captions))
    font = _font(strips[0].width // _NAME_SHARE)
    title = round(font.size * _NAME_SPACE)
    sheet, top = _sheet(strips[0].width, sum(strip.height + title for strip in strips)), 0
    for (name, _), strip in zip(methods, strips, strict=True):
        ImageDraw.Draw(sheet).text((2, top + title / 2), name, _INK, font, anchor="lm")
        sheet.paste(strip, (0, top + title))
        top += title + strip.height
    return _png(sheet)


def _caption_height(width: int) -> int:
    return round(_font(width).size * _LINE_SPACE * _CAPTION_LINES) + 2


def _write(sheet: Image.Image, text: str, place: tuple[int, int], width: int) -> None:
    """A caption, centred under an image of this width."""
    font, draw = _font(width), ImageDraw.Draw(sheet)
    for number, line in enumerate(_lines(text, font, width)):
        middle = place[1] + font.size * _LINE_SPACE * (number + 0.5)
        draw.text((place[0] + width / 2, middle), line, _INK, font, anchor="mm")


def _lines(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """A text in lines that fit, as many as a caption has."""
    lines, waiting = [""], text.split()
    while waiting and len(lines) <= _CAPTION_LINES:
        longer = f"{lines[-1]} {waiting[0]}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append("")
        else:
            lines[-1] = longer
            del waiting[0]
    shown, more = lines[:_CAPTION_LINES], bool(waiting or lines[_CAPTION_LINES:])
    return [_cut(line, font, width, more and line is shown[-1]) for line in shown]


def _cut(line: str, font: ImageFont.FreeTypeFont, width: int, more: bool) -> str:
    """As much of a line as fits, with dots where the text goes on."""
    if not more and font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}{_DOTS}") > width:
        line = line[:-1]
    return f"{line}{_DOTS}"


def _font(width: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, in the size for an image of this width."""
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(max(_LEAST_FONT, width // _FONT_SHARE)))


def _sheet(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), _PAPER)


def _png(sheet: Image.Image) -> bytes:
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _picture(pixels: UInt8[Tensor, "height width channels"], enlarge: int) -> Image.Image:
    array = pixels.numpy()
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    return image.resize((image.width * enlarge, image.height * enlarge), Image.Resampling.NEAREST)
