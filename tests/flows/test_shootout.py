"""The shoot-out: one collection, every method with several seeds and budgets, one table; repeated and resumed."""

import json
from collections import Counter
from statistics import mean

import pytest
from typer.testing import CliRunner

from agd_core.basics.errors import InputError
from agd_core.basics.progress import Stopped
from agd_core.methods.adapter_files import WEIGHTS
from benchmarks.shootout_tables import markdown
from flows.cli.app import app
from flows.presets import load_config
from flows.results import read_results
from flows.run import Run
from flows.stages import contest, training_cost
from flows.stages import shootout as stage
from flows.stages.collect import collect
from flows.stages.distill import train_all
from flows.stages.shootout import shootout, training_lines, training_plan
from flows.stages.verify import verify
from flows.workplace import Workplace
from tests.flows.counting_place import CountingPlace

COMMAND = "agd shootout tiny-shootout"
TRAINED = ["agd-modulated-mlp", "gated-lora", "gated-lora-longer"]
NAMES = ["no guidance", "CFG", *TRAINED, "CFG gate 0.5"]
SCALES = [4.0, 1.0, 8.0]
SEEDS = (0, 1)


def config(*changes):
    return load_config("tiny-shootout", changes)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """(workplace, numbers) of a whole shoot-out, whose costs are measured in a moment."""
    place = CountingPlace(tmp_path_factory.mktemp("shootout"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contest, "SECONDS", 0.1)
        patch.setattr(contest, "_SECONDS_EACH", 0.1)
        patch.setattr(training_cost, "SECONDS", 0.1)
        patch.setattr(training_cost, "TURNS", 2)
        metrics = shootout(Run(config(), place), COMMAND).metrics
    return place, metrics


def test_one_collection_and_every_method_with_every_seed(ran):
    made = ran[0].made
    assert (made["trajectories"], made["adapter"]) == (1, len(TRAINED) * len(SEEDS))
    unguided = 1  # the same images at every scale
    assert made["samples"] == unguided + len(SCALES) * (2 + len(TRAINED) * len(SEEDS))
    assert (made["cost"], made["training-cost"], made["report"]) == (1, 1, 1)


def test_every_way_to_sample_has_a_row_at_every_scale(ran):
    metrics = ran[1]
    assert (
        [row["name"] for row in metrics["rows"]]
        == [contestant["name"] for contestant in metrics["contestants"]]
        == NAMES
    )
    places = [(row["teacher_scale"], row["name"]) for row in metrics["all_rows"]]
    assert places == [(scale, name) for scale in SCALES for name in NAMES]


def of(rows, name, scale):
    return [row for row in rows if (row["name"], row["teacher_scale"]) == (name, scale)]


def test_what_was_trained_stands_with_its_mean_over_the_seeds(ran):
    metrics = ran[1]
    assert len(metrics["runs"]) == len(TRAINED) * len(SEEDS) * len(SCALES)
    for name in TRAINED:
        for scale in SCALES:
            (row,) = of(metrics["all_rows"], name, scale)
            runs = [run for seed in SEEDS for run in of(metrics["runs"], f"{name}-seed-{seed}", scale)]
            for metric in ("paired_mse", "contrast_shift"):
                values = [run["scores"][metric]["value"] for run in runs]
                assert len(values) == len(SEEDS)
                assert row["scores"][metric]["value"] == pytest.approx(mean(values))
                assert row["scores"][metric]["low"] <= mean(values) <= row["scores"][metric]["high"]


def test_seeds_differ_and_steps_do(ran):
    runs = [of(ran[1]["runs"], name, 4.0)[0]["paired_mse"] for name in ("gated-lora-seed-0", "gated-lora-seed-1")]
    longer = of(ran[1]["runs"], "gated-lora-longer-seed-0", 4.0)[0]["paired_mse"]
    assert len({*runs, longer}) == 3


def test_the_paired_error_is_a_share_of_no_guidances_beyond_scale_1(ran):
    rows = ran[1]["all_rows"]
    for scale in (4.0, 8.0):
        bare = of(rows, "no guidance", scale)[0]["paired_mse"]
        for name in (*TRAINED, "CFG gate 0.5"):
            (row,) = of(rows, name, scale)
            assert row["scores"]["relative_error"]["value"] == pytest.approx(row["paired_mse"] / bare)
    assert all("relative_error" not in row["scores"] for row in rows if row["teacher_scale"] == 1.0)
    verdicts = {(one["name"], one["guidance_scale"]): one["verdict"] for one in ran[1]["against_no_guidance"]}
    assert verdicts["CFG gate 0.5", 4.0] == "better"
    assert set(verdicts) == {(name, scale) for name in (*TRAINED, "CFG gate 0.5") for scale in SCALES}


def test_entries_say_what_training_and_a_step_took(ran):
    place, metrics = ran
    contestants = {contestant["name"]: contestant for contestant in metrics["contestants"]}
    assert [contestant["budget"] for contestant in metrics["contestants"]] == [
        *["no training"] * 2,
        *["equal steps"] * 2,
        "steps of its own",
        "no training",
    ]
    short, longer = (contestants[name]["training"] for name in TRAINED[1:])
    assert (short["steps"], longer["steps"], longer["seeds"]) == (2, 3, [*SEEDS])
    assert longer["seconds_per_step"] == short["seconds_per_step"] > 0, "one method is measured once"
    assert len(longer["seconds"]) == len(SEEDS)
    assert all(seconds > 0 for seconds in longer["seconds"])
    assert longer["peak_memory_megabytes"] > 0
    files = {path.stat().st_size for path in place.output.glob(f"artefacts/adapter-*/{WEIGHTS}")}
    (row,) = of(metrics["all_rows"], "gated-lora", 4.0)
    assert row["adapter_bytes"] in files
    assert row["training_seconds"] == pytest.approx(mean(short["seconds"]))
    assert contestants["gated-lora"]["method"] == contestants["gated-lora-longer"]["method"]
    for name in NAMES:
        assert contestants[name]["sampling"]["gigaflops_per_step"] > 0, name
    assert contestants["CFG"]["training"] is None


def test_the_page_shows_all_of_it_and_the_folder_is_whole(ran):
    place, metrics = ran
    page = (place.output / "shootout.html").read_text()
    for text in (*NAMES, "What each takes", "of its own", "Student", COMMAND, "data:image/png;base64,"):
        assert text in page, text
    assert page.count("<figcaption><b>") >= len(NAMES) + 2
    assert json.loads((place.output / "shootout.json").read_text()) == metrics
    assert verify(place.output)["ok"]
    assert len(read_results(place.output / "shootout.json").rows) == len(NAMES) * len(SCALES)


def test_the_docs_tables_are_made_of_the_numbers(ran):
    lines = "\n".join(markdown(ran[1])).splitlines()
    tables = [line for line in lines if line.startswith("| ") and "---" not in line]
    assert len(tables) == 3 * (1 + len(NAMES)), "what each takes, paired errors, scores; no distance was measured"
    took = next(line for line in tables if line.startswith("| gated-lora |"))
    assert took.split(" | ")[1] == "2"
    heads = next(line for line in tables if "scale 8 (not collected)" in line)
    assert heads == "| method | scale 1 | scale 4 | scale 8 (not collected) |"
    (row,) = of(ran[1]["all_rows"], "gated-lora", 4.0)
    score = row["scores"]["relative_error"]
    assert any(f"| {score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f}) |" in line for line in tables)


def test_again_nothing_is_made_and_the_bytes_are_the_same(ran):
    before = {name: (ran[0].output / name).read_bytes() for name in ("shootout.html", "shootout.json")}
    place = CountingPlace(ran[0].output)
    shootout(Run(config(), place), COMMAND)
    assert place.made == Counter()
    assert {name: (place.output / name).read_bytes() for name in before} == before


def test_a_seed_is_the_training_that_it_is_elsewhere(ran):
    """`agd train` in the same folder publishes what the shoot-out has trained."""
    place = CountingPlace(ran[0].output)
    run = Run(config(f"train.seed={SEEDS[0]}"), place)
    train_all(run, collect(run))
    assert place.made == Counter()


def test_stopped_and_resumed_elsewhere_the_numbers_are_the_same(ran, tmp_path):
    quick = config("evaluate.measure_cost=false")
    stopping = CountingPlace(tmp_path, should_stop=lambda: stopping.made["adapter"] == 3)
    with pytest.raises(Stopped):
        shootout(Run(quick, stopping), COMMAND)
    going_on = CountingPlace(tmp_path)
    found = shootout(Run(quick, going_on), COMMAND).metrics
    assert (stopping.made["adapter"], going_on.made["adapter"]) == (3, 3)
    assert [row["scores"] for row in found["all_rows"]] == [row["scores"] for row in ran[1]["all_rows"]]
    assert found["against_no_guidance"] == ran[1]["against_no_guidance"]
    costs = {"cost", "training cost"}
    assert found["artefacts"] == {name: it for name, it in ran[1]["artefacts"].items() if name not in costs}
    assert all(contestant["sampling"] is None for contestant in found["contestants"])


def test_the_plan_says_how_many_steps_take_as_long(tmp_path, monkeypatch):
    costs = [
        {"name": name, "batch_size": 4, "seconds_per_step": seconds, "peak_memory_megabytes": 5.0}
        for name, seconds in zip(TRAINED, (0.3, 0.2, 0.2), strict=True)
    ]
    monkeypatch.setattr(stage, "measure_steps", lambda *given: costs)
    plan = training_plan(Run(config("train.steps=100"), Workplace(tmp_path)))
    assert [row["equal_time_steps"] for row in plan["methods"]] == [100, 150, 150]
    assert plan["training_hours"] == pytest.approx(2 * (100 * 0.3 + 100 * 0.2 + 3 * 0.2) / 3600)
    assert "gated-lora: 200 ms a training step of 4, 100 steps take 20 s; 150 steps take as long" in (
        "\n".join(training_lines(plan))
    )


def test_the_plan_is_measured_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "SECONDS", 0.1)
    monkeypatch.setattr(stage, "TURNS", 1)
    words = ["shootout", "tiny-shootout", "--dry-run", "--json", "--output", str(tmp_path)]
    found = json.loads(CliRunner().invoke(app, words).stdout)
    assert [row["name"] for row in found["methods"]] == TRAINED
    assert all(row["seconds_per_step"] > 0 and row["peak_memory_megabytes"] > 0 for row in found["methods"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("methods.0.train={seed: 3}", "methods.0.train.seed: a shoot-out trains with shootout.seeds; leave it out"),
        ("shootout.seeds=[1,1]", "shootout.seeds: seeds must differ from each other, got 1, 1"),
        ("shootout.seeds=[]", "shootout.seeds: "),
        ("shootout.seeds=[-1]", "shootout.seeds.0: Input should be greater than or equal to 0, got -1"),
        ("shootout.seedz=[1]", "shootout.seedz: no such setting; allowed here: seeds"),
        ("methods.1.name=gated-lora-longer", "methods need different names"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(change, message, tmp_path):
    result = CliRunner().invoke(app, ["shootout", "tiny-shootout", "--set", change, "--output", str(tmp_path)])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr
    assert not (tmp_path / "artefacts").exists()


def test_a_page_of_somebody_else_is_not_replaced(tmp_path):
    (tmp_path / "shootout.html").write_text("mine")
    with pytest.raises(InputError, match=r"shootout\.html was written by no run"):
        shootout(Run(config(), Workplace(tmp_path)), COMMAND)
