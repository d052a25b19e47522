"""Nights of a real small adapter: what is an alarm and what is not, fresh images, and what a kill leaves."""

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import date, timedelta

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from agd_core.basics.digest import file_digest
from agd_core.basics.errors import InputError
from agd_core.methods.adapter_files import WEIGHTS
from flows.cli.app import app
from flows.presets import load_config
from flows.registry import find
from flows.run import Run
from flows.stages import nightly
from flows.stages.evaluate import LookedAt, evaluate, read_evaluation
from flows.stages.night_scores import of_night, sample_tonight, scores
from flows.stages.nightly import again, check_night, evaluate_registered
from flows.stages.sample import Cell
from flows.stages.verdicts import open_history
from flows.stages.verify import verify
from flows.workplace import Workplace
from tests.flows.nights import QUICK, add, change_weights, save_untrained, train_small, with_noise

METRICS = ["fd", "accuracy", "paired_mse", "teacher_fd", "teacher_accuracy"]
FEW_NIGHTS, MANY_NIGHTS = 4, 20
FIRST, SECOND, THIRD = "2026-01-01", "2026-01-02", "2026-01-03"


@pytest.fixture(scope="module")
def trained(teacher, tmp_path_factory):
    return train_small(teacher, tmp_path_factory.mktemp("trained"))


@pytest.fixture
def adapter(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "adapter")


def nights_of(adapter, output, further):
    """One night and then further ones of the same adapter."""
    entry, place = add(adapter, output), Workplace(output)
    days = [(date(2026, 1, 1) + timedelta(days=day)).isoformat() for day in range(1 + further)]
    return output, [evaluate_registered(entry, day, place) for day in days]


@pytest.fixture(scope="module")
def unchanged(trained, tmp_path_factory):
    return nights_of(trained, tmp_path_factory.mktemp("unchanged"), FEW_NIGHTS)


@pytest.fixture(scope="module")
def long_unchanged(trained, tmp_path_factory):
    return nights_of(trained, tmp_path_factory.mktemp("long"), MANY_NIGHTS)


def values(night):
    return {metric: verdict.measured.value for metric, verdict in night.verdicts.items()}


def recording(output):
    lines = []
    return Workplace(output, announce=lines.append), lines


def sampled(lines):
    return [line for line in lines if line.startswith("samples:") and "cached" not in line]


def assert_no_alarm(output, nights):
    first, *further = nights
    assert [list(night.verdicts) for night in nights] == [METRICS] * len(nights)
    assert {verdict.outcome for verdict in first.verdicts.values()} == {"baseline"}
    assert [night.regressed for night in further] == [[]] * len(further)
    assert all(verdict.z is not None for night in further for verdict in night.verdicts.values())
    assert open_history(output).read().table.num_rows == len(METRICS) * len(nights)


def test_an_unchanged_adapter_raises_no_alarm(unchanged):
    assert_no_alarm(*unchanged)


@pytest.mark.soak
def test_nor_does_it_in_twenty_nights(long_unchanged):
    assert_no_alarm(*long_unchanged)


def test_every_night_has_its_own_images(unchanged):
    nights = unchanged[1]
    assert len({night.records[0].seed for night in nights}) == len(nights)
    assert len({night.grid.read_bytes() for night in nights}) == len(nights)
    assert len({values(night)["paired_mse"] for night in nights}) == len(nights)


@pytest.mark.soak
def test_the_claimed_errors_are_near_the_real_spread(long_unchanged):
    for metric in METRICS:
        measured = [night.verdicts[metric].measured for night in long_unchanged[1]]
        spread = torch.tensor([night.value for night in measured]).std()
        claimed = torch.tensor([night.standard_error for night in measured]).mean()
        assert 0.4 < float(spread / claimed) < 1.6, metric


def test_what_a_night_leaves_is_small_and_whole(unchanged):
    output, nights = unchanged
    assert list(output.rglob("*.safetensors")) == []
    folder = output / "nights" / FIRST / "mine"
    assert sorted(path.name for path in folder.iterdir()) == ["artefacts", "evaluation.json", "grid.png"]
    assert Image.open(nights[0].grid).size == (2 * (10 * 33 - 1), 2 * (4 * 33 - 1))
    assert json.loads((folder / "evaluation.json").read_text()) == [vars(record) for record in nights[0].records]
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 200_000
    assert verify(output)["ok"]
    assert Image.open(nights[0].trend).format == "PNG"


