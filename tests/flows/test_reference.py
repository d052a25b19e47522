"""References of real images: exact whatever they come from, computed once, found again by content."""

import os
import shutil

import numpy as np
import pytest
import torch

from agd_core.basics.checkpoint import save_tensors
from agd_core.basics.errors import InputError
from agd_core.basics.progress import Stopped
from agd_core.evaluation.evaluator import EvaluateConfig
from agd_core.evaluation.extractors import FashionFeatures
from agd_core.evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from agd_core.evaluation.metrics.reference import Reference
from flows import reference as stage
from flows.reference import DIGESTS, REFERENCE, describe, even_rows, reference, reference_artefact
from flows.workplace import Workplace
from tests.real_images import real_images
from tests.storage.sources.image_files import KINDS, encoded, write_folder, write_parquet, write_tar, write_zarr

CPU = torch.device("cpu")


class Counting(FashionFeatures):
    """The classifier, counting the images that it is given; `meanwhile` is called at every batch."""

    def __init__(self, meanwhile=lambda: None):
        super().__init__(None, CPU)
        self.seen, self.meanwhile = [], meanwhile

    def extract(self, images):
        self.seen.append(len(images))
        self.meanwhile()
        return super().extract(images)


class OtherWeights(Counting):
    def identity(self):
        return "0" * 64


@pytest.fixture(scope="module")
def real():
    """120 real images, uint8 [120, 32, 32, 1]."""
    return real_images("test", 120)[0].numpy().copy()


@pytest.fixture(scope="module")
def direct(real):
    """Features of all images at once."""
    return FashionFeatures(None, CPU).extract(torch.from_numpy(real)).features


def of(output, *places, extractor=None, **settings):
    return reference(EvaluateConfig(reference=places, **settings), extractor or Counting(), Workplace(output))


def same(a, b):
    tensors = ((a.statistics.mean, a.statistics.covariance, a.features) for a in (a, b))
    return all(torch.equal(x, y) for x, y in zip(*tensors, strict=True)) and a.identity() == b.identity()


def test_without_sources_it_is_the_shipped_one(tmp_path):
    found = reference(EvaluateConfig(), FashionFeatures(None, CPU), Workplace(tmp_path))
    assert found.statistics.samples == 60_000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_gives_the_statistics_of_its_images(kind, real, direct, tmp_path):
    found, wanted = of(tmp_path / "out", KINDS[kind](tmp_path, real)), FeatureStatistics.of(direct)
    torch.testing.assert_close(found.statistics.mean, wanted.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.statistics.covariance, wanted.covariance, rtol=1e-9, atol=1e-9)
    assert found.statistics.samples == 120
    torch.testing.assert_close(found.features, direct, rtol=0, atol=0)
    assert found.description == describe("120 images, 32 x 32 whole", FashionFeatures(None, CPU))


def test_parts_in_order_are_the_whole_bit_for_bit(real, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "BATCH_IMAGES", 50)
    parts = np.array_split(real, [31, 32, 90])
    places = [
        write_folder(tmp_path / "a", parts[0]),
        write_tar(tmp_path / "b.tar", parts[1]),
        write_zarr(tmp_path / "c.zarr", parts[2]),
        write_parquet(tmp_path / "d.parquet", parts[3]),
    ]
    whole, merged = Counting(), Counting()
    one = of(tmp_path / "out", write_zarr(tmp_path / "all.zarr", real), extractor=whole)
    assert same(of(tmp_path / "out", *places, extractor=merged), one)
    assert whole.seen == merged.seen == [50, 50, 20]


def test_batch_size_changes_rounding_alone(real, direct, tmp_path, monkeypatch):
    place, distances, kept = write_zarr(tmp_path / "all.zarr", real), [], []
    shipped = FashionFeatures(None, CPU).shipped_reference().statistics
    monkeypatch.setattr(stage, "KEPT_FEATURES", 9)
    for rows in (1, 7, 64, 500):
        monkeypatch.setattr(stage, "BATCH_IMAGES", rows)
        found = of(tmp_path / f"out{rows}", place)
        distances.append(frechet_distance(found.statistics, shipped))
        kept.append(found.features)
    assert distances == pytest.approx([distances[-1]] * 4, rel=1e-6)
    for features in kept:
        torch.testing.assert_close(features, direct[even_rows(120, 9)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "most", "rows"),
    [(0, 3, []), (2, 3, [0, 1]), (3, 3, [0, 1, 2]), (10, 4, [0, 2, 5, 7]), (60_000, 2, [0, 30_000])],
)
def test_kept_rows_are_evenly_spread(count, most, rows):
    assert even_rows(count, most).tolist() == rows


def test_images_that_were_moved_are_found_again(real, tmp_path):
    first = of(tmp_path / "out", write_folder(tmp_path / "here", real))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    again = Counting()
    assert same(of(tmp_path / "out", str(tmp_path / "there"), extractor=again), first)
    assert again.seen == []


@pytest.mark.parametrize("change", ["pixel", "crop", "order", "weights", "count"])
def test_whatever_shapes_it_makes_another_one(change, real, tmp_path):
    changed = real.copy()
    changed[60, 10, 10] ^= 1
    images = {"pixel": changed, "order": real[::-1], "count": real[:-1]}.get(change, real)
    settings = {"reference_crop": 32} if change == "crop" else {}
    first = of(tmp_path / "out", write_folder(tmp_path / "a", real))
    extractor = (OtherWeights if change == "weights" else Counting)()
    other = of(tmp_path / "out", write_folder(tmp_path / "b", images), extractor=extractor, **settings)
    assert sum(extractor.seen) == len(images)
    assert (other.identity() == first.identity()) == (change in ("weights", "crop"))


