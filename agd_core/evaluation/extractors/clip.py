"""CLIP from a local folder: features of images, and how well an image agrees with a text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

from agd_core.basics.errors import InputError
from agd_core.evaluation.extractors.base import Agreement, Extracted, FeatureExtractor
from agd_core.evaluation.extractors.files import (
    CONFIG,
    WEIGHTS,
    folder_identity,
    load_network,
    missing_package,
    model_folder,
    reason,
)
from agd_core.evaluation.extractors.preprocessing import BICUBIC, Planes, apply_in_batches, normalised, planes, resized
from agd_core.evaluation.metrics.base import Images
from agd_core.models.reading import read_settings

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_PREPROCESSOR = "preprocessor_config.json"
_TOKENIZER = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""A tokenizer is one of these sets of files."""
_FILES = (CONFIG, _PREPROCESSOR, "tokenizer_config.json", *_TOKENIZER[0], *_TOKENIZER[1], *WEIGHTS)
_NAME_WORDS = 2


class ClipFeatures(FeatureExtractor):
    """The image embedding in the space that images and texts share, not normalised.

    Radford et al., https://arxiv.org/abs/2103.00020. Colours are normalised with the folder's preprocessor_config.json,
    or as OpenAI's CLIP does where there is none.
    """

    name = "clip"
    distance_name = "FD-CLIP"

    def __init__(self, weights: Path | None, device: torch.device) -> None:
        folder = model_folder(weights, self.name, "clip")
        try:
            from transformers import CLIPModel, CLIPTokenizer
        except ImportError as error:
            raise missing_package(self.name, error) from error
        self.sha256 = folder_identity(folder, _FILES)
        self.tokenizer = _tokenizer(CLIPTokenizer, folder)
        self.model = load_network(CLIPModel, folder, device)
        self.size = self.model.config.vision_config.image_size
        self.mean, self.std = _colours(folder)
        self.width = self.model.config.projection_dim
        self.device = device

    @property
    def resize(self) -> str:  # type: ignore[override]
        """With the size that this network was made for."""
        return f"short side {self.size}, {BICUBIC}, centre {self.size} x {self.size}"

    def agreement(self, extracted: Extracted, labels: Int[Tensor, " images"], asked: Sequence[str]) -> Agreement:
        """The CLIP score, `100 max(cos(image, text), 0)`.

        Hessel et al., https://arxiv.org/abs/2104.08718, equation 1, with weight 100 instead of 2.5 and without their
        prefix "A photo depicts". A text of one or two words is taken for the name of a class, see `prompt`.
        """
        row_of = {text: row for row, text in enumerate(dict.fromkeys(asked))}
        texts = self.embed([prompt(text) for text in row_of])
        cosine = cosine_similarity(extracted.features, texts[[row_of[text] for text in asked]], dim=1)
        return Agreement("clip_score", 100 * cosine.clamp_min(0))

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> Float[Tensor, "texts width"]:
        """Text embeddings, not normalised; what is longer than the network can read is cut off."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        rows = torch.stack([tokens["input_ids"], tokens["attention_mask"]], dim=1)  # [texts, 2, length]
        (embedded,) = apply_in_batches(self._read, rows, self.device)
        return embedded

    def look(self, images: Images) -> tuple[Tensor]:
        pixels = _centre(planes(images), self.size).to(self.device)
        return (self.model.get_image_features(normalised(pixels, self.mean, self.std)).pooler_output,)

    def _read(self, tokens: Tensor) -> tuple[Tensor]:
        tokens = tokens.to(self.device)
        return (self.model.get_text_features(tokens[:, 0], tokens[:, 1]).pooler_output,)


def prompt(asked: str) -> str:
    """The text that an image is compared with: "Ankle boot" -> "a photo of a Ankle boot"; prompts stay as they are."""
    return f"a photo of a {asked}" if len(asked.split()) <= _NAME_WORDS else asked


def _centre(images: Planes, size: int) -> Planes:
    """Short side to `size`, then the square in the centre, as transformers' CLIPImageProcessor cuts it."""
    height, width = images.shape[2:]
    short = min(height, width)
    images = resized(images, size * height // short, size * width // short)
    top, left = (images.shape[2] - size) // 2, (images.shape[3] - size) // 2
    return images[:, :, top : top + size, left : left + size]


def _colours(folder: Path) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation per colour."""
    path = folder / _PREPROCESSOR
    settings = read_settings(path, "transformers") if path.is_file() else {}
    mean, std = settings.get("image_mean", _MEAN), settings.get("image_std", _STD)
    for values in (mean, std):
        if not (
            isinstance(values, list | tuple)
            and len(values) == 3
            and all(isinstance(value, int | float) for value in values)
        ):
            raise InputError(f"{path}: image_mean and image_std must be lists of three numbers")
    return mean, std


def _tokenizer(kind: Any, folder: Path) -> Any:
    """The folder's tokenizer; checked first, since transformers makes an empty one where there are no files."""
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZER):
        raise InputError(
            f"{folder} has no tokenizer: tokenizer.json, or vocab.json and merges.txt, as transformers saves"
        )
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a damaged folder may raise anything
        raise InputError(f"cannot read the tokenizer in {folder}: {reason(error)}") from error
