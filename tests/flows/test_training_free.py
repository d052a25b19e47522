"""Rules that spare passes stand beside CFG and the adapters, from the configuration to the report."""

import json

import pytest

from agd_core.basics.errors import InputError
from agd_core.guidance import CachedGuidance, ClassifierFreeGuidance, GatedGuidance, IntervalGuidance
from flows.config import PipelineConfig
from flows.presets import load_config
from flows.run import Run
from flows.stages.distill import distill
from flows.workplace import Workplace

RULES = (
    "training_free=[{kind: cfg-gate}, {kind: guidance-cache, every: 3}, {kind: interval, low: 0.5, high: 5}, "
    "{kind: cfg-gate, rule: {kind: cfg, rescale: 0.7}}]"
)
NAMES = ["CFG gate 0.5", "CFG cache 3", "CFG in 0.5 to 5", "CFG, rescale 0.7 gate 0.5"]
KINDS = ["cfg-gate", "guidance-cache", "interval", "cfg-gate"]
FEW = ("train.steps=4", "sample.images=6", "evaluate.curve_images=2", "methods=[{kind: agd-offset, hidden_width: 8}]")
CHEAP = {
    "tiny-dit": ("collect.trajectories=8", "collect.steps=4", "collect.kept_steps=2", "sample.steps=8"),
    "tiny-sd": ("collect.trajectories=4", "collect.prompt_count=4", "collect.steps=4", "sample.steps=8"),
}
STEPS = 8


def chain(preset, output, *changes):
    config = load_config(preset, (*FEW, *CHEAP[preset], "evaluate.metrics=[paired,saturation]", *changes))
    return distill(Run(config, Workplace(output)), f"agd distill {preset}").metrics


@pytest.fixture(scope="module", params=["tiny-dit", "tiny-sd"])
def distilled(request, tmp_path_factory):
    """(folder, names of the artefacts of a run without such rules, numbers of one with them)."""
    output = tmp_path_factory.mktemp(request.param)
    chain(request.param, output)
    before = {path.parent.name for path in output.glob("artefacts/*/manifest.json")}
    return output, before, chain(request.param, output, RULES, "sample.guidance_scales=[4,5]")


def test_every_rule_has_a_row_at_every_scale_from_the_same_noise(distilled):
    rows = {(row["name"], row["teacher_scale"]): row for row in distilled[2]["rows"]}
    assert [row["method"] for (name, _), row in rows.items() if name in NAMES] == KINDS * 2
    for scale in (4.0, 5.0):
        found = [rows[name, scale] for name in NAMES]
        assert [row["nfe"] for row in found[:2]] == [STEPS + STEPS / 2, STEPS + 3]
        assert all(STEPS < row["nfe"] < 2 * STEPS for row in found)
        unguided = rows["no guidance", scale]["scores"]["paired_mse"]["value"]
        assert all(0 < row["scores"]["paired_mse"]["value"] < unguided for row in found[:3])
        assert all("contrast_shift" in row["scores"] for row in found)
        assert all(row["adapter_parameters"] == 0 and row["images_per_second"] > 0 for row in found)
        assert {row["protocol"]["seed"] for row in found} == {rows["CFG", scale]["protocol"]["seed"]}
    assert [name for name, scale in rows if scale == 4.0][-len(NAMES) :] == NAMES


def test_the_teacher_is_no_such_row(distilled):
    rows = {row["name"]: row for row in distilled[2]["rows"]}
    assert rows["CFG"]["training_free"] is rows["no guidance"]["training_free"] is rows["agd-offset"]["training_free"]
    assert rows["CFG"]["training_free"] is None
    assert rows["CFG cache 3"]["training_free"]["every"] == 3


def test_the_rule_that_is_spared_is_the_teachers(distilled):
    """tiny-dit guides three channels of four."""
    guided = 3 if distilled[0].name.startswith("tiny-dit") else None
    rows = {row["name"]: row["training_free"] for row in distilled[2]["rows"]}
    assert [rows[name]["rule"] for name in NAMES[:3]] == [{"kind": "cfg", "guided_channels": guided}] * 3
    assert rows[NAMES[3]]["rule"] == {"kind": "cfg", "guided_channels": None, "rescale": 0.7}


def test_what_a_run_without_them_made_is_reused(distilled):
    output, before, _ = distilled
    kept = {name for name in before if not name.startswith("report-")}
    assert kept <= {path.name for path in output.glob("artefacts/*")}
    manifests = [json.loads((output / "artefacts" / name / "manifest.json").read_text()) for name in kept]
    assert not any("training_free" in manifest["identity"] for manifest in manifests)


def test_the_prediction_error_shows_where_passes_are_spared(distilled):
    points = distilled[2]["prediction_error"]["points"]
    gate, cache = ([point["relative"] for point in points[name]] for name in NAMES[:2])
    assert gate == pytest.approx([0.0] * 4 + [1.0] * 4, abs=1e-4)
    assert [error < 1e-4 for error in cache] == [step % 3 == 0 for step in range(STEPS)]


