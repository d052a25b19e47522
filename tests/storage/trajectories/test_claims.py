"""Hints who is busy with which unit."""

import os
import platform
import subprocess
import sys

import pytest

from storage.objects import LocalObjects, MemoryObjects
from storage.trajectories.claims import claimed, clear_claims
from storage.trajectories.verification import store_problems
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.storage.contract import make_plan, write_missing

KEY = "claims/u-000003"


@pytest.fixture(params=["local", "memory"])
def objects(request, tmp_path):
    return LocalObjects(tmp_path) if request.param == "local" else MemoryObjects()


def dead_process():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_a_claim_lasts_as_long_as_its_block(objects):
    with claimed(objects, 3) as free:
        assert free
        assert objects.read(KEY).decode() == f"{platform.node()} {os.getpid()}"
    assert objects.keys("claims") == []
    with pytest.raises(KeyError), claimed(objects, 3):
        raise KeyError
    assert objects.keys("claims") == []


@pytest.mark.parametrize("holder", ["another-host 1", f"{platform.node()} {os.getppid()}", f"{platform.node()} 1"])
def test_what_somebody_is_busy_with_is_not_free_and_stays_his(objects, holder):
    objects.put(KEY, holder.encode())
    with claimed(objects, 3) as free, claimed(objects, 4) as other:
        assert (free, other) == (False, True)
    assert objects.keys("claims") == [KEY]
    assert objects.read(KEY).decode() == holder


@pytest.mark.parametrize("holder", [dead_process, os.getpid])
def test_a_claim_of_a_process_that_is_gone_is_free(objects, holder):
    objects.put(KEY, f"{platform.node()} {holder()}".encode())
    with claimed(objects, 3) as free:
        assert free
        assert objects.read(KEY).decode() == f"{platform.node()} {os.getpid()}"
    assert objects.keys("claims") == []


@pytest.mark.parametrize("torn", [b"", b"\xff\xfe", b"no number", b"host -5", platform.node().encode() + b" 1e9"])
def test_a_claim_that_cannot_be_read_is_somebodys(objects, torn):
    objects.put(KEY, torn)
    with claimed(objects, 3) as free:
        assert not free


def test_a_number_that_no_process_has_is_nobodys(objects):
    objects.put(KEY, f"{platform.node()} {10**30}".encode())
    with claimed(objects, 3) as free:
        assert free


def test_claims_are_no_part_of_a_store(objects):
    plan = make_plan()
    store = ZarrTrajectoryStore.prepare(objects, plan)
    objects.put(KEY, b"another-host 1")
    assert store_problems(write_missing(store).objects) == []
    clear_claims(objects)
    assert objects.keys("claims") == []
