"""Plans whose checksums are right and whose content is crafted: one line each, nothing large, no hang."""

import json

import pyarrow as pa
import pytest

from storage.names import PLAN
from storage.objects import LocalObjects
from storage.sealed_parquet import unseal
from storage.trajectories.plan_file import ListedFile
from storage.trajectories.verification import repair_store, store_problems
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.storage.crafting import HUGE, PICKLE, metadata, reseal, with_column

pytestmark = pytest.mark.usefixtures("little_memory")


def plan_table(store):
    return unseal(store.objects.read(PLAN))[0]


def changed_layout(**changes):
    def craft(store):
        layout = json.loads(unseal(store.objects.read(PLAN))[1]["layout"])
        reseal(store.objects, PLAN, layout=json.dumps(layout | changes))

    return craft


def changed_column(name, values):
    return lambda store: reseal(store.objects, PLAN, with_column(plan_table(store), name, values))


def changed_file(key, change):
    """Another prepared file, for which the plan vouches."""

    def craft(store):
        data = change(store.objects.read(key))
        listed = json.loads(unseal(store.objects.read(PLAN))[1]["files"]) | {key: vars(ListedFile.of(data))}
        store.objects.put(key, data)
        reseal(store.objects, PLAN, files=json.dumps(listed))

    return craft


def listing(key, **entry):
    def craft(store):
        listed = json.loads(unseal(store.objects.read(PLAN))[1]["files"])
        reseal(store.objects, PLAN, files=json.dumps(listed | {key: {"size": 1, "crc32c": 1} | entry}))

    return craft


ARRAY = "cond/pooled/zarr.json"
GZIP = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "gzip", "configuration": {"level": 5}}]
GRID = {"name": "regular", "configuration": {"chunk_shape": [HUGE, 5]}}
PLANS = {
    "a negative shard": changed_layout(shard_trajectories=-2),
    "no shard": changed_layout(shard_trajectories=0),
    "a shard of half a trajectory": changed_layout(shard_trajectories=0.5),
    "a shard of very many": changed_layout(shard_trajectories=HUGE, unit_trajectories=HUGE),
    "a unit that is no multiple": changed_layout(unit_trajectories=5),
    "latents of any size": changed_layout(latent_shape=[HUGE, HUGE, HUGE]),
    "latents without sides": changed_layout(latent_shape=[]),
    "latents that are text": changed_layout(latent_shape="abc"),
    "another type": changed_layout(dtype="object"),
    "a type that is a list": changed_layout(dtype=["float16"]),
    "three slots": changed_layout(prediction_slots=3),
    "a true slot": changed_layout(prediction_slots=True),
    "no layout": lambda store: reseal(store.objects, PLAN, layout=None),
    "no dataset": lambda store: reseal(store.objects, PLAN, dataset_id=None),
    "no version": lambda store: reseal(store.objects, PLAN, format_version=None),
    "an identity that is deep": lambda store: reseal(store.objects, PLAN, identity="[" * 100_000),
    "an identity that is a number": lambda store: reseal(store.objects, PLAN, identity="7"),
    "an identity that is no number": lambda store: reseal(store.objects, PLAN, identity='{"a": NaN}'),
    "an identity that says it twice": lambda store: reseal(store.objects, PLAN, identity='{"a": 1, "a": 2}'),
    "files that are a list": lambda store: reseal(store.objects, PLAN, files="[]"),
    "a file outside": listing("../../thesis.txt"),
    "an absolute file": listing("/etc/passwd"),
    "a file outside of its folder": listing("cond/../../thesis.txt/zarr.json"),
    "a shard among the files": listing("latents/c.0.0.0.0.0.0"),
    "a negative size": listing("zarr.json", size=-1),
    "a size that is text": listing("zarr.json", size="1"),
    "a size too many": listing("zarr.json", more=1),
    "no rows": lambda store: reseal(store.objects, PLAN, plan_table(store).slice(0, 0)),
    "other columns": lambda store: reseal(store.objects, PLAN, plan_table(store).drop_columns(["seed"])),
    "a column of another type": lambda store: reseal(
        store.objects, PLAN, plan_table(store).set_column(3, "seed", pa.array(["x"] * 5))
    ),
    "a column twice": lambda store: reseal(
        store.objects, PLAN, plan_table(store).append_column("seed", pa.array([1] * 5))
    ),
    "missing values": changed_column("seed", [None, 1, 2, 3, 4]),
    "other numbers": changed_column("trajectory", [0, 1, 2, 3, 2**62]),
    "conditions that are not there": changed_column("row_condition", [0, 1, 2, 3, 0]),
    "negative conditions": changed_column("row_condition", [0, 1, 2, -1, 0]),
    "null conditions that are not there": changed_column("row_null", [0, 1, 2, 3, 0]),
    "steps that are not there": changed_column("steps", [[0, 1, 8]] * 5),
    "negative steps": changed_column("steps", [[-1, 1, 2]] * 5),
    "no steps": changed_column("steps", [[]] * 5),
    "uneven steps": changed_column("steps", [[0]] + [[0, 1, 2]] * 4),
    "a step without a value": changed_column("steps", [[0, None, 2]] * 5),
    "a scale that is no number": changed_column("scalar_guidance_scale", [float("nan")] * 5),
    "conditions without shape": changed_file(ARRAY, metadata(shape=[])),
    "conditions of any shape": changed_file(ARRAY, metadata(shape=[HUGE, 5])),
    "conditions in huge chunks": changed_file(ARRAY, metadata(chunk_grid=GRID)),
    "conditions of negative shape": changed_file(ARRAY, metadata(shape=[-3, 5])),
    "conditions of objects": changed_file(ARRAY, metadata(data_type="object")),
    "conditions of a type that is a list": changed_file(ARRAY, metadata(data_type=[1])),
    "conditions in gzip": changed_file(ARRAY, metadata(codecs=GZIP)),
    "conditions in pickles": changed_file(ARRAY, metadata(codecs=PICKLE)),
    "conditions that are no JSON": changed_file(ARRAY, lambda data: b"{"),
    "conditions that are deep": changed_file(ARRAY, lambda data: b"[" * 100_000),
    "conditions with a short chunk": changed_file("cond/pooled/c/0/0", lambda data: data[:-8]),
    "conditions with a torn chunk": changed_file("cond/pooled/c/0/0", lambda data: data[:-1] + b"\0"),
    "a schedule that is a table": changed_file("schedule/timestep/zarr.json", metadata(shape=[4, 2])),
}


@pytest.mark.parametrize("what", PLANS)
def test_a_crafted_plan_is_one_line_for_every_reader(store, what):
    outside = store.objects.root.parent / "thesis.txt"
    outside.write_text("ten years of work")
    PLANS[what](store)
    problems = store_problems(LocalObjects(store.objects.root))
    assert len(problems) == 1, problems
    assert "\n" not in problems[0]
    assert len(problems[0]) < 1000
    with pytest.raises(ValueError, match=r"."):
        ZarrTrajectoryStore.open(LocalObjects(store.objects.root))
    repair_store(LocalObjects(store.objects.root))
    assert outside.read_text() == "ten years of work"
