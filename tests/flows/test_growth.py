"""A collection that grows or shrinks takes over the units that it shares with others; evaluations are counted."""

import json
import shutil

import pytest

from agd_core.basics.progress import Stopped
from flows.presets import load_config
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.plan import plan_costs, plan_lines
from flows.stages.trajectories import open_trajectories
from flows.stages.verify import verify
from flows.workplace import Workplace
from storage.artefacts import ARTEFACTS
from storage.trajectories.verification import store_problems

SETTINGS = ("collect.steps=4", "collect.kept_steps=2", "collect.shard_trajectories=2", "collect.batch_size=2")
UNIT_EVALUATIONS = 2 * 4 * 2
"""Of a full unit: trajectories, sampler steps, and two predictions for each."""


def config(trajectories, *overrides):
    return load_config("fashion-dit", (*SETTINGS, f"collect.trajectories={trajectories}", *overrides))


class Bench:
    """An output folder to collect into, and what that took."""

    def __init__(self, output, teacher):
        self.output, self.teacher, self.lines = output, teacher, []

    def collect(self, trajectories, *overrides, **place):
        """The artefact's store, and the network evaluations that it took, in units of work."""
        before = self.teacher.network_evaluations
        workplace = Workplace(self.output, announce=self.lines.append, **place)
        settings = config(trajectories, *overrides)
        artefact = collect(Run(settings, workplace, self.teacher))
        taken = (self.teacher.network_evaluations - before) / UNIT_EVALUATIONS
        return open_trajectories(artefact, settings.store.url), taken


@pytest.fixture
def bench(tmp_path, teacher):
    return Bench(tmp_path / "grown", teacher)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, teacher):
    """Content digests of collections that nothing was taken over for, by their number of trajectories."""
    stores = {n: Bench(tmp_path_factory.mktemp(str(n)), teacher).collect(n)[0] for n in (16, 24)}
    return {n: store.content_digest() for n, store in stores.items()}


def test_eight_units_grow_to_twelve_by_collecting_four(bench, fresh):
    assert bench.collect(16)[1] == 8
    store, computed = bench.collect(24)
    assert computed == 4
    assert store.content_digest() == fresh[24]
    assert bench.lines[-2].startswith(f"trajectories: 8 of 12 units taken over from {bench.output}")
    assert bench.lines[-1] == "trajectories: collecting 24 trajectories, 8 of 12 units there already"
    assert len(list((bench.output / ARTEFACTS).glob("trajectories-*"))) == 2
    assert verify(bench.output)["ok"]


def test_twelve_units_shrink_to_eight_without_any_work_on_the_device(bench, fresh):
    class NoDevice(Workplace):
        def on_device(self, what):
            raise AssertionError(what)

    bench.collect(24)
    before = bench.teacher.network_evaluations
    artefact = collect(Run(config(16), NoDevice(bench.output), bench.teacher))
    assert bench.teacher.network_evaluations == before
    assert open_trajectories(artefact).content_digest() == fresh[16]
    assert verify(bench.output)["ok"]


def test_what_was_taken_over_outlives_where_it_came_from(bench, fresh):
    first = bench.collect(16)[0]
    store, _ = bench.collect(24)
    shutil.rmtree(first.objects.root.parent)
    assert store.missing_units() == []
    assert store.content_digest() == fresh[24]
    assert store_problems(store.objects) == []


def test_a_torn_shard_next_door_is_collected_anew(bench, fresh):
    path = bench.collect(16)[0].objects.root / "latents" / "c.5.0.0.0.0.0"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    store, computed = bench.collect(24)
    assert computed == 5
    assert store.content_digest() == fresh[24]
    assert store_problems(store.objects) == []
    assert path.read_bytes() == data


def test_a_short_last_unit_is_not_shared(bench, fresh):
    assert bench.collect(15)[1] == 7.5
    store, computed = bench.collect(24)
    assert computed == 12 - 7
    assert store.content_digest() == fresh[24]


@pytest.mark.parametrize(
    "other", ["collect.seed=1", "collect.guidance_scale_max=3", "collect.dtype=float32", "collect.unit_trajectories=4"]
)
def test_unlike_settings_share_nothing(bench, other):
    bench.collect(4, other)
    assert bench.collect(8)[1] == 4


def test_an_unfinished_collection_next_door_gives_what_it_has(bench, fresh):
    polls = iter([False] * 12 + [True])
    with pytest.raises(Stopped, match="2 of 8 units"):
        bench.collect(16, should_stop=lambda: next(polls))
    store, computed = bench.collect(24)
    assert computed == 12 - 2
    assert store.content_digest() == fresh[24]


DAMAGE = {
    "no manifest": lambda artefact: (artefact / "manifest.json").unlink(),
    "no plan": lambda artefact: (artefact / "store" / "plan.parquet").unlink(),
    "torn plan": lambda artefact: (artefact / "store" / "plan.parquet").write_bytes(b"PAR1"),
    "torn note of its place": lambda artefact: (artefact / "location.json").write_text("{"),
    "no note of its place": lambda artefact: (artefact / "location.json").unlink(),
    "no conditions": lambda artefact: shutil.rmtree(artefact / "store" / "cond"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_collection_next_door_gives_what_is_whole(bench, damage):
    DAMAGE[damage](bench.collect(4)[0].objects.root.parent)
    assert bench.collect(8)[1] == 2


@pytest.mark.parametrize(
    "note", [{"url": "nowhere://x"}, {"url": "memory://empty/place"}, {"url": "file://proc/self/mem"}, {}, []]
)
def test_a_collection_that_cannot_be_reached_is_passed_by(bench, note):
    artefact = bench.collect(4)[0].objects.root.parent
    (artefact / "location.json").write_text(json.dumps(note))
    shutil.rmtree(artefact / "store")
    assert bench.collect(8)[1] == 4


@pytest.mark.parametrize("first", [None, "memory://grown/first"])
@pytest.mark.parametrize("second", [None, "memory://grown/first", "memory://grown/second"])
def test_units_are_taken_from_and_to_a_url(bench, fresh, first, second):
    urls = [f"store.url={url}/{bench.output}" if url else "store.url=null" for url in (first, second)]
    bench.collect(16, urls[0])
    store, computed = bench.collect(24, urls[1])
    named = first in (None, second)  # a place that this run does not name is not asked
    assert computed == (4 if named else 12)
    assert store.content_digest() == fresh[24]
    assert store.objects.url.startswith(second or str(bench.output))


def test_stopped_while_taking_over_it_goes_on_from_there(bench, fresh):
    bench.collect(16)
    polls = iter([False] * 3 + [True])
    with pytest.raises(Stopped, match="stopped with 3 of 12 units committed"):
        bench.collect(24, should_stop=lambda: next(polls))
    store, computed = bench.collect(24)
    assert computed == 4
    assert "5 of 12 units taken over" in bench.lines[-2]
    assert store.content_digest() == fresh[24]


def test_a_plan_counts_what_will_be_taken_over_and_takes_nothing(bench):
    bench.collect(16)
    before = sorted(bench.output.rglob("*"))
    costs = plan_costs(Run(config(24), Workplace(bench.output), bench.teacher))
    assert (costs["units"], costs["units_missing"], costs["units_elsewhere"]) == (12, 4, 8)
    assert costs["hours"] * 3600 == pytest.approx(4 * 4 * costs["seconds_per_step"])
    assert "4 units still missing, 8 more are taken over, about" in "\n".join(plan_lines(costs))
    assert sorted(bench.output.rglob("*")) == before
