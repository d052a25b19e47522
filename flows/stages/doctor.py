"""What a configuration will need, before anything is downloaded or computed: `agd doctor`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from agd_core.basics.errors import InputError
from agd_core.basics.progress import Announce
from agd_core.memory import (
    GIB,
    NOTE,
    MemoryEstimate,
    Sized,
    decoding_memory,
    encoding_memory,
    largest_batch,
    sampling_memory,
    training_memory,
)
from agd_core.methods import MethodConfig
from flows.config import PipelineConfig
from flows.prompts import load_prompts
from flows.real_images import count_captions
from flows.stages.sizes import Sizes

RESERVED_GIB = 1.0
"""Left free of the device's memory for what the estimate does not count."""
DEFAULT_GIB = 24.0
"""What is assumed where no CUDA device is."""
DEFAULT_MEMORY = f"{DEFAULT_GIB:g} GiB assumed, no CUDA device here"
_SMALL_PERCENT = 10.0
"""Of the base's parameters; with fewer, guidance's second row per image is what takes the memory of sampling."""


@dataclass(frozen=True)
class Workload:
    """One piece of work at a batch."""

    name: str
    setting: str | None
    """Dotted name of the setting that holds its batch; None where no setting does."""
    batch: int
    estimate: Callable[["MemorySettings", int], MemoryEstimate]
    trains: bool = False
    """Whether what helps training alone helps it."""


@dataclass(frozen=True)
class MemorySettings:
    """What may be changed so that work fits."""

    dtype: str
    activation_checkpointing: bool
    optimizer_memory: str


_REMEDIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("train.activation_checkpointing=true", {"activation_checkpointing": True}),
    ("base_model.dtype=bfloat16", {"dtype": "bfloat16"}),
    ("train.optimizer_memory=offloaded", {"optimizer_memory": "offloaded"}),
)
"""In the order in which they are tried."""


def device_memory_gib(given: float | None) -> tuple[float, str]:
    """(GiB, where the number is from): as given, else the first CUDA device's, else 24.

    Raises:
        InputError: not a positive number.
    """
    if given is not None:
        if not given > RESERVED_GIB:
            raise InputError(f"--device-memory-gib {given:g}: allowed are numbers above {RESERVED_GIB:g}")
        return given, "as given"
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / GIB, torch.cuda.get_device_name(0)
    return DEFAULT_GIB, DEFAULT_MEMORY


def examine(config: PipelineConfig, memory_gib: float, announce: Announce = lambda line: None) -> dict[str, Any]:
    """Parameters, predicted peaks, largest batches, and settings that fit.

    Args:
        config: what would be run.
        memory_gib: the device's memory; one GiB of it is left to what is not counted.
        announce: told in one line what is being estimated.

    Raises:
        InputError: the source's sizes are not known without a download.
    """
    return _Examination(config, memory_gib, announce).result()


