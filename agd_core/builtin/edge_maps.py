"""Edge maps: what `builtin:emoji-sd-controlnet` is conditioned on. torch alone, the same for the same picture.

Sobel's operator (I. Sobel, G. Feldman, 1968; https://en.wikipedia.org/wiki/Sobel_operator) on each colour; a pixel is
an edge where the steepest colour changes by more than a fifth of its range. The widely used Canny also thins lines and
follows them, which at 64 pixels changes little and is no tensor operation.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d, pad

THRESHOLD = 0.2
"""Of the length of the gradient, in which a step from black to white counts 1."""
_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def edge_maps(pixels: UInt8[Tensor, "images height width 3"]) -> Float[Tensor, "images 3 height width"]:
    """White lines on black, in 0..1 and on the device of the pictures, as stock ControlNet pipelines take `image`."""
    images, height, width, _ = pixels.shape
    planes = pixels.permute(0, 3, 1, 2).float() / 255
    across = torch.tensor(_SOBEL, device=pixels.device) / 4
    kernels = torch.stack([across, across.T])[:, None]
    bordered = pad(planes, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
    gradients = conv2d(bordered, kernels).view(images, 3, 2, height, width)
    steepest: Tensor = gradients.square().sum(dim=2).amax(dim=1, keepdim=True)
    return (steepest > THRESHOLD**2).float().expand(-1, 3, -1, -1)


def edge_image(picture: Image.Image) -> Image.Image:
    """The edge map of one picture, as large as it is."""
    pixels = torch.from_numpy(np.array(picture.convert("RGB")))
    edges = edge_maps(pixels[None])[0].mul(255).byte()
    return Image.fromarray(edges.permute(1, 2, 0).contiguous().numpy())
