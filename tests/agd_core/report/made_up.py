"""A page of made-up numbers and real Fashion-MNIST images, large enough to look like a real report."""

import io
import math

from PIL import Image

from agd_core.builtin.fashion_mnist import CLASS_NAMES
from agd_core.evaluation.rows import Row
from agd_core.report.costs import Costs
from agd_core.report.page import Page, Picture
from agd_core.report.plots import (
    ErrorCurve,
    distance_over_nfe_plot,
    error_curve_plot,
    loss_plot,
    over_scale_plot,
    precision_recall_plot,
)

METHODS = {"no guidance": "none", "CFG": "cfg", "agd-modulated-mlp": "agd-modulated-mlp", "agd-offset": "agd-offset"}
FEW = "1000 images for 2048 features: the covariance is singular and the distance biased upwards."


def score(value, better="lower", width=None, warnings=()):
    ends = {} if width is None else {"low": value - width, "high": value + width}
    return {"value": value, "better": better, "low": None, "high": None, "warnings": list(warnings)} | ends


NUMBERS = {"fd": 12.345, "fd_low": 11.0, "fd_high": 13.5, "accuracy": 0.875, "paired_mse": 0.0123}


def row(name, **changes):
    """A row of the results table; `scores` follow from `NUMBERS` where they are not given."""
    values = {"name": name, "method": METHODS.get(name, name), "guidance_scale": 3.0, "steps": 20, "teacher_scale": 3.0}
    values |= {"nfe": 20.0, "images_per_second": 41.26, "adapter_parameters": 12345, "adapter_percent": 2.04}
    values |= {"scheduler": "ddim", "protocol": {}, "scores": scores_of(NUMBERS | changes)} | changes
    return Row.model_validate({key: value for key, value in values.items() if key not in NUMBERS})


def scores_of(numbers):
    better = {"fd": "lower", "accuracy": "higher", "paired_mse": "lower"}
    scores = {key: score(numbers[key], way) for key, way in better.items() if numbers[key] is not None}
    if "fd" in scores:
        scores["fd"] |= {"low": numbers["fd_low"], "high": numbers["fd_high"]}
    return scores


def full_row(name, scale, steps=20, warnings=()):
    """A row with every metric, of numbers that only look like measured ones."""
    place = list(METHODS).index(name)
    method, guided, error = METHODS[name], 0.3 * (scale - 1), (1.0, 0.0, 0.2, 0.35)[place]
    fd = 0.6 + 0.12 * (scale - 2) ** 2 * (method != "none") + 0.1 * error + 3 / steps
    scores = {
        "fd": score(fd, width=0.08, warnings=warnings),
        "kid": score(fd / 900, width=0.0001),
        "inception_score": score(8.4 + 0.1 * scale, "higher", 0.1),
        "precision": score(0.72 + guided / 5 - error / 20, "higher"),
        "recall": score(0.71 - guided / 4 + error / 30, "higher"),
        "accuracy": score(0.98 - 0.1 * error, "higher", 0.009),
        "paired_mse": score(0.09 * error * guided, width=0.001),
    }
    if method != "cfg":
        scores |= {"psnr": score(24 - 5 * error, "higher", 0.2), "ssim": score(0.93 - 0.2 * error, "higher", 0.01)}
        scores |= {"lpips": score(0.1 + 0.2 * error), "feature_cosine": score(0.97 - 0.1 * error, "higher")}
    return row(
        name,
        guidance_scale=1.0 if method == "none" else scale,
        teacher_scale=scale,
        steps=steps,
        nfe=steps * (2.0 if method == "cfg" else 1.0),
        images_per_second=160.0 / (2 if method == "cfg" else 1),
        adapter_parameters=100_152 if method.startswith("agd") else 0,
        adapter_percent=4.7 if method.startswith("agd") else 0.0,
        scores=scores,
    )


