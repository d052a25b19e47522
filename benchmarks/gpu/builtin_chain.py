"""Job: the built-in teacher's whole chain on the device, every number against the CPU's.

Both chains collect, train, sample and evaluate with the same seeds; what differs is rounding, and what training makes
of it. The pieces before them differ in rounding alone.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from agd_core.data.subjects import Subjects
from agd_core.evaluation.sampling import SampleConfig, SampleSet, sample_images
from agd_core.models.denoiser import Denoiser
from agd_core.models.model import BaseModel
from benchmarks.gpu.networks import guided
from benchmarks.gpu.place import Place
from flows.config import PipelineConfig
from flows.presets import load_config
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.comparison import Compared, compare, headline_points
from flows.stages.train import train
from flows.workplace import Workplace

PIECES, SCORES = "the same inputs", "the whole chain"
_TOY = (
    "collect.trajectories=12",
    "collect.shard_trajectories=4",
    "train.steps=6",
    "train.batch_size=8",
    "sample.images=20",
    "sample.steps=3",
    "evaluate.distance_subsets=5",
    "evaluate.kid_subsets=2",
)
_FULL = ("train.steps=200", "sample.images=1000", "collect.trajectories=200")
_IMAGES = 20


def run(place: Place) -> None:
    """The pieces, then the chains."""
    config = load_config("fashion-dit-quick", _TOY if place.toy else _FULL)
    cpu, other = torch.device("cpu"), torch.device(place.device_name)
    for row in _pieces(config.base_model.build(cpu), config.base_model.build(other)):
        place.row(PIECES, row)
    with tempfile.TemporaryDirectory() as folder:
        there = _chain(config, Path(folder) / "there", other, place)
        here = _chain(config, Path(folder) / "here", cpu, place)
    for before, after in zip(here, there, strict=True):
        for row in _scores(before, after):
            place.row(SCORES, row)


def _pieces(here: BaseModel, there: BaseModel) -> Iterator[dict[str, object]]:
    """Largest differences of images that are sampled from the same noise."""
    for name, of in (("bare", lambda model: model), ("CFG", guided)):
        first, second = (_sampled(of(model), model) for model in (here, there))
        levels = (first.images.int() - second.images.int()).abs().max()
        yield {
            "what": f"{name}, {_IMAGES} images",
            "latents, largest difference": float((first.latents - second.latents).abs().max()),
            "latents, largest value": float(first.latents.abs().max()),
            "images, levels of 255": int(levels),
        }


def _sampled(denoiser: Denoiser, model: BaseModel) -> SampleSet:
    config = SampleConfig(images=_IMAGES, steps=4, guidance_scales=(2.0,))
    return sample_images(denoiser, Subjects.of(model, (), "sample.prompts"), config)


def _chain(config: PipelineConfig, folder: Path, device: torch.device, place: Place) -> list[Compared]:
    """All stages; the seconds that they took are a fact."""
    started, run = time.monotonic(), Run(config, Workplace(folder, device))
    trajectories = collect(run.check())
    adapters = [(method, train(run, method, trajectories)) for method in config.methods]
    compared = compare(run, adapters, headline_points(config))
    place.fact(**{f"chain_seconds_{folder.name}_{device.type}": round(time.monotonic() - started, 1)})
    return compared


def _scores(here: Compared, there: Compared) -> Iterator[dict[str, object]]:
    """One line per number of a row."""
    numbers, others = (_numbers(each) for each in (here, there))
    for name, value in numbers.items():
        difference = others[name] - value
        yield {"method": here.row.name, "number": name, "CPU": value, "device": others[name], "difference": difference}


def _numbers(compared: Compared) -> Mapping[str, float]:
    """Network evaluations per image, and every score that is a number."""
    scores = {name: score.value for name, score in compared.row.scores.items() if score.value is not None}
    return {"NFE": compared.row.nfe, **scores}