def test_a_night_says_what_it_measured_and_how(unchanged, teacher, trained):
    first = unchanged[1][0].records[0]
    assert (first.name, first.night, first.metric, first.better, first.images) == ("mine", FIRST, "fd", "lower", 60)
    assert first.adapter_digest == file_digest(trained / WEIGHTS)
    assert first.base_fingerprint == teacher.fingerprint
    assert [record.nfe for record in unchanged[1][0].records] == [5, 5, 5, 10, 10]
    assert "torch" in json.loads(first.versions)
    assert first.seconds > 0
    assert len({night.records[0].protocol_digest for night in unchanged[1]}) == 1


def test_a_planted_regression_is_caught_in_the_second_night(adapter, trained, teacher, tmp_path):
    place = Workplace(tmp_path / "out")
    entry = add(adapter, place.output, [*QUICK, "sample.images=100"])
    first = evaluate_registered(entry, FIRST, place)
    change_weights(adapter, teacher, with_noise)
    second = evaluate_registered(entry, SECOND, place)
    assert {"fd", "accuracy"} <= set(second.regressed) <= {"fd", "accuracy", "paired_mse"}
    assert second.records[0].adapter_digest != first.records[0].adapter_digest
    assert second.records[0].protocol_digest == first.records[0].protocol_digest
    json.dumps(second.as_dict(), allow_nan=False)
    shutil.copy(trained / WEIGHTS, adapter)
    third = evaluate_registered(entry, THIRD, place)
    assert third.regressed == []
    assert third.verdicts["fd"].band.nights == (FIRST,)


def test_a_score_that_is_no_number_is_an_alarm(adapter, tmp_path, monkeypatch):
    def lost(*arguments):
        for row in scores(*arguments):
            yield {**row, "value": float("nan")} if row["metric"] == "paired_mse" else row

    place = Workplace(tmp_path / "out")
    entry = add(adapter, place.output)
    evaluate_registered(entry, FIRST, place)
    monkeypatch.setattr(nightly, "scores", lost)
    broken = evaluate_registered(entry, SECOND, place)
    assert "paired_mse" in broken.regressed
    assert broken.as_dict()["metrics"]["paired_mse"]["value"] is None
    json.dumps(broken.as_dict(), allow_nan=False)


def test_an_adapter_whose_weights_are_no_numbers_is_refused_in_one_line(adapter, teacher, tmp_path):
    entry = add(adapter, tmp_path / "out")
    change_weights(adapter, teacher, lambda name, weight: weight * float("nan"))
    with pytest.raises(InputError, match=r"adapter\.safetensors"):
        evaluate_registered(entry, FIRST, Workplace(tmp_path / "out"))


def test_the_scores_are_those_of_the_evaluation_stage(adapter, teacher, tmp_path):
    place = Workplace(tmp_path / "out")
    entry = add(adapter, place.output)
    run = Run(load_config(entry.preset, entry.overrides), place, teacher)
    made = sample_tonight(entry, of_night(run, 7, place.output))
    found = {score["metric"]: score["value"] for score in scores(entry, run, made, run.instruments)}
    cell = Cell(entry.guidance_scale, entry.sample.steps, "ddim")
    for prefix, samples in (("", made.student), ("teacher_", made.guided)):
        looked, guided = (
            LookedAt.by(run.instruments, each, run.sampled, place, "mine") for each in (samples, made.guided)
        )
        evaluation = evaluate(run, cell, looked, guided, "mine")
        expected = {name: score.value for name, score in read_evaluation(evaluation)["scores"].items()}
        assert found[f"{prefix}fd"] == pytest.approx(expected["fd"])
        assert found[f"{prefix}accuracy"] == pytest.approx(expected["accuracy"])
        assert found.get(f"{prefix}paired_mse", 0.0) == pytest.approx(expected["paired_mse"])


