"""What a collection would cost, and that it collects what training reads."""

import json

import pytest
from typer.testing import CliRunner

from agd_core.basics.errors import InputError
from agd_core.models.schedulers import build_scheduler, noise_level
from flows.cli.app import app
from flows.presets import load_config
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.distill import train_all
from flows.stages.plan import plan_costs, plan_lines
from flows.stages.trajectories import open_trajectories
from flows.stages.verify import verify
from flows.workplace import Workplace
from tests.conftest import SMALL


def config(*overrides):
    return load_config("fashion-dit", (*SMALL, *overrides))


def test_a_plan_in_numbers(teacher, tmp_path):
    costs = plan_costs(Run(config(), Workplace(tmp_path), teacher))
    assert (costs["trajectories"], costs["sampler_steps"], costs["stored_steps"]) == (12, 6, 3)
    assert (costs["pairs"], costs["pairs_read_by_training"]) == (36, 48)
    assert costs["network_evaluations"] == 12 * 6 * 2
    assert (costs["units"], costs["units_missing"]) == (3, 3)
    assert costs["hours"] * 3600 == pytest.approx(3 * 6 * costs["seconds_per_step"])
    assert not (tmp_path / "artefacts").exists()


def test_a_rule_that_guides_at_half_of_the_steps_needs_fewer_evaluations(teacher, tmp_path):
    timesteps = build_scheduler("ddim", teacher.scheduler_config, 6).timesteps.float()
    high = float(noise_level(teacher.scheduler_config, timesteps)[3])
    interval = config("guidance={kind: interval, high: 1, rule: {kind: cfg}}", f"guidance.high={high!r}")
    costs = plan_costs(Run(interval, Workplace(tmp_path), teacher))
    assert costs["network_evaluations"] == 12 * (3 * 1 + 3 * 2)


def test_the_bytes_are_those_of_the_shards_that_are_written(teacher, tmp_path):
    costs = plan_costs(Run(config(), Workplace(tmp_path), teacher))
    artefact = collect(Run(config(), Workplace(tmp_path), teacher))
    written = sum(path.stat().st_size for path in (artefact.path / "store" / "latents").glob("c.*"))
    assert round(costs["gigabytes"] * 1e9) == written
    assert plan_costs(Run(config(), Workplace(tmp_path), teacher))["units_missing"] == 0
    assert plan_costs(Run(config(), Workplace(tmp_path), teacher))["hours"] == 0


@pytest.mark.parametrize(
    ("reads_per_pair", "batch_size", "expected"),
    [(4, 64, 40), (1, 64, 130), (1, 1, 10), (1000, 8, 10)],
)
def test_left_out_trajectories_follow_from_training(teacher, tmp_path, reads_per_pair, batch_size, expected):
    sizes = (f"collect.reads_per_pair={reads_per_pair}", f"train.batch_size={batch_size}")
    sized = Run(config("collect.trajectories=null", *sizes), Workplace(tmp_path), teacher).collect
    assert sized.trajectories == expected  # 6 steps x batch / (3 stored steps x reads), whole rounds of 10 classes


def test_how_often_pairs_are_read_names_no_other_content():
    assert config("collect.reads_per_pair=2").collect.identity() == config().collect.identity()


def test_pairs_that_nobody_would_read_are_warned_about(teacher, tmp_path):
    lines = plan_lines(plan_costs(Run(config("train.batch_size=3"), Workplace(tmp_path), teacher)))
    assert lines[-1].startswith("warning: 50% of the pairs would never be read")
    assert "warning" not in plan_lines(plan_costs(Run(config(), Workplace(tmp_path), teacher)))[-1]


def test_the_command_prints_the_plan_and_collects_nothing(tmp_path):
    overrides = [part for setting in SMALL for part in ("--set", setting)]
    command = ["collect", "fashion-dit", *overrides, "--output", str(tmp_path), "--dry-run"]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0
    assert "12 trajectories of 6 steps, 3 stored: 36 pairs" in shown.stdout
    assert json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)["network_evaluations"] == 144
    assert list(tmp_path.iterdir()) == []


def test_a_store_at_a_url_is_collected_trained_on_and_found_again(teacher, tmp_path):
    remote = config("store.url=memory://somewhere/else")
    artefact = collect(Run(remote, Workplace(tmp_path), teacher))
    store = open_trajectories(artefact, remote.store.url)
    assert store.objects.url == f"memory://somewhere/else/{artefact.path.name}"
    assert not (artefact.path / "store").exists()
    local = collect(Run(config(), Workplace(tmp_path / "local"), teacher))
    assert store.content_digest() == open_trajectories(local).content_digest()
    assert artefact.digest == local.digest
    assert plan_costs(Run(remote, Workplace(tmp_path), teacher))["units_missing"] == 0


def test_more_than_the_disk_holds_is_refused_before_it_is_planned(teacher, tmp_path):
    with pytest.raises(InputError, match=r"needs .* MB"):
        plan_costs(Run(config("collect.trajectories=1000000000000"), Workplace(tmp_path), teacher))


def test_a_place_that_nobody_knows_is_one_line(tmp_path):
    command = ["collect", "fashion-dit", "--set", "store.url=nowhere://x", "--output", str(tmp_path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "cannot be used: Protocol not known: nowhere" in result.stderr


def test_a_folder_as_url_is_the_same_place_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in ("kept", "./kept/", f"file://{tmp_path}/kept", "~/kept"):
        assert config(f"store.url={url}").store.url == str(tmp_path / "kept")
    assert config("store.url=s3://bucket/kept").store.url == "s3://bucket/kept"


@pytest.mark.parametrize("url", ["s3://", "memory:///", "gs://"])
def test_a_url_without_a_place_is_refused(url):
    with pytest.raises(InputError, match="names no place"):
        config(f"store.url={url}")


def test_a_unit_may_be_larger_than_the_collection(teacher, tmp_path):
    small = config("collect.shard_trajectories=32", "collect.unit_trajectories=64")
    assert plan_costs(Run(small, Workplace(tmp_path), teacher))["units"] == 1


def test_damaged_trajectories_end_training_with_one_line(teacher, tmp_path):
    remote = config("store.url=memory://damaged", "train.steps=40")
    artefact = collect(Run(remote, Workplace(tmp_path), teacher))
    objects = open_trajectories(artefact, remote.store.url).objects
    for shard in range(3):
        data = bytearray(objects.read(f"latents/c.{shard}.0.0.0.0.0"))
        data[100] ^= 1
        objects.put(f"latents/c.{shard}.0.0.0.0.0", bytes(data))
    with pytest.raises(InputError, match=r"damaged trajectories.*agd verify .* --repair"):
        train_all(Run(remote, Workplace(tmp_path), teacher), artefact)
    (artefact.path / "location.json").write_text("{}")
    assert any("its store cannot be read" in problem for problem in verify(tmp_path)["problems"])
