"""The judge of the emoji world: a CLIP trained on the emoji, which also tells a name among names, a style among styles.

Retrieval as R-precision, the usual measure of text-to-image models without a human: is what was asked for nearer to the
image than the other candidates? (AttnGAN, https://arxiv.org/abs/1711.10485, section 4.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.nn.functional import normalize

from agd_core.basics.digest import digest, file_digest
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable, read_json
from agd_core.builtin.shipped import shipped_folder
from agd_core.evaluation.extractors.base import Agreement, Extracted, FeatureExtractor
from agd_core.evaluation.extractors.clip import ClipFeatures
from agd_core.evaluation.metrics.base import Images
from agd_core.evaluation.metrics.reference import Reference

WORDS, REFERENCE, ACCURACY = "words.json", "train_reference.safetensors", "accuracy.json"
MOST_NAMES = 1000
_NAME = "{name}"
Told = TypeVar("Told", bound=BaseModel)


class Words(BaseModel):
    """What the judge tells apart."""

    model_config = ConfigDict(strict=True, extra="forbid")

    caption: str = Field(pattern=r"^[^{}]*(\{name\}[^{}]*\{style\}|\{style\}[^{}]*\{name\})[^{}]*$")
    """How a prompt is made of a name and a style."""
    names: list[str] = Field(min_length=2, max_length=MOST_NAMES)
    styles: list[str] = Field(min_length=2, max_length=100)


class Share(BaseModel):
    """A part of all pictures."""

    value: float = Field(ge=0, le=1)


class Accuracy(BaseModel):
    """How often the judge is right on pictures that it never saw."""

    images: int = Field(ge=1)
    name_top1: Share
    style_top1: Share


@dataclass(frozen=True)
class Asked:
    """A prompt taken apart."""

    name: str
    style: str


class EmojiJudge(FeatureExtractor):
    """CLIP's image embedding; a folder in transformers' format with `words.json` beside the weights."""

    name = "emoji-judge"
    distance_name = "FD-emoji"

    def __init__(self, weights: Path | None, device: torch.device) -> None:
        self.folder = weights or shipped_folder(self.name)
        self.clip = ClipFeatures(self.folder, device)
        self.words = read_words(self.folder / WORDS)
        self.sha256 = digest([self.clip.sha256, file_digest(self.folder / WORDS)])
        self.width, self.device = self.clip.width, device
        self._tables: dict[tuple[str, ...], Tensor] = {}

    @property
    def resize(self) -> str:  # type: ignore[override]
        """As its CLIP resizes."""
        return self.clip.resize

    def look(self, images: Images) -> tuple[Tensor, ...]:
        return self.clip.look(images)

    def agreement(self, extracted: Extracted, labels: Int[Tensor, " images"], asked: Sequence[str]) -> Agreement:
        """The CLIP score in this judge's own space."""
        return self.clip.agreement(extracted, labels, asked)

    def ranks(self, extracted: Extracted, asked: Sequence[str]) -> Int[Tensor, "images 2"] | None:
        """Place of the right name among all names in the asked style, and of the right style among all for that name.

        None where a prompt is not made of a name and a style that this judge knows.
        """
        parts = [part for text in asked if (part := taken_apart(text, self.words))]
        if len(parts) < len(asked):
            return None
        names = list(dict.fromkeys([*self.words.names, *(part.name for part in parts)]))
        table = self._read(tuple(names))
        images = normalize(extracted.features, dim=1)
        rows = torch.tensor([names.index(part.name) for part in parts])
        styles = torch.tensor([self.words.styles.index(part.style) for part in parts])
        return torch.stack([_name_ranks(images, table, rows, styles), _style_ranks(images, table, rows, styles)], dim=1)

    def _read(self, names: tuple[str, ...]) -> Float[Tensor, "styles names width"]:
        """Every name in every style, normalised; kept, for one set of images after the other asks for the same."""
        if names not in self._tables:
            texts = [self.words.caption.format(name=name, style=style) for style in self.words.styles for name in names]
            table = normalize(self.clip.embed(texts), dim=1)
            self._tables = {names: table.view(len(self.words.styles), len(names), -1)}
        return self._tables[names]

    def remark(self) -> str:
        """Its own accuracy, if it lies beside the weights."""
        path = self.folder / ACCURACY
        if not path.exists():
            return ""
        told = _validated(path, Accuracy)
        return (
            f"{self.name} itself, on {told.images:,} real pictures that it never saw, names "
            f"{100 * told.name_top1.value:.1f} % rightly among {len(self.words.names):,} names and tells the style of "
            f"{100 * told.style_top1.value:.1f} % among {len(self.words.styles)}: its numbers compare sets of images "
            "with one another, and no more."
        )

    def shipped_reference(self) -> Reference | None:
        """The real pictures that the base model learns, if their statistics lie beside the weights."""
        path = self.folder / REFERENCE
        return Reference.load(path) if path.exists() else None


def read_words(path: Path) -> Words:
    """What a judge's folder says it tells apart.

    Raises:
        InputError: it cannot be read or says something else.
    """
    return _validated(path, Words)


def _validated(path: Path, kind: type[Told]) -> Told:
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        fault = error.errors()[0]
        raise InputError(f"{printable(path)}: {printable(fault['loc'])}: {printable(fault['msg'])}") from error


def taken_apart(text: str, words: Words) -> Asked | None:
    """Name and style of a prompt, None where it has not the form of a caption; the longest style that fits counts."""
    for style in sorted(words.styles, key=len, reverse=True):
        head, tail = words.caption.replace("{style}", style).split(_NAME)
        if text.startswith(head) and text.endswith(tail) and len(text) > len(head) + len(tail):
            return Asked(text[len(head) : len(text) - len(tail)], style)
    return None


def _name_ranks(
    images: Float[Tensor, "images width"], table: Float[Tensor, "styles names width"], names: Tensor, styles: Tensor
) -> Int[Tensor, " images"]:
    """Those of one style at once, so that memory stays small."""
    ranks = torch.zeros(len(images), dtype=torch.long)
    for style in range(len(table)):
        rows = torch.nonzero(styles == style).flatten()
        ranks[rows] = _place(images[rows] @ table[style].T, names[rows])
    return ranks


def _style_ranks(
    images: Float[Tensor, "images width"], table: Float[Tensor, "styles names width"], names: Tensor, styles: Tensor
) -> Int[Tensor, " images"]:
    cosines = torch.stack([(images * of_style[names]).sum(dim=1) for of_style in table], dim=1)
    return _place(cosines, styles)


def _place(cosines: Float[Tensor, "images candidates"], right: Int[Tensor, " images"]) -> Int[Tensor, " images"]:
    """1 where the right candidate is nearest; candidates as near as it come before it."""
    return (cosines >= cosines.gather(1, right[:, None])).sum(dim=1)
