"""Drawings to pixels: where shapes land, the same bytes every time, and nothing outside is read."""

import io

import numpy as np
import pytest
from PIL import Image

from agd_core.basics.errors import InputError
from agd_core.pretraining.emoji.icons import Icon
from agd_core.pretraining.emoji.rendering import SIDE, render

RED = '<path fill="#ff0000" d="M0 0h16v32H0z"/>'


def icon(body, width=32.0, height=32.0, left=0.0, top=0.0):
    return Icon(body=body, left=left, top=top, width=width, height=height)


def pixels(drawing):
    return np.asarray(Image.open(io.BytesIO(render("drawing", drawing))))


def test_a_drawing_lands_on_white():
    image = pixels(icon(RED))
    assert image.shape == (SIDE, SIDE, 3)
    assert (image[:, :32] == [255, 0, 0]).all()
    assert (image[:, 32:] == 255).all()


def test_what_is_half_there_is_mixed_with_white():
    assert pixels(icon('<rect width="32" height="32" opacity=".5"/>'))[9, 9].tolist() == pytest.approx([127] * 3, abs=1)


def test_the_box_is_kept_and_a_narrow_one_stands_in_the_middle():
    moved = icon('<path fill="#f00" d="M10 10h4v4h-4z"/>', width=4.0, height=4.0, left=10.0, top=10.0)
    assert (pixels(moved) == [255, 0, 0]).all()
    narrow = pixels(icon('<path fill="#f00" d="M0 0h16v32H0z"/>', width=16.0))
    assert (narrow[:, 16:48] == [255, 0, 0]).all()
    assert (narrow[:, :16] == 255).all()


def test_gradients_filters_and_uses_of_the_same_drawing_are_drawn():
    body = (
        '<defs><linearGradient id="g"><stop stop-color="#00f"/></linearGradient><path id="p" d="M0 0h32v32H0z"/></defs>'
        '<filter id="f"><feGaussianBlur stdDeviation="1"/></filter>'
        '<use href="#p" fill="url(#g)" filter="url(#f)"/>'
    )
    assert pixels(icon(body))[32, 32].tolist() == [0, 0, 255]


def test_the_same_drawing_gives_the_same_bytes():
    assert render("a", icon(RED)) == render("b", icon(RED))


@pytest.mark.parametrize(
    "body",
    [
        '<image href="{file}" width="32" height="32"/>',
        '<image href="data:image/png;base64,AAAA" width="32" height="32"/>',
        '<use href="{file}#a"/>',
        '<use xlink:href="https://example.com/a.svg#a"/>',
        '<rect width="9" height="9" fill="url({file}#a)"/>',
        '<rect width="9" height="9" style="fill: URL( \'{file}\' )"/>',
        '<style>@import "{file}";</style>',
        '<filter id="f"><feImage href="{file}"/></filter>',
        "<text>words</text>",
        "<script>1</script>",
        "<foreignObject/>",
        '<other xmlns="http://example.com/"/>',
    ],
)
def test_what_reaches_outside_is_refused_before_resvg_sees_it(tmp_path, monkeypatch, body):
    import resvg_py

    secret = tmp_path / "secret.svg"
    secret.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" id="a" width="32" height="32">{RED}</svg>')
    monkeypatch.setattr(resvg_py, "svg_to_bytes", lambda **settings: pytest.fail("it was drawn"))
    with pytest.raises(InputError, match="drawing"):
        render("drawing", icon(body.format(file=secret)))


@pytest.mark.parametrize(
    "body",
    ["<path", "</svg><svg>", '<!DOCTYPE a [<!ENTITY b "c">]><g/>', "<g>&b;</g>", "\x00"],
)
def test_no_drawing_is_named(body):
    with pytest.raises(InputError, match="noto: bell is no drawing"):
        render("noto: bell", icon(body))
