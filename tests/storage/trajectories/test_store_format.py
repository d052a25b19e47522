"""A store that another version wrote: refused with one line, and left alone."""

import pytest

from storage.errors import OtherContent
from storage.exports.base import export_problems
from storage.exports.webdataset import WebDatasetReader, export_webdataset
from storage.names import PLAN
from storage.objects import MemoryObjects
from storage.sealed_parquet import seal, unseal
from storage.trajectories.plan_file import FORMAT_VERSION
from storage.trajectories.sharing import shared_units
from storage.trajectories.verification import repair_store, store_problems
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.storage.contract import make_plan, write_missing

TOLD = f"was written by another version: format {FORMAT_VERSION - 1}, this one reads {FORMAT_VERSION}; collect again"


def aged(objects, key=PLAN):
    """As the version before would have written it."""
    table, footer = unseal(objects.read(key))
    objects.put(key, seal(table, footer | {"format_version": str(FORMAT_VERSION - 1)}))
    return objects


@pytest.fixture
def old():
    return aged(write_missing(ZarrTrajectoryStore.prepare(MemoryObjects(), make_plan())).objects)


@pytest.mark.parametrize(
    "use", [ZarrTrajectoryStore.open, lambda objects: ZarrTrajectoryStore.prepare(objects, make_plan())]
)
def test_it_is_neither_read_nor_continued(old, use):
    before = dict(old.objects)
    with pytest.raises(OtherContent) as refused:
        use(old)
    assert str(refused.value) == f"memory {TOLD}"
    assert old.objects == before


def test_checking_names_it_and_repairing_deletes_nothing(old):
    before = dict(old.objects)
    assert store_problems(old) == [f"memory/{PLAN}: {TOLD}"]
    assert repair_store(old) == []
    assert old.objects == before


def test_it_offers_no_units(old):
    assert shared_units(old, make_plan(), range(2)) == []


def test_an_export_of_it_is_refused_too():
    store, objects = write_missing(ZarrTrajectoryStore.prepare(MemoryObjects(), make_plan())), MemoryObjects()
    export_webdataset(store, objects)
    aged(objects, f"store/{PLAN}")
    problem = f"memory/store: the carried plan cannot be read: {TOLD}"
    assert export_problems(objects) == [problem]
    with pytest.raises(ValueError, match=TOLD):
        WebDatasetReader(objects)


def test_a_plan_without_variance_has_the_identity_it_always_had():
    """Stores of before are continued and shared, not collected anew."""
    plan = make_plan()
    assert plan.settings_id == "a2666793e77c82645429eca82c5709d95c07007e9538dcc335dc8d8ff01160d3"
    assert plan.dataset_id == "9f726d1ab2384a3ade31f602c928725b25c78fae9791cd9436e46966336c58ae"
    other = make_plan(prediction_slots=2)
    assert (other.pair_shape, other.prediction_channels) == ((3, 2, 3, 3), 4)
    assert other.pair_bytes == plan.pair_bytes * 3 // 2
    assert not {other.settings_id, other.dataset_id, *other.unit_ids} & {plan.settings_id, *plan.unit_ids}


@pytest.mark.parametrize("slots", [0, 3])
def test_a_prediction_of_other_slots_is_refused(slots):
    with pytest.raises(ValueError, match=f"1 slot, or 2 with a learned variance, not {slots}"):
        make_plan(prediction_slots=slots)
