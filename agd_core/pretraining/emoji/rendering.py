"""From a drawing to pixels, with resvg (https://github.com/linebender/resvg), on white.

A drawing comes from a stranger, and resvg opens the files that an image, a filter or a text names. So only elements
that draw by themselves are let through, and references only to what is in the same drawing.
"""

import io
from xml.etree import ElementTree

from PIL import Image

from agd_core.basics.errors import InputError, first_line
from agd_core.basics.safe_files import printable
from agd_core.pretraining.emoji.icons import Icon

SIDE = 64
"""Pixels of a picture's side."""
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_SHAPES = ("svg", "g", "defs", "symbol", "use", "path", "circle", "ellipse", "rect", "line", "polygon", "polyline")
_PAINTS = ("linearGradient", "radialGradient", "stop", "clipPath", "mask", "filter")
_FILTERS = (
    "feBlend",
    "feColorMatrix",
    "feComposite",
    "feFlood",
    "feGaussianBlur",
    "feOffset",
    "feMerge",
    "feMergeNode",
)
_ALLOWED = {f"{{{_SVG}}}{name}" for name in (*_SHAPES, *_PAINTS, *_FILTERS)}


def render(name: str, icon: Icon) -> bytes:
    """A picture of the icon, as a PNG of `SIDE` x `SIDE` pixels in RGB; the same bytes every time.

    Args:
        name: for messages.
        icon: the drawing.

    Raises:
        InputError: resvg is not installed, or the drawing is broken or reaches for something outside of it.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise InputError("drawing emoji needs resvg: pip install 'agd-pipeline[emoji]'") from error
    drawing = _svg(icon)
    _require_harmless(name, drawing)
    try:
        drawn = resvg_py.svg_to_bytes(svg_string=drawing, background="white", skip_system_fonts=True)
    except Exception as error:  # the binding turns whatever resvg says into exceptions of several kinds
        raise InputError(f"{printable(name)} cannot be drawn: {printable(first_line(error))}") from error
    return _as_rgb(drawn)


def _svg(icon: Icon) -> str:
    box = f"{icon.left:g} {icon.top:g} {icon.width:g} {icon.height:g}"
    size = f'viewBox="{box}" width="{SIDE}" height="{SIDE}"'
    return f'<svg xmlns="{_SVG}" xmlns:xlink="{_XLINK}" {size}>{icon.body}</svg>'


def _require_harmless(name: str, drawing: str) -> None:
    """Let through shapes, paints and filters that refer to one another.

    The drawing cannot define entities: it lies inside of an element, where no document type may stand.
    """
    try:
        elements = list(ElementTree.fromstring(drawing).iter())  # noqa: S314
    except ElementTree.ParseError as error:
        raise InputError(f"{printable(name)} is no drawing: {printable(first_line(error))}") from error
    for element in elements:
        if element.tag not in _ALLOWED:
            raise InputError(f"{printable(name)} has an element {printable(element.tag)!r}; drawings have none of it")
        for attribute, value in element.attrib.items():
            if _reaches_out(attribute, value):
                raise InputError(f"{printable(name)} refers to something outside of it: {printable(value[:80])!r}")


def _reaches_out(attribute: str, value: str) -> bool:
    """Whether an attribute names anything but an element of the same drawing."""
    if attribute.endswith("href"):
        return not value.startswith("#")
    plain = value.lower().replace(" ", "").replace("'", "").replace('"', "")
    return "@import" in plain or plain.count("url(") != plain.count("url(#")


def _as_rgb(png: bytes) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(file, "PNG", optimize=False)
    return file.getvalue()
