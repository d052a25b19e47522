"""The dial's benchmark at toy size: what it trains, what it takes, what it writes."""

import json
import sys

import pytest

from agd_core.basics.errors import InputError
from benchmarks import lora_dial

METHODS = "methods=[{kind: lora, rank: 2, guidance_scale: 4.0}, {kind: gated-lora, rank: 2, hidden_width: 4}]"
TINY = (
    "collect.trajectories=4",
    "collect.steps=3",
    "collect.kept_steps=null",
    "train.steps=3",
    "train.batch_size=4",
    "sample.steps=2",
    METHODS,
)


def measured(output, *options):
    command = ["lora_dial", "--output", str(output), "--preset", "tiny-dit", "--images", "4", *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*command, "--set", *TINY])
        lora_dial.main()
    return json.loads((output / "lora_dial.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    output = tmp_path_factory.mktemp("dial")
    return output, measured(output)


def test_every_method_is_measured_at_the_dials_scales(trained):
    rows = trained[1]["rows"]
    scales = [(row["name"], row["weight"], row["guidance_scale"]) for row in rows]
    both = ("lora", "gated-lora")
    assert scales == [(name, weight, 1 + 3 * weight) for weight in lora_dial.WEIGHTS for name in both]
    for row in rows[:2]:
        assert row["error"]["value"] < 1e-9, "without guidance every one is the base"
        assert row["share"] is None
    for row in rows[2:]:
        assert row["error"]["low"] <= row["error"]["value"] <= row["error"]["high"]
        assert row["share"]["value"] == pytest.approx(row["error"]["value"] / row["unguided"]["value"])
        assert row["error"]["value"] != row["unguided"]["value"]


def test_it_takes_adapters_too(trained, tmp_path):
    output, found = trained
    (lora,) = (card.parent for card in output.rglob("adapter.json") if '"lora"' in card.read_text())
    again = measured(tmp_path, "--adapter", str(lora), "--weights", "1")
    assert again["rows"] == [row for row in found["rows"] if (row["name"], row["weight"]) == ("lora", 1.0)]
    assert not list(tmp_path.rglob("adapter.json")), "nothing is trained"


def test_without_a_dial_it_says_so(trained, tmp_path):
    (gated,) = (card.parent for card in trained[0].rglob("adapter.json") if '"gated-lora"' in card.read_text())
    with pytest.raises(InputError, match="none of gated-lora is a lora"):
        measured(tmp_path, "--adapter", str(gated))