def test_rules_without_training_are_measured_beside_the_teacher(trained, unchanged, tmp_path):
    rules = "training_free=[{kind: cfg-gate}, {kind: guidance-cache, every: 5}]"
    entry = add(trained, tmp_path, [*QUICK, rules])
    night = evaluate_registered(entry, FIRST, Workplace(tmp_path))
    own = [f"{prefix}_{metric}" for prefix in ("cfg-gate-0.5", "cfg-cache-5") for metric in METRICS[:3]]
    assert list(night.verdicts) == [*METRICS, *own]
    assert [record.nfe for record in night.records[len(METRICS) :]] == [8, 8, 8, 6, 6, 6]
    assert {name: value for name, value in values(night).items() if name in METRICS} == values(unchanged[1][0])
    assert night.records[0].protocol_digest == unchanged[1][0].records[0].protocol_digest
    assert 0 < values(night)["cfg-gate-0.5_paired_mse"] < values(night)["cfg-cache-5_paired_mse"]
    assert "training_free" not in add(trained, tmp_path, name="plain").model_dump()
    assert find(tmp_path, "mine") == entry


def test_without_extractor_only_the_paired_error_is_measured(adapter, tmp_path):
    entry = add(adapter, tmp_path / "out", [*QUICK, "evaluate.extractor=none"])
    night = evaluate_registered(entry, FIRST, Workplace(tmp_path / "out"))
    assert list(night.verdicts) == ["paired_mse"]


def test_the_same_night_gives_the_same_scores_and_another_run_of_it_others(unchanged, trained, tmp_path):
    entry, place = add(trained, tmp_path), Workplace(tmp_path)
    same = evaluate_registered(entry, FIRST, place)
    assert values(same) == values(unchanged[1][0])
    assert same.grid.read_bytes() == unchanged[1][0].grid.read_bytes()
    other = evaluate_registered(entry, again(FIRST), place)
    assert other.night == "2026-01-01-again"
    assert other.records[0].seed != same.records[0].seed
    assert other.verdicts["fd"].band.nights == (FIRST,)


def test_a_night_in_the_history_is_not_measured_again(adapter, teacher, tmp_path):
    place, lines = recording(tmp_path / "out")
    entry = add(adapter, place.output)
    first = evaluate_registered(entry, FIRST, place)
    assert len(sampled(lines)) == 2
    change_weights(adapter, teacher, with_noise)
    shutil.rmtree(place.output / "nights")
    assert evaluate_registered(entry, FIRST, place) == first
    assert len(sampled(lines)) == 2
    assert len(list((place.output / "history").rglob("*.parquet"))) == 1


def test_an_adapter_that_is_replaced_in_mid_night_is_sampled_anew(adapter, teacher, tmp_path):
    place, lines = recording(tmp_path / "out")
    entry = add(adapter, place.output)
    tonight = of_night(Run(load_config(entry.preset, entry.overrides), place, teacher), 7, place.output)
    before = sample_tonight(entry, tonight)
    change_weights(adapter, teacher, with_noise)
    after = sample_tonight(entry, tonight)
    assert after.guided == before.guided
    assert after.student.digest != before.student.digest
    assert len(sampled(lines)) == 3


