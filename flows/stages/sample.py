"""Stage 3: one sample set per cell (denoiser, guidance scale, steps); every cell is its own artefact."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Int, UInt8
from pydantic import Field
from torch import Tensor
from typing_extensions import TypedDict

from agd_core.basics.atomic import write_json
from agd_core.basics.checkpoint import save_tensors
from agd_core.evaluation.bench import OpenDenoiser
from agd_core.evaluation.protocol import library_versions
from agd_core.evaluation.sampling import SampleSet, sample_images
from agd_core.guidance import Guidance
from agd_core.methods.adapter_files import open_adapter
from agd_core.models.schedulers import SchedulerName
from flows.run import Run
from flows.tensors import Form, read_tensors
from flows.workplace import Workplace, describe_device
from storage.artefacts import Artefact

STAGE, VERSION = "samples", 3
SAMPLES, COST = "samples.safetensors", "cost.json"
_FORMS = {
    "images": Form(4, (torch.uint8,)),
    "latents": Form(4),
    "labels": Form(1, (torch.int64, torch.int32)),
    "nfe": Form(0),
}


@dataclass(frozen=True)
class Cell:
    """One sample set to make."""

    guidance_scale: float
    steps: int
    scheduler: SchedulerName
    guidance: Guidance | None = None
    """The rule, for the guided teacher and what spares its passes."""
    adapter: Artefact | None = None
    """Set for a student; with neither it is the bare base model."""

    @property
    def used_scale(self) -> float:
        """The guidance scale that shapes the images; the bare model knows none."""
        return self.guidance_scale if self.guidance or self.adapter else 1.0

    @property
    def point(self) -> str:
        """Where the cell lies, in words."""
        return f"scale {self.guidance_scale:g}, {self.steps} {self.scheduler} steps"


def opener(run: Run, guidance: Guidance | None, adapter: Artefact | None) -> OpenDenoiser:
    """Opens a student, the model under a rule or the bare model again and again; an adapter is read once, now."""
    if adapter:
        trained = open_adapter(run.model, adapter.path)
        return lambda: trained.installed(run.model)
    denoiser = run.guided(guidance) if guidance else run.model
    return lambda: nullcontext(denoiser)


class SamplingCost(TypedDict):
    """What sampling a set took, and where."""

    denoising_seconds: Annotated[float, Field(gt=0)]
    images: int
    device: str
    libraries: dict[str, str]


def sample(run: Run, cell: Cell, label: str) -> Artefact:
    """Sample the images of one cell.

    Raises:
        Stopped: between batches, when asked to; run again to redo this cell.
    """
    place = run.place
    alone = run.config.sample.at(cell.used_scale, cell.steps, cell.scheduler)
    identity = {
        "version": VERSION,
        "base_model": run.model.pipeline_digest(),
        "prompts": run.sampled.identity(),
        "sample": alone.identity(),
        "guidance": cell.guidance.teacher_identity(run.config.collect.negative_prompt) if cell.guidance else None,
        "adapter": cell.adapter.digest if cell.adapter else None,
    }
    what = f"{label}, {cell.point}"

    def work(artefact: Artefact) -> None:
        place.announce(f"{STAGE}: {alone.images} images, {what}")
        progress = place.progress(f"sample {label}")
        opened = opener(run, cell.guidance, cell.adapter)
        with place.on_device(f"sample {label}"), opened() as denoiser:
            samples = sample_images(denoiser, run.sampled, alone, progress, place.should_stop)
        _write(samples, place, artefact)

    return place.produce(STAGE, identity, work, measured=[COST], title=f"sample {what}")


def _write(samples: SampleSet, place: Workplace, artefact: Artefact) -> None:
    tensors = {"images": samples.images, "latents": samples.latents, "labels": samples.labels}
    tensors["nfe"] = torch.tensor(samples.nfe, dtype=torch.float64)
    save_tensors(tensors, artefact.path / SAMPLES)
    cost = {
        "denoising_seconds": samples.denoising_seconds,
        "images": len(samples.images),
        "device": describe_device(place.device),
        "libraries": library_versions(),
    }
    write_json(cost, artefact.path / COST)


def read_samples(artefact: Artefact) -> SampleSet:
    """The stored sample set, without its timing."""
    tensors = read_tensors(artefact, SAMPLES, _FORMS)
    return SampleSet(tensors["images"], tensors["latents"], tensors["labels"], float(tensors["nfe"]), 0.0)


def read_sampling_cost(artefact: Artefact) -> SamplingCost:
    """What it took to sample a stored set."""
    return artefact.json(COST, SamplingCost)


def read_images(artefact: Artefact, rows: slice = slice(None)) -> UInt8[Tensor, "images height width channels"]:
    """Some images of a stored sample set; no others are read."""
    return _read_one(artefact, "images", rows)


def read_labels(artefact: Artefact) -> Int[Tensor, " images"]:
    """Number of the subject of every image of a stored sample set."""
    return _read_one(artefact, "labels")


def read_nfe(artefact: Artefact) -> float:
    """Network evaluations per image of a stored sample set."""
    return float(_read_one(artefact, "nfe"))


def _read_one(artefact: Artefact, name: str, rows: slice = slice(None)) -> Tensor:
    return read_tensors(artefact, SAMPLES, {name: _FORMS[name]}, rows)[name]