def test_a_second_run_reads_no_image_again(real, tmp_path):
    jobs = []

    def progress(job):
        return lambda done, total, note="": jobs.append((job, done, total))

    config = EvaluateConfig(reference=(write_folder(tmp_path / "a", real),))
    place = Workplace(tmp_path / "out", progress=progress)
    first = reference(config, Counting(), place)
    assert jobs == [(f"read {config.reference[0]}", 100, 120), ("real images", 120, 120)]
    assert (tmp_path / "out" / DIGESTS).is_file()
    assert same(reference(config, Counting(), place), first)
    assert len(jobs) == 2


@pytest.mark.parametrize("answers", [[True], [False, True], [False, False, True]])
def test_stopped_between_batches_it_starts_again(answers, real, tmp_path, monkeypatch):
    """While the images are read for their digest, after the first batch, after the second."""
    monkeypatch.setattr(stage, "BATCH_IMAGES", 50)
    config = EvaluateConfig(reference=(write_zarr(tmp_path / "all.zarr", real),))
    left = iter(answers)
    with pytest.raises(Stopped, match=r"stopped with \d+ of 120 real images read; run the same command"):
        reference(config, Counting(), Workplace(tmp_path / "out", should_stop=lambda: next(left, False)))
    stopped = of(tmp_path / "out", *config.reference)
    assert same(stopped, of(tmp_path / "straight", *config.reference))


def test_a_finished_reference_is_a_source_of_its_own(real, tmp_path):
    config = EvaluateConfig(reference=(write_folder(tmp_path / "a", real),))
    path = reference_artefact(config, Counting(), Workplace(tmp_path / "out")).path / REFERENCE
    unused = Counting()
    assert same(of(tmp_path / "other", str(path), extractor=unused), Reference.load(path))
    assert unused.seen == []
    assert not (tmp_path / "other").exists()


def test_a_finished_reference_of_other_features_is_refused(real, tmp_path):
    config = EvaluateConfig(reference=(write_folder(tmp_path / "a", real),))
    path = reference_artefact(config, Counting(), Workplace(tmp_path / "out")).path / REFERENCE
    with pytest.raises(InputError, match=r"holds features of fashion-classifier [0-9a-f]{16}, this is .* 0{16}$"):
        of(tmp_path, str(path), extractor=OtherWeights())
    nameless = Reference.load(path)
    Reference(nameless.statistics, nameless.features, "some images").save(tmp_path / "old.safetensors")
    with pytest.raises(InputError, match="features of an extractor that it does not name, this is"):
        of(tmp_path, str(tmp_path / "old.safetensors"))
    with pytest.raises(InputError, match="a finished reference, must be the only source"):
        of(tmp_path, str(path), str(path))


def test_images_that_change_meanwhile_are_refused(real, tmp_path):
    place = write_folder(tmp_path / "a", real)
    meanwhile = Counting(lambda: (tmp_path / "a" / "000" / "0000.png").write_bytes(encoded(real[1])))
    with pytest.raises(InputError, match="have changed while they were read"):
        of(tmp_path / "out", place, extractor=meanwhile)
    assert same(of(tmp_path / "out", place), of(tmp_path / "straight", place))


def _unequal(path, real):
    write_folder(path, real[:3])
    (path / "z.png").write_bytes(encoded(real[0, :20]))
    return str(path)


BAD = {
    "absent": (lambda p, real: str(p / "absent"), "evaluate.reference: .*absent does not exist; allowed are"),
    "broken": (
        lambda p, real: write_folder(p / "a", real[:3]) + _break(p / "a" / "000" / "0001.png"),
        "0001.png is no image",
    ),
    "unequal": (lambda p, real: _unequal(p / "a", real), "z.png has 32 x 20; evaluate.reference_crop=N resizes"),
    "one image": (lambda p, real: write_folder(p / "a", real[:1]), "need two images or more"),
    "no reference": (
        lambda p, real: str(p / "a.safetensors") + _break(p / "a.safetensors"),
        "is no whole safetensors file",
    ),
    "absent reference": (lambda p, real: str(p / "b.safetensors"), "b.safetensors cannot be read: No such file"),
}


def _break(path):
    path.write_bytes(b"torn")
    return ""


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, real, tmp_path):
    make, message = BAD[case]
    with pytest.raises(InputError, match=message) as problem:
        of(tmp_path / "out", make(tmp_path, real))
    assert "\n" not in str(problem.value)
    assert not list((tmp_path / "out").rglob("manifest.json"))


def finished(path, **changes):
    """A reference as it is saved, or with other tensors."""
    features = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    statistics = FeatureStatistics.of(features)
    tensors = {"mean": statistics.mean, "covariance": statistics.covariance, "samples": torch.tensor(8)}
    tensors = {**tensors, "features": features, **changes}
    save_tensors({name: tensor for name, tensor in tensors.items() if tensor is not None}, path, "eight images")
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": torch.zeros(3, dtype=torch.float64)},
        {"covariance": torch.zeros(4, dtype=torch.float64)},
        {"features": torch.zeros(8, 3)},
        {"features": torch.full((8, 4), float("nan"))},
        {"mean": torch.zeros(4)},
        {"samples": torch.tensor(-5)},
        {"samples": torch.zeros(2)},
        {"mean": None},
    ],
)
def test_a_reference_that_does_not_hold_together_is_refused(changes, tmp_path):
    assert Reference.load(finished(tmp_path / "whole.safetensors")).statistics.samples == 8
    with pytest.raises(InputError, match=r"a.safetensors is no file with a finished reference"):
        Reference.load(finished(tmp_path / "a.safetensors", **changes))


def test_a_reference_that_is_no_regular_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"a.safetensors is no regular file but a named pipe"):
        Reference.load(tmp_path / "a.safetensors")