def png(colour="red"):
    """The smallest picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 6), colour).save(buffer, "PNG")
    return buffer.getvalue()


def costs():
    """What every method costs."""
    numbers = {"no guidance": (1, 3.1, 40.0), "CFG": (2, 5.9, 81.0), "agd-modulated-mlp": (1, 3.9, 43.2)}
    methods = [
        {
            "name": name,
            "network_evaluations_per_step": evaluations,
            "milliseconds_per_step_batch_1": alone,
            "saturation_batch": 64,
            "milliseconds_per_step": together,
            "evaluated_images_per_second": 64_000 / together,
            "overhead_percent": 100 * (together / 40 - 1),
            "gigaflops_per_step": 0.134 * evaluations,
            "peak_memory_megabytes": None,
        }
        for name, (evaluations, alone, together) in numbers.items()
    ]
    return Costs("AMD EPYC, CPU", 2, "float32", 20, methods)


def plots(rows):
    """Every kind of plot there is."""
    headline = [item for item in rows if item.steps == 20]
    losses = {
        "agd-modulated-mlp": [1 / (1 + i / 40) for i in range(700)],
        "agd-offset": [1.5 / (1 + i / 60) for i in range(700)],
    }
    times = [981.0 - 49 * i for i in range(20)]
    curves = {
        name: ErrorCurve(kind, times, [height * (1 + math.sin(i / 4)) for i in range(20)], [height / 12] * 20)
        for name, kind, height in (("agd-modulated-mlp", "agd-modulated-mlp", 0.1), ("agd-offset", "agd-offset", 0.22))
    }
    at_headline = [item for item in rows if item.teacher_scale == 2.0]
    return [
        Picture("Training loss", "A moving average over at most 50 steps.", loss_plot(losses)),
        Picture("FD over scale", "Bars are 95 % intervals.", over_scale_plot(headline, "fd", "Fréchet distance")),
        Picture("FD over NFE", "Quality for cost, at scale 2.", distance_over_nfe_plot(at_headline)),
        Picture("Precision and recall", "The number is the guidance scale.", precision_recall_plot(headline)),
        Picture("Accuracy over scale", "Of the judge.", over_scale_plot(headline, "accuracy", "class accuracy")),
        Picture(
            "Paired error over scale",
            "At equal noise.",
            over_scale_plot(headline, "paired_mse", "paired MSE"),
        ),
        Picture("Prediction error", "Per timestep.", error_curve_plot(curves)),
    ]


def page(grids=None):
    """A whole report: two scales, further step counts, every section."""
    points = [(2.0, 20), (1.5, 20), (3.0, 20), (4.0, 20), (2.0, 10), (2.0, 40)]
    rows = [full_row(name, scale, steps, [FEW]) for scale, steps in points for name in METHODS]
    labels = CLASS_NAMES * 4
    colours = dict(zip(METHODS, ("gray", "black", "blue", "orange"), strict=True))
    pngs = grids or {name: png(colour) for name, colour in colours.items()}
    return Page(
        title="Adapter Guidance Distillation of fashion-dit",
        summary="agd-modulated-mlp gives images as good as classifier-free guidance (FD 0.77 against 0.75, intervals "
        "overlapping) at half the network evaluations, 20 instead of 40 per image, with 4.7 % more parameters.",
        rows=rows[:4],
        grids=[
            Picture(name, f"scale 2, {40 if name == 'CFG' else 20} NFE", content, labels, 10, 32)
            for name, content in pngs.items()
        ],
        plots=plots(rows),
        protocol={"feature extractor": "fashion-classifier, sha256 " + "9f" * 32, "images": "1,000 per row, seed 1"},
        artefacts={
            "trajectories": "trajectories-0a1b sha256 " + "ab" * 32,
            "agd-modulated-mlp": "adapter-77 sha256 " + "cd" * 32,
        },
        command="agd distill fashion-dit --set sample.images=1000 --output outputs/demo",
        all_rows=rows,
        costs=costs(),
        notes=["Made-up numbers: this page shows what a report looks like, nothing on it was measured."],
    )