def test_a_torn_history_file_is_written_again_from_what_the_night_left(adapter, tmp_path):
    place, lines = recording(tmp_path / "out")
    entry = add(adapter, place.output)
    first = evaluate_registered(entry, FIRST, place)
    (path,) = (place.output / "history").rglob("*.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert evaluate_registered(entry, FIRST, place) == first
    assert path.read_bytes() == whole
    assert len(sampled(lines)) == 2


def test_no_night_is_put_before_those_that_are_there(adapter, tmp_path):
    entry = add(adapter, tmp_path)
    evaluate_registered(entry, "2026-11-20", Workplace(tmp_path))
    with pytest.raises(InputError, match="comes before 2026-11-20"):
        evaluate_registered(entry, "2026-11-19", Workplace(tmp_path))
    assert len({record.night for record in open_history(tmp_path).read("mine").records}) == 1


def test_another_protocol_starts_another_baseline(adapter, tmp_path):
    place = Workplace(tmp_path / "out")
    entry = add(adapter, place.output)
    evaluate_registered(entry, FIRST, place)
    changed = entry.model_copy(update={"sample": entry.sample.model_copy(update={"steps": 3})})
    assert {v.outcome for v in evaluate_registered(changed, SECOND, place).verdicts.values()} == {"baseline"}
    third = evaluate_registered(entry, THIRD, place)
    assert third.verdicts["fd"].band.nights == (FIRST,)


def test_another_base_model_is_refused(adapter, tmp_path):
    entry = add(adapter, tmp_path / "out").model_copy(update={"pipeline_digest": "0" * 64})
    with pytest.raises(InputError, match="is not the one that 'mine' was registered on"):
        evaluate_registered(entry, FIRST, Workplace(tmp_path / "out"))


@pytest.mark.parametrize("night", ["", "today", "2026-13-01", "../2026-01-01", "2026-01-01-twice"])
def test_a_night_is_a_date(night):
    with pytest.raises(InputError, match="is no date of the form 2026-11-21"):
        check_night(night)


def test_dates_have_one_spelling():
    assert check_night("20260101") == FIRST
    assert check_night(again(FIRST)) == again(again(FIRST)) == "2026-01-01-again"


def agd(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_one_adapter_that_is_gone_does_not_keep_the_others_waiting(adapter, teacher, tmp_path):
    output = tmp_path / "out"
    gone = save_untrained(teacher, tmp_path / "gone")
    add(gone, output, name="a-gone")
    add(adapter, output)
    shutil.rmtree(gone)
    (output / "registry" / "torn.json").write_text("{")
    result = agd("nightly", "--output", str(output), "--night", FIRST, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [night["name"] for night in found["adapters"]] == ["mine"]
    assert not found["ok"]
    assert "torn.json is no JSON" in found["failed"][0]
    assert found["failed"][1].startswith(f"a-gone: {gone} holds no readable adapter")
    only = agd("nightly", "--output", str(output), "--night", FIRST, "--name", "mine")
    assert only.exit_code == 0
    assert "mine, 2026-01-01: ok" in only.stdout


def test_a_regression_is_exit_code_1_and_the_list_remembers_it(adapter, teacher, tmp_path):
    output = tmp_path / "out"
    add(adapter, output)
    assert "mine: not evaluated yet" in agd("adapters", "--output", str(output)).stdout
    assert agd("nightly", "--output", str(output), "--night", FIRST).exit_code == 0
    change_weights(adapter, teacher, lambda name, weight: 30 * weight)
    worse = agd("nightly", "--output", str(output), "--night", SECOND)
    assert worse.exit_code == 1
    assert "mine, 2026-01-02: REGRESSED in " in worse.stdout
    listed = agd("adapters", "--output", str(output))
    assert listed.exit_code == 0
    assert "REGRESSED in " in listed.stdout
    (stands,) = json.loads(agd("adapters", "--output", str(output), "--json").stdout)["adapters"]
    assert (stands["name"], stands["nights"], stands["last_night"]) == ("mine", 2, SECOND)
    assert "regressed" in {verdict["outcome"] for verdict in stands["metrics"].values()}
    path = output / "history" / "mine" / f"{SECOND}.parquet"
    path.write_bytes(b"torn")
    listed = json.loads(agd("adapters", "--output", str(output), "--json").stdout)
    assert listed["adapters"][0]["last_night"] == FIRST
    assert str(path) in listed["problems"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no adapter is registered in "),
        (["--name", "nobody"], "no adapter 'nobody' in "),
        (["--night", "tomorrow"], "night 'tomorrow' is no date"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path):
    result = agd("nightly", "--output", str(tmp_path), *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def start(output):
    command = [sys.executable, "-m", "flows.cli", "nightly", "--output", str(output), "--night", FIRST]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for(process, condition):
    while not condition():
        assert process.poll() is None
        time.sleep(0.005)


def test_a_killed_night_goes_on_and_is_appended_once(adapter, tmp_path):
    output = tmp_path / "out"
    add(adapter, output, [*QUICK, "sample.images=240", "sample.steps=10", "sample.batch_size=20"])
    work = output / "nights" / FIRST / "mine" / "work" / "artefacts"
    killed = start(output)
    wait_for(
        killed, lambda: len(list(work.glob("samples-*/manifest.json"))) == 1 and len(list(work.glob("samples-*"))) == 2
    )
    killed.kill()
    killed.communicate()
    assert killed.returncode == -9
    (finished,) = work.glob("samples-*/manifest.json")
    assert list(output.glob("history/*/*")) == []

    both = [start(output), start(output)]
    printed = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    lines = "".join(errors for _, errors in printed).splitlines()
    assert len(sampled(lines)) == 1
    assert ", mine, " in sampled(lines)[0]
    assert [line for line in lines if "cached" in line and finished.parent.name in line]
    assert printed[0][0] == printed[1][0]
    assert [path.name for path in output.glob("history/*/*")] == [f"{FIRST}.parquet"]
    assert open_history(output).read().table.num_rows == len(METRICS)
    assert not work.exists()
