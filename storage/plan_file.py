"""What a Zarr store writes before the first unit: the plan, then Zarr metadata, conditions and schedule.

    zarr.json                 group; its attributes say what this is
    latents/zarr.json         array [trajectories, stored_steps, K, C, H, W], empty
    cond/<name>/...           condition tensors, one row per distinct condition
    schedule/timestep/...     float32 [sampler steps]
    plan.parquet              one row per trajectory; its footer lists size and crc32c of all files above

The plan is immutable and the root of trust: it is created exclusively, sealed, and everything else is checked against
it and, where it is missing or torn, written again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import google_crc32c
import numpy as np
import pyarrow as pa
import zarr
from zarr.codecs import Crc32cCodec
from zarr.core.buffer.cpu import Buffer

from agd_core.records import CARRIERS, CollectionPlan, PlannedTrajectory, StoredType
from storage.sealed_parquet import TornFile, seal, unseal

FORMAT_VERSION = 3
LATENTS = "latents"
_K_NAMES = ["input", "guided_prediction", "learned_variance"]
_PAGE_BYTES = 4096
_CHUNK_LIMIT_BYTES = 16384
_COND_CHUNK_BYTES = 4 << 20
_BFLOAT16_NAN = 0x7FC0
_SCHEMA = pa.schema(
    [
        ("trajectory", pa.int64()),
        ("unit", pa.int32()),
        ("shard", pa.int32()),
        ("seed", pa.int64()),
        ("guidance_scale", pa.float32()),
        ("class_label", pa.int32()),
        ("cond_id", pa.int32()),
        ("prompt", pa.string()),
        ("split", pa.string()),
        ("steps", pa.list_(pa.int32())),
    ]
)


class OtherFormat(ValueError):
    """A store that was written by a version with another format."""


@dataclass(frozen=True)
class ListedFile:
    """Size and crc32c of a file that the plan vouches for."""

    size: int
    crc32c: int

    @classmethod
    def of(cls, data: bytes) -> "ListedFile":
        """Of these bytes."""
        return cls(len(data), google_crc32c.value(data))


def steps_per_chunk(plan: CollectionPlan) -> int:
    """How many steps share an inner chunk: one, or for tiny latents the fewest that fill a 4 KiB page.

    A disk hands out whole pages anyway, and a chunk costs 20 bytes of checksum and index whatever its size. Only
    divisors of the stored steps are taken, so no chunk is padded.
    """
    for steps in range(1, plan.stored_steps + 1):
        size = steps * plan.pair_bytes
        if plan.stored_steps % steps == 0 and size >= _PAGE_BYTES:
            return steps if size <= _CHUNK_LIMIT_BYTES else 1
    return plan.stored_steps if plan.stored_steps * plan.pair_bytes < _PAGE_BYTES else 1


def prepared_files(plan: CollectionPlan, attributes: Mapping[str, Any]) -> dict[str, bytes]:
    """Every file but the plan itself, made by zarr in memory."""
    files: dict[str, Any] = {}
    group = zarr.create_group(store=zarr.storage.MemoryStore(files), attributes=_attributes(plan, attributes))
    _create_latents(group, plan)
    conditions, schedule = group.create_group("cond"), group.create_group("schedule")
    for name, array in plan.conditions.items():
        _create_table(conditions, name, array)
    _create_table(schedule, "timestep", np.asarray(plan.timesteps, dtype=np.float32))
    return {key: buffer.to_bytes() for key, buffer in files.items()}


def write_plan(plan: CollectionPlan, files: Mapping[str, bytes]) -> bytes:
    """The plan file, which vouches for the prepared files."""
    rows = [_row(plan, trajectory) for trajectory in plan.trajectories]
    listed = {key: vars(ListedFile.of(data)) for key, data in sorted(files.items())}
    footer = {
        "dataset_id": plan.dataset_id,
        "settings_id": plan.settings_id,
        "format_version": str(FORMAT_VERSION),
        "identity": json.dumps(plan.identity, sort_keys=True),
        "layout": json.dumps(_layout(plan)),
        "files": json.dumps(listed),
    }
    return seal(pa.Table.from_pylist(rows, schema=_SCHEMA), footer)


def plan_identity(data: bytes) -> dict[str, Any]:
    """The settings that a plan file was made from.

    Raises:
        TornFile: the plan is damaged.
        OtherFormat: another version wrote it; so for all functions that read a plan.
    """
    identity: dict[str, Any] = json.loads(_unseal_plan(data)[1]["identity"])
    return identity


def plan_dataset_id(data: bytes) -> str:
    """`CollectionPlan.dataset_id` of a plan file."""
    return _unseal_plan(data)[1]["dataset_id"]


def plan_settings_id(data: bytes) -> str:
    """`CollectionPlan.settings_id` of a plan file."""
    return _unseal_plan(data)[1]["settings_id"]


def listed_files(data: bytes) -> dict[str, ListedFile]:
    """The files that a plan file vouches for, by key."""
    listed = json.loads(_unseal_plan(data)[1]["files"])
    return {key: ListedFile(**entry) for key, entry in listed.items()}


def read_plan(data: bytes, files: Mapping[str, bytes]) -> CollectionPlan:
    """The plan, from its file and the prepared files.

    Raises:
        TornFile: the plan is damaged.
    """
    table, footer = _unseal_plan(data)
    group = _open_prepared(files)
    layout = json.loads(footer["layout"])
    return CollectionPlan(
        trajectories=tuple(_trajectory(row) for row in table.to_pylist()),
        timesteps=tuple(_tables(group, "schedule")["timestep"].tolist()),
        conditions=_tables(group, "cond"),
        latent_shape=cast(tuple[int, int, int], tuple(layout["latent_shape"])),
        dtype=cast(StoredType, layout["dtype"]),
        shard_trajectories=layout["shard_trajectories"],
        unit_trajectories=layout["unit_trajectories"],
        identity=json.loads(footer["identity"]),
        prediction_slots=layout.get("prediction_slots", 1),
    )


def _unseal_plan(data: bytes) -> tuple[pa.Table, dict[str, str]]:
    table, footer = unseal(data)
    if "files" not in footer:
        raise TornFile("is another kind of file")
    if footer["format_version"] != str(FORMAT_VERSION):
        raise OtherFormat(f"is of store format {footer['format_version']}; this version reads format {FORMAT_VERSION}")
    return table, footer


def _attributes(plan: CollectionPlan, attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": "agd-trajectories",
        "format_version": FORMAT_VERSION,
        "dataset_id": plan.dataset_id,
        "k_names": _K_NAMES[: plan.pair_shape[0]],
        "logical_dtype": plan.dtype,
        "storage_rounding": "before_teacher",
        **_layout(plan),
        "identity": dict(plan.identity),
        **attributes,
    }


def _layout(plan: CollectionPlan) -> dict[str, Any]:
    slots = {} if plan.prediction_slots == 1 else {"prediction_slots": plan.prediction_slots}
    return {
        "latent_shape": list(plan.latent_shape),
        "dtype": plan.dtype,
        "shard_trajectories": plan.shard_trajectories,
        "unit_trajectories": plan.unit_trajectories,
        **slots,
    }


def _create_latents(group: zarr.Group, plan: CollectionPlan) -> None:
    shape = (len(plan.trajectories), plan.stored_steps, *plan.pair_shape)
    group.create_array(
        LATENTS,
        shape=shape,
        shards=(plan.shard_trajectories, *shape[1:]),
        chunks=(1, steps_per_chunk(plan), *plan.pair_shape),
        chunk_key_encoding={"name": "default", "separator": "."},
        dtype=CARRIERS[plan.dtype],
        fill_value=_BFLOAT16_NAN if plan.dtype == "bfloat16" else np.nan,
        filters=None,
        compressors=[Crc32cCodec()],
        dimension_names=["trajectory", "step", "k", "channel", "height", "width"],
    )


def _create_table(group: zarr.Group, name: str, array: np.ndarray) -> None:
    rows = max(1, min(len(array), _COND_CHUNK_BYTES // max(1, array[:1].nbytes)))
    with zarr.config.set({"array.write_empty_chunks": True}):
        created = group.create_array(
            name,
            shape=array.shape,
            chunks=(rows, *array.shape[1:]),
            dtype=array.dtype,
            filters=None,
            compressors=[Crc32cCodec()],
        )
        created[:] = array


def _open_prepared(files: Mapping[str, bytes]) -> zarr.Group:
    store = zarr.storage.MemoryStore({key: Buffer.from_bytes(data) for key, data in files.items()})
    return zarr.open_group(store=store, mode="r")


def _tables(group: zarr.Group, name: str) -> dict[str, np.ndarray]:
    return {key: np.asarray(array[:]) for key, array in sorted(group.require_group(name).arrays())}


def _row(plan: CollectionPlan, trajectory: PlannedTrajectory) -> dict[str, Any]:
    return {
        "trajectory": trajectory.index,
        "unit": trajectory.index // plan.unit_trajectories,
        "shard": trajectory.index // plan.shard_trajectories,
        "seed": trajectory.seed,
        "guidance_scale": trajectory.guidance_scale,
        "class_label": trajectory.class_label,
        "cond_id": trajectory.condition,
        "prompt": trajectory.prompt,
        "split": trajectory.split,
        "steps": list(trajectory.steps),
    }


def _trajectory(row: dict[str, Any]) -> PlannedTrajectory:
    return PlannedTrajectory(
        index=row["trajectory"],
        seed=row["seed"],
        condition=row["cond_id"],
        guidance_scale=row["guidance_scale"],
        steps=tuple(row["steps"]),
        class_label=row["class_label"],
        prompt=row["prompt"],
        split=row["split"],
    )
