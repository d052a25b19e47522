"""Rows of results as the report writes them, for tests that compare."""

import json

from agd_core.evaluation.metrics import Score
from agd_core.evaluation.protocol import Protocol
from agd_core.evaluation.rows import Row, plain

LIBRARIES = {"torch": "2.15.0", "diffusers": "0.42.1", "torch-fidelity": "0.4.0", "numpy": "2.4.6"}
PROTOCOL = Protocol(
    base_model="builtin:fashion-dit",
    base_digest="b" * 64,
    guidance={"kind": "cfg", "guided_channels": None},
    extractor="fashion-classifier",
    extractor_sha256="e" * 64,
    distance="FD",
    judge="fashion-classifier",
    judge_sha256="e" * 64,
    resize="none, 32 x 32",
    reference={"sha256": "a" * 64, "description": "60,000 images of Fashion-MNIST", "images": 60000, "crop": None},
    images=1000,
    seed=1,
    scheduler="ddim",
    steps=20,
    guidance_scale=2.0,
    settings={"distance_subsets": 100, "kid_subsets": 20, "kid_subset_size": 1000, "neighbours": 3},
    libraries=LIBRARIES,
)


def score(value, error=0.02, better="lower", warnings=()):
    margin = None if error is None else 1.96 * error
    return {
        "value": value,
        "better": better,
        "standard_error": error,
        "low": None if margin is None else value - margin,
        "high": None if margin is None else value + margin,
        "method": "made up",
        "warnings": list(warnings),
    }


def scores(fd=0.7, accuracy=0.95, paired_mse=0.03):
    return {
        "fd": score(fd),
        "accuracy": score(accuracy, 0.005, "higher"),
        "paired_mse": score(paired_mse, 0.001),
    }


def row(name="agd-offset", measured=None, scale=2.0, steps=20, method=None, **protocol):
    """A row; further arguments change its protocol, dictionaries only in the entries that they name."""
    how = PROTOCOL.as_dict()
    for key, value in {"guidance_scale": scale, "steps": steps, **protocol}.items():
        how[key] = {**how[key], **value} if isinstance(value, dict) and how[key] else value
    kind = method or {"CFG": "cfg", "no guidance": "none"}.get(name, "agd-offset")
    return {
        "name": name,
        "method": kind,
        "guidance_scale": 1.0 if kind == "none" else scale,
        "teacher_scale": scale,
        "scheduler": how["scheduler"],
        "steps": steps,
        "nfe": 2.0 * steps if kind == "cfg" else float(steps),
        "images_per_second": 1.0,
        "adapter_parameters": 0 if kind in ("none", "cfg") else 1000,
        "adapter_percent": 0.0 if kind in ("none", "cfg") else 4.7,
        "scores": scores() if measured is None else measured,
        "protocol": how,
    }


def as_row(found) -> Row:
    """What is made here, as the pipeline holds it."""
    return Row.model_validate(plain(found))


def as_score(found) -> Score | None:
    """The same of one score."""
    return found and Score.model_validate(plain(found))


def write(folder, *rows, curve=()):
    """An output folder with these rows; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(
        json.dumps(plain({"rows": rows, "curve": curve, "protocol": {}, "artefacts": {}}))
    )
    return folder
