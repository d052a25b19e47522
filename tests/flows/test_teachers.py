"""Another rule as the teacher, from the configuration to the report: its name and its passes stand everywhere."""

from flows.presets import load_config
from flows.run import Run
from flows.stages.comparison import compare, headline_points
from flows.stages.distill import distill
from flows.workplace import Workplace
from tests.conftest import SMALL

INTERVAL = "guidance={kind: interval, low: 0.5, high: 20.0, rule: {kind: cfg}}"
NAME = "CFG in 0.5 to 20"


def test_guidance_in_an_interval_is_distilled_under_its_own_name(teacher, tmp_path):
    config = load_config("fashion-dit", [*SMALL, INTERVAL, "methods=[{kind: agd-offset}]"])
    made = distill(Run(config, Workplace(tmp_path), teacher), "agd distill test")
    rows = {row["name"]: row for row in made.metrics["rows"]}
    assert rows[NAME]["method"] == "interval"
    assert config.sample.steps < rows[NAME]["nfe"] < 2 * config.sample.steps
    assert rows[NAME]["paired_mse"] == 0.0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"guidance by {NAME} takes" in page
    card = (tmp_path / "adapters" / "agd-offset" / "README.md").read_text(encoding="utf-8")
    assert "interval" in card


def test_two_rules_that_give_the_same_images_stand_each_in_its_own_protocol(teacher, tmp_path):
    for high in (20.0, 20.001):
        config = load_config("fashion-dit", [*SMALL, INTERVAL, f"guidance.high={high}"])
        (_, guided, *_) = compare(Run(config, Workplace(tmp_path), teacher), [], headline_points(config)[:1])
        assert guided.row.protocol["guidance"]["high"] == high
