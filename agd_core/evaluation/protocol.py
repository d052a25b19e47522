"""How a number was made: the protocol that every row of results carries, and how two of them differ."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from agd_core.basics.errors import InputError

QUANTISATION = "uint8 by rounding"
"""How a pixel in [-1, 1] becomes a byte, see `agd_core.evaluation.sampling.to_bytes`."""
NOT_RECORDED = "not recorded"
"""Stands for a field that a protocol lacks. It equals nothing, not even itself."""

_LIBRARIES = ("torch", "diffusers", "torch-fidelity", "torchmetrics", "transformers", "lpips", "numpy", "agd-pipeline")
_NOT_INSTALLED = "not installed"
_HASH_DIGITS, _SHOWN_DIGITS = 64, 12


def library_versions() -> dict[str, str]:
    """Versions of what computes images and metrics, ours included."""
    return {name: _version(name) for name in _LIBRARIES}


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return _NOT_INSTALLED


@dataclass(frozen=True)
class Difference:
    """One field in which two protocols differ."""

    field: str
    """Its name; inside a mapping with the mapping's, e.g. "reference.crop"."""
    here: Any
    there: Any

    @property
    def top_field(self) -> str:
        """The protocol's own field that it lies in, as `--allow` takes it."""
        return self.field.partition(".")[0]

    def text(self, here: str = "here", there: str = "there") -> str:
        """Both values in words, e.g. "images: 1000 here, 5000 there"."""
        return f"{self.field}: {in_words(self.here)} {here}, {in_words(self.there)} {there}"


@dataclass(frozen=True)
class Protocol:
    """Everything that shapes a number beside the method that is measured; plain data throughout."""

    base_model: str
    """Where the base model was loaded from."""
    base_digest: str
    """sha256 of network, precision, text encoders, decoder and noise schedule, see `BaseModel.pipeline_digest`."""
    guidance: Mapping[str, Any]
    """The teacher's guidance rule and negative prompt, see `Guidance.teacher_identity`."""
    extractor: str
    """Name of the feature extractor, "none" without one."""
    extractor_sha256: str | None
    """Of its weights."""
    distance: str
    """What the Frechet distance in its features is called: FID with the standard Inception v3 alone."""
    judge: str
    """Name of the network that tells what images show, "none" without one."""
    judge_sha256: str | None
    resize: str
    """How an image becomes the extractor's (and, if it is another network, the judge's) input, in words."""
    reference: Mapping[str, Any] | None
    """Real images: sha256, description, images, crop (pixels or None); None where none were used."""
    images: int
    """Sampled images behind the number."""
    seed: int
    """Of their noise."""
    scheduler: str
    steps: int
    guidance_scale: float
    """The scale that was asked for; unguided samples have it too."""
    settings: Mapping[str, Any]
    """Of the metrics, e.g. distance_subsets, kid_subset_size, neighbours."""
    quantisation: str = QUANTISATION
    prompts: str | None = None
    """sha256 of the prompts that images were sampled of; None for classes."""
    libraries: Mapping[str, str] = field(default_factory=library_versions)
    """Version by name."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, the same after writing and reading.

        Raises:
            TypeError: a setting is nothing that JSON can hold.
        """
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Protocol":
        """Read what `as_dict` has made.

        Raises:
            InputError: fields are missing or unknown.
        """
        if wrong := set(data) ^ set(FIELDS):
            raise InputError(f"not a protocol of this version: {', '.join(sorted(wrong))} missing or unknown")
        return cls(**data)

    def differences(self, other: "Protocol", allowed: Collection[str] = ()) -> list[Difference]:
        """Where two protocols differ; see the function of the same name."""
        return differences(self.as_dict(), other.as_dict(), allowed)

    def lines(self) -> dict[str, str]:
        """Readable lines by heading, for a report."""
        return {
            "base model": f"{self.base_model}, sha256 {in_words(self.base_digest)}",
            "guidance rule": in_words(self.guidance),
            "sampler": f"{self.scheduler}, {self.steps} steps, guidance scale {self.guidance_scale:g}",
            "subjects": f"prompts, sha256 {in_words(self.prompts)}" if self.prompts else "classes of the base model",
            "images": f"{self.images:,} per row, seed {self.seed}, {self.quantisation}",
            "feature extractor": _network(self.extractor, self.extractor_sha256),
            "judge": _network(self.judge, self.judge_sha256),
            "resize": self.resize,
            "real images": in_words(self.reference),
            "settings": in_words(self.settings),
            "libraries": in_words(self.libraries),
        }


FIELDS = tuple(item.name for item in fields(Protocol))
"""Names of a protocol's fields: what `--allow` takes."""


def differences(here: Mapping[str, Any], there: Mapping[str, Any], allowed: Collection[str] = ()) -> list[Difference]:
    """Where two protocols differ, strictly: a field that one of them lacks, or both, counts as different.

    Args:
        here: a protocol as plain data, see `Protocol.as_dict`.
        there: another one.
        allowed: fields whose differences are left out: the protocol's own ("libraries") or one inside them
            ("libraries.torch").
    """
    found = []
    for name in dict.fromkeys((*FIELDS, *here, *there)):
        a, b = here.get(name, NOT_RECORDED), there.get(name, NOT_RECORDED)
        found += [difference for difference in _inside(name, a, b) if not _is_equal(difference)]
    return [item for item in found if item.field not in allowed and item.top_field not in allowed]


def in_words(value: Any) -> str:
    """A field's value for a reader: hashes shortened, mappings as a list."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {in_words(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return " ".join(in_words(item) for item in value)
    if isinstance(value, str):
        is_hash = len(value) == _HASH_DIGITS and all(letter in "0123456789abcdef" for letter in value)
        return value[:_SHOWN_DIGITS] if is_hash else value
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _inside(name: str, here: Any, there: Any) -> list[Difference]:
    """Two mappings entry by entry, anything else as it is."""
    if not (isinstance(here, Mapping) and isinstance(there, Mapping)):
        return [Difference(name, here, there)]
    keys = dict.fromkeys((*here, *there))
    return [Difference(f"{name}.{key}", here.get(key, NOT_RECORDED), there.get(key, NOT_RECORDED)) for key in keys]


def _is_equal(pair: Difference) -> bool:
    return bool(pair.here == pair.there != NOT_RECORDED)


def _network(name: str, sha256: str | None) -> str:
    return name if sha256 is None else f"{name}, weights sha256 {in_words(sha256)}"
