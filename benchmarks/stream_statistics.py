"""Memory and speed of the statistics of many real images.

    AGD_LEASE=off OMP_NUM_THREADS=1 python -m benchmarks.stream_statistics --folder /tmp/statistics

Writes 50,000 real Fashion-MNIST images to a Zarr array, to one tar and to four, and to Parquet, and runs the reference
stage on each with the shipped classifier, each in a process of its own. Prints how far resident memory rises above
the loaded model and how many images pass per second, then the Frechet distance for all kinds and other batch sizes.
"""

import argparse
import io
import json
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import zarr
from PIL import Image

from agd_core.builtin.fashion_mnist import load_fashion_mnist
from agd_core.evaluation.evaluator import EvaluateConfig
from agd_core.evaluation.extractors import FashionFeatures
from agd_core.evaluation.metrics.frechet import frechet_distance
from agd_core.evaluation.metrics.reference import Reference
from benchmarks.killing import answer
from benchmarks.store_against_authors import peak_megabytes
from flows import reference as stage
from flows.workplace import Workplace

CPU = torch.device("cpu")
_GROUP_ROWS = 1000


def pngs(images: np.ndarray) -> Iterator[bytes]:
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image[..., 0]).save(file, "PNG")
        yield file.getvalue()


def write_tar(path: Path, images: np.ndarray) -> None:
    with tarfile.open(path, "w") as tar:
        for number, data in enumerate(pngs(images)):
            member = tarfile.TarInfo(f"{number:06d}.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def write_sources(folder: Path, count: int) -> dict[str, list[str]]:
    images = load_fashion_mnist("train")[0][:count].permute(0, 2, 3, 1).numpy()  # [count, 32, 32, 1]
    (folder / "shards").mkdir(parents=True)
    zarr.create_array(str(folder / "images.zarr"), data=images, chunks=(1000, 32, 32, 1))
    write_tar(folder / "images.tar", images)
    for number, part in enumerate(np.array_split(images, 4)):
        write_tar(folder / "shards" / f"{number}.tar", part)
    pq.write_table(pa.table({"image": list(pngs(images))}), folder / "images.parquet", row_group_size=_GROUP_ROWS)
    shards = [str(path) for path in sorted((folder / "shards").iterdir())]
    kinds = {kind: [str(folder / f"images.{kind}")] for kind in ("zarr", "tar", "parquet")}
    return {**kinds, "4 tars merged": shards}


def run_stage(sources: list[str], output: Path, batch_images: int = stage.BATCH_IMAGES) -> Reference:
    config = EvaluateConfig(reference=tuple(sources))
    with patch.object(stage, "BATCH_IMAGES", batch_images):
        made = stage.reference_artefact(config, FashionFeatures(None, CPU), Workplace(output))
    return Reference.load(made.path / stage.REFERENCE)


def measured(sources: list[str], output: Path) -> Callable[[], dict[str, float]]:
    def work() -> dict[str, float]:
        extractor = FashionFeatures(None, CPU)
        extractor.extract(torch.zeros(stage.BATCH_IMAGES, 32, 32, 1, dtype=torch.uint8))  # what the model itself needs
        started, made = time.perf_counter(), []
        megabytes = peak_megabytes(lambda: made.append(run_stage(sources, output)))
        seconds = time.perf_counter() - started
        return {"megabytes": megabytes, "images_per_second": made[0].statistics.samples / seconds}

    return work


def distance_of(sources: list[str], output: Path, batch_images: int) -> Callable[[], float]:
    """Frechet distance to the shipped statistics of all 60,000 training images."""

    def work() -> float:
        made = run_stage(sources, output, batch_images)
        return frechet_distance(made.statistics, FashionFeatures(None, CPU).shipped_reference().statistics)

    return work


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--kinds", nargs="+", default=["zarr", "tar", "parquet", "4 tars merged"])
    parser.add_argument("--batches", nargs="*", type=int, default=[7, 64], help="other batch sizes, of the Zarr array")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.folder, ignore_errors=True)
    written = answer(lambda: write_sources(arguments.folder, arguments.images))
    sources = {kind: written[kind] for kind in arguments.kinds}
    results: dict[str, Any] = {}
    for kind, places in sources.items():
        results[kind] = answer(measured(places, arguments.folder / "out" / kind))
        print(f"{kind}: {json.dumps(results[kind])}", flush=True)
    runs = [(kind, stage.BATCH_IMAGES) for kind in sources] + [("zarr", rows) for rows in arguments.batches]
    for kind, rows in runs:
        output = arguments.folder / "out" / (kind if rows == stage.BATCH_IMAGES else f"{kind}-{rows}")
        print(
            f"{kind}, batches of {rows}: distance {answer(distance_of(written[kind], output, rows)):.15g}", flush=True
        )


if __name__ == "__main__":
    main()
