"""Collectors that share one store: a short round of `benchmarks/join_collect.py`, and what one does about another."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from agd_core.data.states import GuidedStates
from agd_core.data.trajectory import collect_unit
from agd_core.guidance import GuidedDenoiser
from flows.presets import load_config
from flows.run import Run
from flows.stages.collect import collect, collect_missing, collection_plan
from flows.workplace import Workplace
from storage.objects import MemoryObjects
from storage.trajectories.zarr_store import ZarrTrajectoryStore

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "join_collect.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SETTINGS = ("collect.trajectories=8", "collect.steps=4", "collect.kept_steps=2", "collect.shard_trajectories=2")
UNIT_EVALUATIONS = 2 * 4 * 2


def test_two_collectors_of_one_store_share_its_units_out(tmp_path):
    command = [sys.executable, SCRIPT, "--rounds", "1", "--folder", tmp_path, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["units"] == 12
    assert 12 <= result["units computed, fewest"] <= result["units computed, most"] <= 13
    assert result["rounds with another content than one collector's"] == 0


class Shared:
    """A store of four units that somebody else works on too."""

    def __init__(self, teacher):
        self.config, self.base_model = load_config("fashion-dit", SETTINGS), teacher
        self.plan = collection_plan(Run(self.config, Workplace(Path()), teacher))
        self.store = ZarrTrajectoryStore.prepare(MemoryObjects(), self.plan)
        self.teacher = GuidedDenoiser(teacher, self.config.guidance)

    def other_collects(self, unit):
        with self.store.write_unit(unit) as writer:
            collect_unit(GuidedStates(self.teacher), self.base_model, self.plan, writer, self.config.collect)

    def collect(self, place):
        """Units that we compute, and the numbers in which progress was told."""
        told, before = [], self.base_model.network_evaluations
        place = place(progress=lambda job: lambda done, total, unit: told.append(done))
        missing = self.store.missing_units()
        collect_missing(Run(self.config, place, self.base_model), self.store, missing)
        return (self.base_model.network_evaluations - before) / UNIT_EVALUATIONS, told


@pytest.fixture
def shared(teacher):
    return Shared(teacher)


def test_a_unit_that_somebody_committed_meanwhile_is_skipped(shared, tmp_path, monkeypatch):
    opened, write_unit = [], ZarrTrajectoryStore.write_unit
    monkeypatch.setattr(ZarrTrajectoryStore, "write_unit", lambda s, unit: opened.append(unit) or write_unit(s, unit))

    class Meanwhile(Workplace):
        def each_unit(self, units, run, store_url):
            for unit in units:
                if unit == 2:
                    shared.other_collects(2)
                run(unit)
                yield unit

    computed, told = shared.collect(lambda **listeners: Meanwhile(tmp_path, **listeners))
    assert computed == 4
    assert opened == [0, 1, 2, 3]  # 2 by the other
    assert told == [1, 2, 3, 4]
    assert [shard.provenance for shard in shared.store.committed_shards()] == ["new"] * 4


@pytest.mark.parametrize("claims", [(0,), (0, 1), (0, 1, 2, 3)])
def test_units_that_somebody_is_busy_with_come_last_and_are_not_waited_for(shared, tmp_path, claims):
    order = []

    class Watched(Workplace):
        def each_unit(self, units, run, store_url):
            for unit in units:
                missing = shared.store.missing_units()
                run(unit)
                order.extend(set(missing) - set(shared.store.missing_units()))
                yield unit

    for unit in claims:
        shared.store.objects.put(f"claims/u-{unit:06d}", b"another-host 1")
    computed, told = shared.collect(lambda **listeners: Watched(tmp_path, **listeners))
    assert computed == 4
    assert told == [1, 2, 3, 4]
    assert order == [unit for unit in range(4) if unit not in claims] + list(claims)


def test_a_dead_collectors_unit_is_nothing_special(shared, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    shared.store.objects.put("claims/u-000000", f"{platform.node()} {dead.pid}".encode())
    asked = []

    class Counting(Workplace):
        def each_unit(self, units, run, store_url):
            asked.extend(units)
            return super().each_unit(units, run, store_url)

    assert shared.collect(lambda **listeners: Counting(tmp_path, **listeners))[0] == 4
    assert asked == [0, 1, 2, 3]


def test_a_finished_store_holds_no_claims(teacher, tmp_path):
    config, claims = load_config("fashion-dit", SETTINGS), []

    class Left(Workplace):
        def each_unit(self, units, run, store_url):
            folder = Path(store_url) / "claims"
            folder.mkdir(exist_ok=True)
            (folder / "u-000001").write_text("another-host 1")
            for unit in super().each_unit(units, run, store_url):
                claims.append(len(list(folder.iterdir())))
                (folder / "u-000009").write_text("another-host 1")
                yield unit

    artefact = collect(Run(config, Left(tmp_path), teacher))
    assert claims
    assert max(claims) > 0
    assert list((artefact.path / "store" / "claims").iterdir()) == []