class _Examination:
    def __init__(self, config: PipelineConfig, memory_gib: float, announce: Announce) -> None:
        self.config, self.memory_gib, self.announce = config, memory_gib, announce
        self.limit = round((memory_gib - RESERVED_GIB) * GIB)
        self.sizes = Sizes(config)
        self.model = self.sizes.model
        self.settings = MemorySettings(
            config.base_model.dtype, config.train.activation_checkpointing, config.train.optimizer_memory
        )
        self._known: dict[tuple[Any, MemorySettings, int], MemoryEstimate] = {}

    def result(self) -> dict[str, Any]:
        """Everything, as plain data."""
        self.announce(f"doctor: {self._subjects} distinct conditions")
        jobs = [self._examined(job) for job in self.jobs]
        fits = all(job["fits"] for job in jobs)
        proposal = None if fits else self._proposal()
        return {
            "source": self.config.base_model.source,
            **self.sizes.counts(),
            "device_memory_gib": round(self.memory_gib, 2),
            "reserved_gib": RESERVED_GIB,
            "jobs": jobs,
            "fits": fits,
            "proposal": proposal,
            "notes": self._notes(),
        }

    @cached_property
    def jobs(self) -> list[Workload]:
        """Everything that takes the device, in the order in which a run does it."""
        config = self.config
        jobs = [Workload("encode prompts", None, 1, self._encode)] if self.model.text_encoder_configs else []
        jobs += [Workload("collect", "collect.batch_size", config.collect.batch_size, self._collect)]
        jobs += [self._training_job(number) for number in range(len(config.methods))]
        jobs += [Workload("sample with guidance", "sample.batch_size", config.sample.batch_size, self._collect)]
        jobs += [
            Workload(f"sample {method.label}", "sample.batch_size", config.sample.batch_size, self._sampling_of(method))
            for method in config.methods
            if self.sizes.of_method(method)["percent"] > _SMALL_PERCENT
        ]
        return [*jobs, Workload("decode images", None, config.sample.batch_size, self._decode)]

    def _training_job(self, number: int) -> Workload:
        method = self.config.methods[number]
        its_own = method.train is not None and method.train.batch_size is not None
        setting = f"methods.{number}.train.batch_size" if its_own else "train.batch_size"
        batch = self.config.training_of(method).batch_size
        return Workload(f"train {method.label}", setting, batch, self._training_of(method), trains=True)

    def _peak(self, job: Workload, settings: MemorySettings, batch: int) -> MemoryEstimate:
        key = job.estimate, settings, batch
        if key not in self._known:
            self.announce(f"doctor: estimating {job.name} at batch {batch}, {settings.dtype}")
            self._known[key] = job.estimate(settings, batch)
        return self._known[key]

    def _largest(self, job: Workload, settings: MemorySettings) -> int | None:
        if job.setting is None:
            return None
        return largest_batch(lambda batch: self._peak(job, settings, batch).peak_bytes, self.limit, known=job.batch)

    def _examined(self, job: Workload) -> dict[str, Any]:
        estimate = self._peak(job, self.settings, job.batch)
        return {
            "name": job.name,
            "batch": job.batch if job.setting else None,
            **estimate.as_dict(),
            "fits": estimate.peak_bytes <= self.limit,
            "largest_batch": self._largest(job, self.settings),
        }

    def _proposal(self) -> list[str] | None:
        """`--set` values with which everything fits; None where nothing helps."""
        settings = self.settings
        lines: list[str] = []
        for line, change in _REMEDIES:
            changed = replace(settings, **change)
            if changed != settings and self._helps(line, settings):
                settings, lines = changed, [*lines, line]
        for job in self.jobs:
            if self._peak(job, settings, job.batch).peak_bytes <= self.limit:
                continue
            if not (largest := self._largest(job, settings)):
                return None
            lines.append(f"{job.setting}={largest}")
        return _smallest_of_each(lines)

    def _helps(self, line: str, settings: MemorySettings) -> bool:
        """Whether something does not fit that this remedy is for: those of training are for training alone."""
        of_training = line.startswith("train.")
        asked = [job for job in self.jobs if not of_training or job.trains]
        return any(self._peak(job, settings, job.batch).peak_bytes > self.limit for job in asked)

    def _sized(self, settings: MemorySettings) -> Sized:
        slots = 2 if self.config.base_model.learned_variance == "keep" else 1
        return Sized(self.model, self.sizes.latent_side, getattr(torch, settings.dtype), slots)

    def _encode(self, settings: MemorySettings, batch: int) -> MemoryEstimate:
        return encoding_memory(self._sized(settings))

    def _collect(self, settings: MemorySettings, batch: int) -> MemoryEstimate:
        return sampling_memory(self._sized(settings), batch, self.config.guidance)

    def _decode(self, settings: MemorySettings, batch: int) -> MemoryEstimate:
        return decoding_memory(self._sized(settings), batch)

    def _training_of(self, method: MethodConfig) -> Callable[[MemorySettings, int], MemoryEstimate]:
        return lambda settings, batch: training_memory(
            self._sized(settings),
            method,
            batch,
            activation_checkpointing=settings.activation_checkpointing,
            offloaded_optimizer=settings.optimizer_memory == "offloaded",
        )

    def _sampling_of(self, method: MethodConfig) -> Callable[[MemorySettings, int], MemoryEstimate]:
        return lambda settings, batch: sampling_memory(self._sized(settings), batch, method=method)

    @cached_property
    def _subjects(self) -> int:
        """How many distinct conditions are collected."""
        collect = self.config.collect
        if not self.model.prompt_tokens:
            return self.sizes.backbone.classes
        if collect.images is not None:
            return count_captions(collect)
        if collect.prompts is None:
            raise InputError("collect.prompts: this model takes prompts; give a file of them or builtin:everyday-500")
        return len(load_prompts(collect.prompts, collect.prompt_count, "collect.prompts"))

    def _notes(self) -> list[str]:
        published = self.model.published_parameters
        return [
            f"{NOTE}; {RESERVED_GIB:g} GiB of the device is left to these",
            *(["text encoders: weights alone, without activations"] if self.model.text_encoder_configs else []),
            *([f"the authors count {published:,} parameters: {self.model.note}"] if published else []),
        ]


def _smallest_of_each(lines: Sequence[str]) -> list[str]:
    """One line per setting; where several jobs ask for a batch of the same setting, the smallest."""
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition("=")
        if name not in found or (value.isdigit() and int(value) < int(found[name])):
            found[name] = value
    return [f"{name}={value}" for name, value in found.items()]
