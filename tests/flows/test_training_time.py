"""How long a training took: over its interruptions, without what a kill threw away, and no part of what came out."""

import json

import pytest
import torch

from agd_core.basics.progress import Stopped
from flows.presets import load_config
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.train import train
from flows.stages.training_time import TRAINING, TimedCheckpoint, read_training_time
from flows.workplace import Workplace
from tests.conftest import SMALL

METHOD = "methods=[{kind: agd-offset, hidden_width: 8}]"


class Times:
    """A clock that is told the time."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def parts():
    layer = torch.nn.Linear(2, 2)
    return {"adapter": layer}, torch.optim.Adam(layer.parameters())


def opened(folder, clock):
    return TimedCheckpoint(folder / "checkpoint.safetensors", "d" * 64, clock)


def test_seconds_go_on_from_the_checkpoint_and_what_was_lost_behind_it_does_not_count(tmp_path, parts):
    clock = Times()
    first = opened(tmp_path, clock)
    clock.now += 7  # before it begins
    assert first.load(*parts) == (0, [])
    clock.now += 10
    first.save(1, [0.5], *parts, None)
    assert first.seconds == 10
    clock.now += 30  # killed
    second = opened(tmp_path, clock)
    assert second.load(*parts) == (1, [0.5])
    clock.now += 5
    assert second.seconds == 15
    second.save(2, [0.5, 0.4], *parts, None)
    clock.now += 1
    assert second.seconds == 16
    second.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_begins_anew_counts_from_nothing(tmp_path, parts):
    clock = Times()
    first = opened(tmp_path, clock)
    first.load(*parts)
    clock.now += 10
    first.save(1, [0.5], *parts, None)
    first.path.unlink()
    second = opened(tmp_path, clock)
    second.load(*parts)
    clock.now += 2
    assert second.seconds == 2


@pytest.mark.parametrize("content", [None, "{}", "[3]", '{"seconds": "long"}', '{"seconds": null}'])
def test_of_a_checkpoint_that_says_nothing_of_time_nobody_knows(tmp_path, parts, content):
    first = opened(tmp_path, Times())
    first.load(*parts)
    first.save(1, [0.5], *parts, None)
    beside = tmp_path / "checkpoint_seconds.json"
    beside.unlink() if content is None else beside.write_text(content)
    second = opened(tmp_path, Times())
    assert second.load(*parts) == (1, [0.5])
    assert second.seconds is None
    second.save(2, [0.5, 0.4], *parts, None)
    third = opened(tmp_path, Times())
    third.load(*parts)
    assert third.seconds is None


def trained(teacher, place):
    config = load_config("fashion-dit", [*SMALL, METHOD])
    run = Run(config, place, teacher)
    return train(run, config.methods[0], collect(run))


def test_the_time_of_a_training_lies_beside_the_adapter_and_is_no_content(teacher, tmp_path):
    (tmp_path / "a").mkdir()
    whole = trained(teacher, Workplace(tmp_path / "a"))
    stops = iter([False] * 3 + [True] * 9)
    with pytest.raises(Stopped):
        trained(teacher, Workplace(tmp_path / "b", should_stop=lambda: next(stops)))
    resumed = trained(teacher, Workplace(tmp_path / "b"))
    times = [read_training_time(artefact) for artefact in (whole, resumed)]
    assert all(time["seconds"] > 0 and time["device"].startswith("CPU ") for time in times)
    assert whole.digest == resumed.digest
    assert whole.manifest()["measured"] == [TRAINING]
    assert sorted(path.name for path in whole.path.iterdir()) == sorted(path.name for path in resumed.path.iterdir())
    assert not list(resumed.path.glob("checkpoint*"))


def test_an_adapter_of_an_older_version_has_no_time(teacher, tmp_path):
    artefact = trained(teacher, Workplace(tmp_path))
    assert json.loads((artefact.path / TRAINING).read_text())["seconds"] > 0
    (artefact.path / TRAINING).unlink()
    assert read_training_time(artefact) is None
