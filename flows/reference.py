"""Statistics of real images in an extractor's features: shipped, read from a file, or computed once and kept.

The images pass through the extractor as one stream of batches, whatever number of sources they come from, so parts
in order give the same bits as the whole, and memory does not depend on how many there are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from agd_core.basics.errors import InputError, NumericError, naming
from agd_core.basics.home import expand
from agd_core.basics.progress import Stopped
from agd_core.basics.safe_files import printable
from agd_core.evaluation.evaluator import EvaluateConfig
from agd_core.evaluation.extractors import Extracted, FeatureExtractor
from agd_core.evaluation.metrics.reference import KEPT_FEATURES, Reference
from agd_core.evaluation.metrics.statistics import RunningStatistics
from flows.workplace import Workplace
from storage.artefacts import Artefact
from storage.sources import DigestMemory, ImageSource, batches, open_images, stamp

STAGE, VERSION = "reference", 1
REFERENCE = "reference.safetensors"
DIGESTS = "image_digests.json"
"""Remembers content digests of image sources, in the output folder."""
FINISHED = ".safetensors"
"""A source that ends so is a reference that was computed before."""
BATCH_IMAGES = 500
_POLL_IMAGES = 100
_MARK = "; features of "
_DIGITS = 16


def reference(config: EvaluateConfig, extractor: FeatureExtractor, place: Workplace) -> Reference | None:
    """The real images that samples are compared with, as this extractor sees them.

    Args:
        config: with sources of real images, or without for those that are shipped with the extractor.
        extractor: makes the features.
        place: where the artefact goes.

    Returns:
        None where there are no sources and nothing is shipped.

    Raises:
        InputError: a source cannot be used, or a finished reference was made with another extractor.
        Stopped: when asked to; run again to start this stage again.
    """
    if not config.reference:
        return extractor.shipped_reference()
    if path := _finished(config):
        return read_reference(path, extractor)
    return Reference.load(reference_artefact(config, extractor, place).path / REFERENCE)


def reference_artefact(config: EvaluateConfig, extractor: FeatureExtractor, place: Workplace) -> Artefact:
    """Compute the reference of all sources together; the artefact holds `REFERENCE`, which may be shared.

    Its key is made of the images' content, so images that were moved are found again.

    Args:
        config: with at least one source of real images.
        extractor: makes the features.
        place: where the artefact goes.

    Raises:
        InputError: a source cannot be used, or has changed while it was read.
        Stopped: when asked to.
    """
    sources = _open(config)
    with naming("evaluate.reference"):
        before = [stamp(source) for source in sources]
        content = [content_digest(source, place) for source in sources]
    identity = {
        "version": VERSION,
        "images": content,
        "crop": config.reference_crop,
        "extractor": [extractor.name, extractor.identity()],
        "kept": KEPT_FEATURES,
    }

    def work(artefact: Artefact) -> None:
        made = _computed(sources, config, extractor, place)
        with naming("evaluate.reference"):
            after = [stamp(source) for source in sources]
        if after != before:
            places = printable(", ".join(config.reference))
            raise InputError(f"real images {places} have changed while they were read")
        made.save(artefact.path / REFERENCE)

    return place.produce(STAGE, identity, work, title="statistics of the real images")


def read_reference(path: Path, extractor: FeatureExtractor) -> Reference:
    """A finished reference, proved to be made with this extractor.

    Raises:
        InputError: it cannot be read, or another extractor or other weights made it.
    """
    found = _load(path)
    made_with, wanted = found.description.partition(_MARK)[2], _signature(extractor)
    if made_with != wanted:
        raise InputError(
            f"evaluate.reference: {printable(path)} holds features of "
            f"{printable(made_with) or 'an extractor that it does not name'}, "
            f"this is {wanted}"
        )
    return found


def check_sources(config: EvaluateConfig, extractor: FeatureExtractor | None) -> None:
    """Look at all sources of real images, and at the first two images of each, before anything is computed.

    Raises:
        InputError: a source is not there, is of no known kind, holds fewer than two images or some that the extractor
            cannot take; or there is a crop and nothing to crop. Images further on may still be broken.
    """
    path = _finished(config)
    if config.reference_crop and (path or not config.reference):
        raise InputError("evaluate.reference_crop needs images in evaluate.reference to be cropped")
    if path:
        read_reference(path, extractor) if extractor else _load(path)
    for source in [] if path else _open(config):
        _try(source, config, extractor)


def count_real_images(config: EvaluateConfig) -> int:
    """How many images a run would look at; none where their statistics are shipped or finished."""
    return 0 if _finished(config) else sum(map(len, _open(config)))


def _try(source: ImageSource, config: EvaluateConfig, extractor: FeatureExtractor | None) -> None:
    first = next(_batches([source], 2, config))
    if len(first) < 2:
        raise InputError(f"evaluate.reference: {printable(source.place)} holds one image; two or more are needed")
    if extractor:
        extractor.extract(torch.from_numpy(first))


def finite_features(extracted: Extracted, extractor: FeatureExtractor, what: str) -> Extracted:
    """The same, proved to be numbers.

    Raises:
        NumericError: they are not.
    """
    if torch.isfinite(extracted.features).all():
        return extracted
    raise NumericError(f"{extractor.name} gives features of {what} that are no numbers; its weights may be damaged")


def describe(images: str, extractor: FeatureExtractor) -> str:
    """What a reference says of itself: its images, and the extractor by name and digest of its weights."""
    return f"{images}{_MARK}{_signature(extractor)}"


def even_rows(count: int, most: int) -> np.ndarray:
    """At most so many of `count` rows, evenly spread from the first on: int64, ascending."""
    kept = min(count, most)
    return np.arange(kept) * count // max(1, kept)


def _finished(config: EvaluateConfig) -> Path | None:
    """The finished reference among the sources, if there is one."""
    finished = [source for source in config.reference if source.endswith(FINISHED)]
    if finished and len(config.reference) > 1:
        raise InputError(f"evaluate.reference: {finished[0]}, a finished reference, must be the only source")
    return expand(finished[0]) if finished else None


def _load(path: Path) -> Reference:
    with naming("evaluate.reference"):
        return Reference.load(path)


def _open(config: EvaluateConfig) -> list[ImageSource]:
    with naming("evaluate.reference"):
        return [open_images(source) for source in config.reference]


def _batches(sources: Sequence[ImageSource], rows: int, config: EvaluateConfig) -> Iterator[np.ndarray]:
    with naming("evaluate.reference"):
        yield from batches(sources, rows, config.reference_crop)


def _signature(extractor: FeatureExtractor) -> str:
    return f"{extractor.name} {extractor.identity()[:_DIGITS]}"


def content_digest(source: ImageSource, place: Workplace) -> str:
    """The source's content digest, which the output folder remembers.

    Raises:
        InputError: something cannot be read.
        Stopped: while reading, when asked to.
    """
    step = _step(f"read {printable(source.place)}", len(source), place)

    def now_and_then(done: int) -> None:
        if done % _POLL_IMAGES == 0:
            step(done)

    return DigestMemory(place.output / DIGESTS).content_digest(source, now_and_then)


def _step(job: str, total: int, place: Workplace) -> Callable[[int], None]:
    """Called with the number of images done: shows it, and ends the work when asked to."""
    progress = place.progress(job)

    def step(done: int) -> None:
        progress(done, total, "images")
        if place.should_stop():
            raise Stopped(f"stopped with {done} of {total} real images read; run the same command to start them again")

    return step


def _computed(
    sources: Sequence[ImageSource],
    config: EvaluateConfig,
    extractor: FeatureExtractor,
    place: Workplace,
) -> Reference:
    total = sum(map(len, sources))
    place.announce(f"{STAGE}: {total:,} real images through {extractor.name}")
    step, wanted = _step("real images", total, place), even_rows(total, KEPT_FEATURES)
    running, kept = RunningStatistics(), []
    few = total <= BATCH_IMAGES and place.device.type == "cpu"
    with nullcontext() if few else place.on_device(f"features of {total:,} real images"):
        for batch in _batches(sources, BATCH_IMAGES, config):
            features = finite_features(extractor.extract(torch.from_numpy(batch)), extractor, "real images").features
            done = running.samples
            running.update(features)
            kept.append(features[wanted[(wanted >= done) & (wanted < done + len(batch))] - done])
            step(running.samples)
    how = "whole" if config.reference_crop is None else "resized and cropped"
    images = f"{total:,} images, {batch.shape[1]} x {batch.shape[2]} {how}"
    return Reference(running.result(), torch.cat(kept), describe(images, extractor))
