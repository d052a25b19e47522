"""What an extractor makes of a sample set, as an artefact: whatever is measured next, images are looked at once."""

import torch

from agd_core.basics.checkpoint import save_tensors
from agd_core.basics.progress import Stopped
from agd_core.evaluation.extractors import Extracted, FeatureExtractor
from flows.reference import finite_features
from flows.stages.sample import read_images, read_labels
from flows.tensors import Form, read_tensors
from flows.workplace import Workplace
from storage.artefacts import Artefact

STAGE, VERSION = "features", 1
FEATURES = "features.safetensors"
_FORMS = {"features": Form(2), "logits": Form(2, optional=True)}
_IMAGES = 1000
"""Between two looks at whether to stop."""


def features(extractor: FeatureExtractor, samples: Artefact, place: Workplace, what: str) -> Artefact:
    """Features and logits of every image of a sample set.

    Raises:
        Stopped: between batches, when asked to; run again to redo this set.
    """
    identity = {
        "version": VERSION,
        "samples": samples.digest,
        "extractor": extractor.name,
        "weights": extractor.identity(),
    }

    def work(artefact: Artefact) -> None:
        with place.on_device(f"features of {what}"):
            extracted = _extract(extractor, samples, place, what)
        tensors = {"features": extracted.features}
        if extracted.logits is not None:
            tensors["logits"] = extracted.logits
        save_tensors(tensors, artefact.path / FEATURES)

    return place.produce(STAGE, identity, work, title=f"features of {what} by {extractor.name}")


def read_features(artefact: Artefact) -> Extracted:
    """The stored features."""
    tensors = read_tensors(artefact, FEATURES, _FORMS)
    return Extracted(tensors["features"], tensors.get("logits"))


def _extract(extractor: FeatureExtractor, samples: Artefact, place: Workplace, what: str) -> Extracted:
    images, parts = len(read_labels(samples)), []
    progress = place.progress(f"{extractor.name} features of {what}")
    for first in range(0, images, _IMAGES):
        if place.should_stop():
            raise Stopped("stopped while looking at images; run the same command again")
        batch = read_images(samples, slice(first, first + _IMAGES))
        parts.append(finite_features(extractor.extract(batch), extractor, what))
        progress(first + len(batch), images)
    logits = [part.logits for part in parts if part.logits is not None]
    return Extracted(torch.cat([part.features for part in parts]), torch.cat(logits) if logits else None)
