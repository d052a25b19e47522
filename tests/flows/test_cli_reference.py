"""`agd reference`, through its own small command line."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from agd_core.evaluation.extractors import FashionFeatures
from flows.cli.reference import reference
from flows.reference import read_reference
from flows.workplace import pick_device
from tests.real_images import real_images
from tests.storage.sources.image_files import write_folder, write_parquet


@pytest.fixture
def run():
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command()(reference)
    return lambda *words: CliRunner().invoke(app, ["reference", *map(str, words)])


@pytest.fixture(scope="module")
def real():
    return real_images("test", 20)[0].numpy()


def test_it_writes_a_reference_that_evaluation_takes(run, real, tmp_path):
    places = write_folder(tmp_path / "a", real[:12]), write_parquet(tmp_path / "b.parquet", real[12:])
    file = tmp_path / "out" / "real.safetensors"
    result = run(*places, "--output", file, "--device", "cpu", "--json", "--set", "evaluate.reference_crop=32")
    assert result.exit_code == 0, result.output
    extractor = FashionFeatures(None, pick_device("cpu"))
    made = read_reference(file, extractor)
    answer = json.loads(result.stdout)
    assert (answer["images"], answer["identity"], answer["file"]) == (20, made.identity(), str(file))
    assert made.description.startswith("20 images, 32 x 32 resized and cropped; features of fashion-classifier ")
    again = run(*places, "--output", file, "--device", "cpu", "--set", "evaluate.reference_crop=32")
    assert again.stdout == f"{file}: {made.description}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "a.txt"], r"--output a.txt must end in .safetensors"),
        (["--output", "a.safetensors", "--set", "train.steps=1"], "settings of section evaluate alone"),
        (["--output", "a.safetensors", "--set", "evaluate.extractor=none"], "name an extractor"),
        (["--output", "a.safetensors"], "absent does not exist"),
    ],
)
def test_bad_input_is_named(words, message, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("absent", *words, "--device", "cpu")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_images_are_looked_at_before_the_device_is_waited_for(run, tmp_path, monkeypatch):
    """Somebody else may hold it for hours."""
    monkeypatch.setattr("flows.workplace.hold_device", lambda *_: pytest.fail("it waited for the device"))
    place = write_folder(tmp_path / "a", np.zeros((3, 20, 20, 1), np.uint8))
    result = run(place, "--output", tmp_path / "a.safetensors", "--device", "cpu")
    assert result.exit_code == 2
    assert "takes 32 x 32 x 1 images, not 20 x 20 x 1" in result.stderr
