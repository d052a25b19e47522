"""A sweep: cells are cached artefacts, shared with the headline, resumed where it was stopped; what is published."""

import json
from collections import Counter

import pytest
from typer.testing import CliRunner

from agd_core.basics.errors import InputError
from agd_core.basics.progress import Stopped
from agd_core.methods.adapter_files import WEIGHTS
from flows.cli.app import app
from flows.presets import load_config
from flows.published import ADAPTERS
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.comparison import sweep_points
from flows.stages.distill import distill, sweep, train_all
from flows.stages.publish import publish_trained
from flows.stages.verify import verify
from flows.workplace import Workplace
from tests.conftest import SMALL
from tests.flows.counting_place import CountingPlace

GRID = [*SMALL, "methods=[{kind: agd-offset}]", "sample.guidance_scales=[2,3]", "sample.sweep_schedulers=[euler]"]
GRID += ["evaluate.curve_images=0"]
CELLS = 2 * 2 * 2
"""Scales, step counts (4 and 2), samplers."""


@pytest.fixture(scope="module")
def config():
    return load_config("fashion-dit", GRID)


@pytest.fixture(scope="module")
def headline(config, tmp_path_factory):
    """A distillation, so that a sweep finds a part of its cells."""
    place = CountingPlace(tmp_path_factory.mktemp("swept"))
    distill(Run(config, place), "agd distill test")
    return place


@pytest.fixture(scope="module")
def swept(config, headline):
    place = CountingPlace(headline.output)
    return place, sweep(Run(config, place), "agd sweep test").metrics


def test_the_grid_holds_every_combination_once(config):
    points = sweep_points(config)
    assert len(set(points)) == len(points) == CELLS
    assert (points[0].scale, points[0].steps, points[0].scheduler) == (2.0, 4, "ddim")


def test_a_sweep_makes_the_cells_that_are_missing_and_no_others(headline, swept):
    place, metrics = swept
    unguided, guided = 4, CELLS
    assert headline.made["samples"] == 2 + 3 * 2  # no guidance at two step counts; CFG and adapter at three points
    assert place.made["samples"] == unguided + 2 * guided - headline.made["samples"]
    assert place.made["evaluation"] == 3 * CELLS - headline.made["evaluation"]
    assert place.made["trajectories"] == place.made["adapter"] == 0
    assert len(metrics["all_rows"]) == 3 * CELLS
    assert {(row["scheduler"], row["steps"], row["teacher_scale"]) for row in metrics["all_rows"]} == {
        (scheduler, steps, scale) for scheduler in ("ddim", "euler") for steps in (4, 2) for scale in (2.0, 3.0)
    }


def test_every_row_carries_the_protocol_of_its_own_cell(swept):
    for row in swept[1]["all_rows"]:
        protocol = row["protocol"]
        assert (protocol["scheduler"], protocol["steps"]) == (row["scheduler"], row["steps"])
        assert protocol["guidance_scale"] == row["teacher_scale"]
        assert row["nfe"] == row["steps"] * (2 if row["method"] == "cfg" else 1)


def test_the_report_of_a_sweep_leaves_the_headlines_alone(headline, swept):
    output = headline.output
    assert json.loads((output / "sweep.json").read_text()) == swept[1]
    page = (output / "sweep.html").read_text()
    assert "euler" in page
    assert "agd sweep test" in page
    assert "agd distill test" in (output / "report.html").read_text()


def test_again_nothing_is_made(config, swept):
    place = CountingPlace(swept[0].output)
    assert sweep(Run(config, place), "agd sweep test").metrics == swept[1]
    assert place.made == Counter()


def test_a_sweep_that_was_stopped_goes_on_with_the_missing_cells(config, swept, tmp_path):
    stopping = CountingPlace(tmp_path, should_stop=lambda: stopping.made["samples"] == 5)
    with pytest.raises(Stopped):
        sweep(Run(config, stopping), "agd sweep test")
    going_on = CountingPlace(tmp_path)
    assert len(sweep(Run(config, going_on), "agd sweep test").metrics["all_rows"]) == 3 * CELLS
    assert stopping.made["samples"] + going_on.made["samples"] == 4 + 2 * CELLS
    assert going_on.made["trajectories"] == going_on.made["adapter"] == 0


def test_a_sampler_is_named_once():
    with pytest.raises(InputError, match="sweep_schedulers must name every sampler once"):
        load_config("fashion-dit", ["sample.sweep_schedulers=[ddim]"])


def test_an_evaluated_adapter_is_published_with_its_numbers(headline, swept):
    folder = headline.output / ADAPTERS / "agd-offset"
    rows = json.loads((folder / "metrics.json").read_text())["rows"]
    assert {row["name"] for row in rows} == {"agd-offset", "CFG", "no guidance"}
    artefact = next(headline.output.glob("artefacts/adapter-*"))
    assert (folder / WEIGHTS).read_bytes() == (artefact / WEIGHTS).read_bytes()
    card = (folder / "README.md").read_text()
    assert "builtin:fashion-dit" in card
    assert "Not evaluated yet" not in card
    assert verify(headline.output)["ok"]
    result = CliRunner().invoke(app, ["compare", str(folder), str(headline.output), "--json"])
    assert result.exit_code == 0, result.stderr


def test_a_trained_adapter_is_published_at_once_and_its_numbers_stay(config, headline, teacher, tmp_path):
    trained = train_all(Run(config, headline, teacher), collect(Run(config, headline, teacher)))
    folders = publish_trained(Run(config, Workplace(tmp_path), teacher), trained, "agd train test")
    card = folders["agd-offset"] / "README.md"
    assert "Not evaluated yet" in card.read_text()
    assert not (folders["agd-offset"] / "metrics.json").exists()
    before = (headline.output / ADAPTERS / "agd-offset" / "README.md").read_text()
    publish_trained(Run(config, Workplace(headline.output), teacher), trained, "agd train test")
    assert (headline.output / ADAPTERS / "agd-offset" / "README.md").read_text() == before
