"""A method may say where its training differs from that of the others; nothing else changes by that."""

from dataclasses import dataclass

import pytest
from typer.testing import CliRunner

from agd_core.basics.errors import InputError
from agd_core.memory import GIB, MemoryEstimate
from agd_core.methods.trainer import TrainConfig
from flows.cli.app import app
from flows.presets import load_config, parse_config
from flows.run import Run
from flows.stages import doctor
from flows.stages.collect import collect
from flows.stages.distill import train_all
from flows.stages.plan import plan_costs
from flows.stages.publish import publish_trained
from flows.stages.repeatable import TrainingStep
from flows.stages.repetitions import repetitions
from flows.stages.train import LOSSES, train
from flows.workplace import Workplace
from storage.artefacts import Artefact
from tests.conftest import SMALL

ALONE = {"kind": "agd-offset", "hidden_width": 8}
OWN = {"steps": 3, "batch_size": 5, "learning_rate": 0.002, "seed": 7}


def config(*methods, changes=()):
    listed = ", ".join(str(method).replace("'", "") for method in methods)
    return load_config("fashion-dit", [*SMALL, f"methods=[{listed}]", *changes])


def settings(**said):
    found = config({**ALONE, "train": said} if said else ALONE)
    return found.train, found.training_of(found.methods[0])


@pytest.mark.parametrize("name", OWN)
def test_what_a_method_says_replaces_that_one_setting(name):
    shared, own = settings(**{name: OWN[name]})
    assert own == shared.model_copy(update={name: OWN[name]}) != shared


def test_what_it_does_not_say_is_as_for_all():
    shared, own = settings()
    assert own is shared
    assert set(OWN) <= set(TrainConfig.model_fields)


def test_it_is_no_part_of_what_the_method_is_and_is_shown_where_it_is_said_alone():
    said, unsaid = (config(method).methods[0] for method in ({**ALONE, "train": OWN}, ALONE))
    assert said.identity() == unsaid.identity()
    assert "train" not in unsaid.model_dump()
    assert said.model_dump(exclude_none=True)["train"] == OWN


@dataclass(frozen=True)
class Asking(Workplace):
    """Keeps the identity that a stage asks for."""

    def produce(self, stage, identity, *args, **settings):
        raise LookupError(identity)


def identity_of(found, teacher, place):
    with pytest.raises(LookupError) as asked:
        train(Run(found, place, teacher), found.methods[0], Artefact(place.output, "trajectories", "k"))
    return asked.value.args[0]


def test_the_key_of_an_adapter_holds_the_settings_that_it_was_trained_with(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(Artefact, "digest", "d")
    place = Asking(tmp_path)
    for_all = identity_of(
        config(ALONE, changes=[f"train.{name}={value}" for name, value in OWN.items()]), teacher, place
    )
    alone = identity_of(config({**ALONE, "train": OWN}), teacher, place)
    assert alone == for_all != identity_of(config(ALONE), teacher, place)
    assert alone["train"]["steps"] == OWN["steps"]


@pytest.fixture(scope="module")
def two():
    """A configuration of two methods, of which one is trained otherwise."""
    return config(ALONE, {**ALONE, "name": "otherwise", "train": OWN})


def test_each_is_trained_as_it_says_and_its_card_says_it(two, teacher, tmp_path):
    run = Run(two, Workplace(tmp_path), teacher)
    adapters = train_all(run, collect(run))
    steps = [len(artefact.json(LOSSES, list[float])) for _, artefact in adapters]
    assert steps == [two.train.steps, OWN["steps"]] == [6, 3]
    cards = [(folder / "README.md").read_text() for folder in publish_trained(run, adapters, "agd test").values()]
    assert ["learning rate: `0.002`" in card for card in cards] == [False, True]


def test_the_collection_is_as_large_as_the_longest_training_needs(two, teacher, tmp_path):
    longer = config(ALONE, {**ALONE, "name": "longer", "train": {"steps": 60}}, changes=["collect.trajectories=null"])
    costs = plan_costs(Run(longer, Workplace(tmp_path), teacher))
    assert costs["pairs_read_by_training"] == 60 * 8
    assert costs["trajectories"] > plan_costs(Run(two, Workplace(tmp_path), teacher))["trajectories"]


def test_what_is_repeated_is_what_each_method_does(two, teacher, tmp_path):
    parts = [part for part in repetitions(Run(two, Workplace(tmp_path), teacher)) if part.stage.startswith("train")]
    assert [(part.work, part.units) for part in parts] == [
        (TrainingStep(8, "agd-offset"), 6 * 8),
        (TrainingStep(5, "otherwise"), 3 * 5),
    ]


def test_doctor_names_the_batch_that_a_method_says_for_itself(monkeypatch):
    """With estimates of a hundredth of a GiB per row, where the real ones take minutes."""
    for name in ("training_memory", "sampling_memory", "decoding_memory"):
        monkeypatch.setattr(doctor, name, a_hundredth_per_row)
    own = {**ALONE, "name": "otherwise", "train": {"batch_size": 4096}}
    found = doctor.examine(config(ALONE, own, changes=["sample.batch_size=2", "collect.batch_size=2"]), 2)
    batches = {job["name"]: (job["batch"], job["fits"]) for job in found["jobs"] if job["name"].startswith("train")}
    assert batches == {"train agd-offset": (8, True), "train otherwise": (4096, False)}
    assert found["proposal"][-1] == "methods.1.train.batch_size=100"


def a_hundredth_per_row(sized, *given, **settings):
    batch = next(value for value in given if isinstance(value, int))
    return MemoryEstimate(batch * GIB // 100, {})


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"stepz": 3}, "methods.0.train.stepz: no such setting; allowed here: steps, batch_size, learning_rate, seed"),
        ({"steps": 0}, "methods.0.train.steps: Input should be greater than or equal to 1, got 0"),
        ({"learning_rate": 2}, "methods.0.train.learning_rate: Input should be less than or equal to 1, got 2"),
        (900, "methods.0.train: must be a section of settings, got 900"),
    ],
)
def test_a_mistake_is_one_line(said, message):
    with pytest.raises(InputError) as raised:
        parse_config({"methods": [{**ALONE, "train": said}]})
    assert str(raised.value) == message


def test_the_command_line_takes_it_as_any_setting(tmp_path):
    words = ["train", "fashion-dit", "--set", "methods.0.train.steps=0", "--output", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "methods.0.train.steps" in result.stderr