def test_every_row_is_judged_against_the_teacher(distilled):
    rows = {row["name"]: row for row in distilled[2]["rows"]}
    assert rows["CFG"]["verdicts"] == {}
    assert all(rows[name]["verdicts"]["contrast_shift"] in ("same", "worse") for name in (*NAMES, "no guidance"))
    assert rows["CFG cache 3"]["verdicts"].keys() == {"contrast_shift"} | (
        rows["CFG cache 3"]["scores"].keys() & {"chroma_shift"}
    )


def test_what_was_trained_has_a_size_and_a_time_and_nothing_else_has(distilled):
    output, _, metrics = distilled
    rows = {row["name"]: row for row in metrics["rows"]}
    adapter = output / "adapters" / "agd-offset" / "adapter.safetensors"
    assert rows["agd-offset"]["adapter_bytes"] == adapter.stat().st_size
    assert rows["agd-offset"]["training_seconds"] > 0
    for name in ("CFG", "no guidance", *NAMES):
        assert rows[name]["adapter_bytes"] is rows[name]["training_seconds"] is None


def test_the_report_and_the_card_show_them(distilled):
    page = (distilled[0] / "report.html").read_text(encoding="utf-8")
    assert all(page.count(name) >= 3 for name in NAMES), "headline, all metrics, pictures to flip"
    card = (distilled[0] / "adapters" / "agd-offset" / "README.md").read_text(encoding="utf-8")
    assert all(name in card for name in NAMES[:2])
    published = json.loads((distilled[0] / "adapters" / "agd-offset" / "metrics.json").read_text())["rows"]
    assert {row["name"] for row in published} == {"no guidance", "CFG", "agd-offset", *NAMES}


def test_without_a_rule_of_its_own_it_spares_the_teachers():
    rescaled = ClassifierFreeGuidance(rescale=0.7)
    config = load_config("fashion-dit", ["guidance.rescale=0.7", "training_free=[{kind: cfg-gate, until: 0.4}]"])
    assert config.training_free == (GatedGuidance[ClassifierFreeGuidance](until=0.4, rule=rescaled),)
    changed = load_config("fashion-dit", [RULES, "training_free.1.every=4", "training_free.2.low=1"])
    assert changed.training_free[1] == CachedGuidance[ClassifierFreeGuidance](every=4, rule=ClassifierFreeGuidance())
    assert changed.training_free[2].low == 1.0


def test_a_teacher_that_is_spared_itself_is_spared_where_it_guides():
    interval = "{kind: interval, low: 0.5, high: 5.0, rule: {kind: cfg}}"
    config = load_config("fashion-dit", [f"guidance={interval}", "training_free=[{kind: cfg-gate}]"])
    assert isinstance(config.guidance, IntervalGuidance)
    assert config.training_free[0].label == "CFG gate 0.5"


def test_such_a_configuration_goes_through_json_and_back_and_others_do_not_know_of_it():
    config = load_config("fashion-dit", [RULES])
    assert PipelineConfig.model_validate_json(config.model_dump_json()) == config
    assert "training_free" not in load_config("fashion-dit").model_dump()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["training_free=[{kind: cfg-gate}, {kind: cfg-gate}]"], "unlike each other and guidance, got CFG gate 0.5"),
        (
            ["guidance={kind: cfg-gate, rule: {kind: cfg}}", "training_free=[{kind: cfg-gate}]"],
            "unlike each other and guidance, got CFG gate 0.5 twice",
        ),
        (["training_free=[{kind: cfg}]"], "training_free.0.kind: allowed are interval, cfg-gate, guidance-cache; got"),
        (["training_free=[{kind: cfg-gate, untl: 0.5}]"], "training_free.0.untl: no such setting; allowed here: "),
        (["training_free=[{kind: cfg-gate, until: 1.5}]"], "training_free.0.until: Input should be less than 1"),
        (["training_free=[cfg-gate]"], "training_free.0: "),
        (["training_free=cfg-gate"], "training_free: must be a list"),
        (["training_free=[{kind: interval, low: 2, high: 1}]"], "training_free.0: low 2 must be below high 1"),
    ],
)
def test_what_is_wrong_with_them_is_one_line(changes, message):
    with pytest.raises(InputError, match="training_free") as raised:
        load_config("fashion-dit", changes)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_rule_that_the_model_cannot_follow_is_refused_before_any_work(teacher, tmp_path):
    config = load_config("fashion-dit", ["training_free=[{kind: cfg-gate, rule: {kind: cfg, guided_channels: 5}}]"])
    with pytest.raises(InputError, match="guided_channels 5 exceeds the 4 channels"):
        Run(config, Workplace(tmp_path), teacher).check()
