"""What a Zarr store writes before the first unit: the plan, then Zarr metadata, conditions and schedule.

    zarr.json                 group; its attributes say what this is
    latents/zarr.json         array [trajectories, stored_steps, K, *latent_shape], empty
    cond/<name>/...           condition tensors, one row per distinct condition
    schedule/timestep/...     float32 [sampler steps]
    plan.parquet              one row per trajectory; its footer lists size and crc32c of all files above

The plan is immutable and the root of trust: it is created exclusively, sealed, and everything else is checked against
it and, where it is missing or torn, written again.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import zarr
from zarr.codecs import Crc32cCodec

from agd_core.data.records import CARRIERS, CollectionPlan, PlannedTrajectory
from storage.errors import Damaged, OtherContent
from storage.sealed_parquet import require_columns, seal, unseal
from storage.trajectories.layout import StoreLayout
from storage.trajectories.plan_check import ROW, SCALAR, check_rows, checked_layout, footer_part
from storage.trajectories.zarr_tables import create_table, read_tables

FORMAT_VERSION = 4
LATENTS = "latents"
_K_NAMES = ["input", "guided_prediction", "learned_variance"]
_LISTED = re.compile(r"(latents/)?zarr\.json|(cond|schedule)/(zarr\.json|[A-Za-z0-9_-]+/(zarr\.json|c(/\d+)*))")
_ROWS_TOGETHER = 1024
_FOOTER = ("dataset_id", "settings_id", "format_version", "identity", "layout", "files")
_BFLOAT16_NAN = 0x7FC0
_SIDES = {3: ("channel", "height", "width"), 4: ("channel", "frame", "height", "width")}
_SCHEMA = pa.schema(
    [
        ("trajectory", pa.int64()),
        ("unit", pa.int32()),
        ("shard", pa.int32()),
        ("seed", pa.int64()),
        ("class_label", pa.int32()),
        ("prompt", pa.string()),
        ("split", pa.string()),
        ("steps", pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True)
class ListedFile:
    """Size and crc32c of a file that the plan vouches for."""

    size: int
    crc32c: int

    @classmethod
    def of(cls, data: bytes) -> "ListedFile":
        """Of these bytes."""
        return cls(len(data), google_crc32c.value(data))


def prepared_files(plan: CollectionPlan, attributes: Mapping[str, Any]) -> dict[str, bytes]:
    """Every file but the plan itself, made by zarr in memory."""
    files: dict[str, Any] = {}
    group = zarr.create_group(store=zarr.storage.MemoryStore(files), attributes=_attributes(plan, attributes))
    _create_latents(group, plan)
    conditions, schedule = group.create_group("cond"), group.create_group("schedule")
    for name, array in plan.conditions.items():
        create_table(conditions, name, array)
    create_table(schedule, "timestep", np.asarray(plan.timesteps, dtype=np.float32))
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
    return seal(pa.Table.from_pylist(rows, schema=_schema(plan.rows, plan.scalars)), footer)


def plan_identity(data: bytes) -> dict[str, Any]:
    """The settings that a plan file was made from.

    Raises:
        Damaged: the plan is damaged.
        OtherContent: another version wrote it; so for all functions that read a plan.
    """
    return footer_part(_unseal_plan(data)[1], "identity")


def plan_dataset_id(data: bytes) -> str:
    """`CollectionPlan.dataset_id` of a plan file."""
    return _unseal_plan(data)[1]["dataset_id"]


def plan_settings_id(data: bytes) -> str:
    """`CollectionPlan.settings_id` of a plan file."""
    return _unseal_plan(data)[1]["settings_id"]


def listed_files(data: bytes) -> dict[str, ListedFile]:
    """The files that a plan file vouches for, by key."""
    listed = footer_part(_unseal_plan(data)[1], "files")
    for key, entry in listed.items():
        numbers = list(entry.values()) if isinstance(entry, dict) and entry.keys() == {"size", "crc32c"} else [None]
        if not _LISTED.fullmatch(key) or not all(type(number) is int and number >= 0 for number in numbers):
            raise Damaged(f"vouches for a file that no store has: {key!r}")
    return {key: ListedFile(**entry) for key, entry in listed.items()}


def read_plan(data: bytes, files: Mapping[str, bytes]) -> CollectionPlan:
    """The plan, from its file and the prepared files.

    Raises:
        Damaged: the plan is damaged, or says what no plan says.
    """
    table, footer = _unseal_plan(data)
    timesteps = read_tables(files, "schedule").get("timestep", np.empty(0))
    conditions = read_tables(files, "cond")
    check_rows(table, timesteps, conditions)
    return CollectionPlan(
        trajectories=_trajectories(table),
        timesteps=tuple(timesteps.tolist()),
        conditions=conditions,
        identity=footer_part(footer, "identity"),
        **checked_layout(footer_part(footer, "layout")),
    )


def _unseal_plan(data: bytes) -> tuple[pa.Table, dict[str, str]]:
    table, footer = unseal(data)
    if "files" not in footer:
        raise Damaged("is another kind of file")
    if (found := footer.get("format_version")) != str(FORMAT_VERSION):
        raise OtherContent(
            f"was written by another version: format {found}, this one reads {FORMAT_VERSION}; collect again"
        )
    if lacking := [name for name in _FOOTER if name not in footer]:
        raise Damaged(f"lacks its {lacking[0]}")
    asked = [[n.removeprefix(kind) for n in table.column_names if n.startswith(kind)] for kind in (ROW, SCALAR)]
    require_columns(table, _schema(*asked), optional=("class_label", "prompt"))
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


def dimension_names(plan: CollectionPlan) -> tuple[str | None, ...]:
    """Of the stored array; the sides of latents that are neither images nor videos have no names."""
    return ("trajectory", "step", "k", *_SIDES.get(len(plan.latent_shape), (None,) * len(plan.latent_shape)))


def _create_latents(group: zarr.Group, plan: CollectionPlan) -> None:
    shape = (len(plan.trajectories), plan.stored_steps, *plan.pair_shape)
    group.create_array(
        LATENTS,
        shape=shape,
        shards=(plan.shard_trajectories, *shape[1:]),
        chunks=(1, StoreLayout(plan).steps_per_chunk, *plan.pair_shape),
        chunk_key_encoding={"name": "default", "separator": "."},
        dtype=CARRIERS[plan.dtype],
        fill_value=_BFLOAT16_NAN if plan.dtype == "bfloat16" else np.nan,
        filters=None,
        compressors=[Crc32cCodec()],
        dimension_names=dimension_names(plan),
    )


def _schema(rows: Iterable[str], scalars: Iterable[str]) -> pa.Schema:
    """The columns of a plan whose trajectories are asked for these rows and scalars."""
    asked = [(ROW + name, pa.int32()) for name in rows] + [(SCALAR + name, pa.float32()) for name in scalars]
    return pa.schema([*_SCHEMA, *(pa.field(*column) for column in asked)])


def _row(plan: CollectionPlan, trajectory: PlannedTrajectory) -> dict[str, Any]:
    return {
        "trajectory": trajectory.index,
        "unit": trajectory.index // plan.unit_trajectories,
        "shard": trajectory.index // plan.shard_trajectories,
        "seed": trajectory.seed,
        "class_label": trajectory.class_label,
        "prompt": trajectory.prompt,
        "split": trajectory.split,
        "steps": list(trajectory.steps),
        **{ROW + name: row for name, row in trajectory.rows.items()},
        **{SCALAR + name: scalar for name, scalar in trajectory.scalars.items()},
    }


def _trajectories(table: pa.Table) -> tuple[PlannedTrajectory, ...]:
    """The rows; what is equal in many rows is one object, as few bytes may stand for many."""
    known: dict[tuple[Any, ...], Any] = {}
    rows: list[PlannedTrajectory] = []
    for batch in table.to_batches(max_chunksize=_ROWS_TOGETHER):
        for row in batch.to_pylist():
            steps, asked = tuple(row["steps"]), [_named(row, kind) for kind in (ROW, SCALAR)]
            shared = [known.setdefault(tuple(part.items()), part) for part in asked]
            rows.append(_trajectory(row, known.setdefault(steps, steps), *shared))
    return tuple(rows)


def _named(row: dict[str, Any], kind: str) -> dict[str, Any]:
    """The columns of one kind, by their names without it."""
    return {name.removeprefix(kind): value for name, value in row.items() if name.startswith(kind)}


def _trajectory(
    row: dict[str, Any], steps: tuple[int, ...], rows: dict[str, int], scalars: dict[str, float]
) -> PlannedTrajectory:
    return PlannedTrajectory(
        index=row["trajectory"],
        seed=row["seed"],
        rows=rows,
        scalars=scalars,
        steps=steps,
        class_label=row["class_label"],
        prompt=row["prompt"],
        split=row["split"],
    )
