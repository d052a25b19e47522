"""Pictures redrawn as ink drawings, by their pixels alone: lines where colours meet, a wash where it is dark.

The style that `emoji-sd-lora` learns. It is made from pictures of a licence that allows it, and no artist's.
"""

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import conv2d, pad

INK_STYLE = "ink"
"""The style's word in captions."""
_INK = (26, 32, 66)
"""Blue-black."""
_SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
_FAINT, _BOLD = 0.04, 0.16
"""Differences of colour, of 1 at most, from which on there is a line, and a full one."""
_LUMA = torch.tensor([0.299, 0.587, 0.114])
"""Brightness of red, green and blue: ITU-R BT.601."""
_WASH = ((0.75, 0.12), (0.5, 0.16), (0.25, 0.3))
"""Below each brightness so much more ink."""


def ink_drawing(pixels: UInt8[Tensor, "images height width 3"]) -> UInt8[Tensor, "images height width 3"]:
    """The same pictures in blue-black ink on white paper."""
    colours = pixels.permute(0, 3, 1, 2).float() / 255
    ink = torch.maximum(_lines(colours), _wash(colours))[..., None]
    paper = torch.full((3,), 255.0)
    return (paper + ink * (torch.tensor(_INK) - paper)).round().to(torch.uint8)


def _lines(colours: Tensor) -> Tensor:
    """Ink along the edges of the strongest colour channel (Sobel's operator), `[images, height, width]`, in [0, 1]."""
    kernels = torch.stack([_SOBEL, _SOBEL.T])[:, None]
    padded = pad(colours.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
    slopes = conv2d(padded, kernels).norm(dim=1).unflatten(0, colours.shape[:2]).amax(dim=1)
    ink: Tensor = ((slopes - _FAINT) / (_BOLD - _FAINT)).clamp(0, 1)
    return ink


def _wash(colours: Tensor) -> Tensor:
    """Ink by brightness, in four steps."""
    brightness = torch.einsum("nchw,c->nhw", colours, _LUMA)
    return torch.stack([(brightness < below) * more for below, more in _WASH]).sum(dim=0)
