"""Stage 1: guided trajectories into a store, resumable by work unit."""

import math
from pathlib import Path

import torch

from agd_core.base_models import BaseModel
from agd_core.guidance import GuidanceConfig, GuidedDenoiser
from agd_core.progress import Stopped
from agd_core.schedulers import build_scheduler
from agd_core.trajectory import CollectConfig, collect_block, plan_trajectories
from flows.workplace import Workplace
from storage.artefacts import Artefact
from storage.zarr_store import StoreSpec, ZarrTrajectoryWriter

STAGE, VERSION = "trajectories", 1


def collect(config: CollectConfig, guidance: GuidanceConfig, base_model: BaseModel, place: Workplace) -> Artefact:
    """Record the planned trajectories; units that are already committed are kept.

    Raises:
        InputError: not enough disk space.
        Stopped: between units, when asked to; run again to resume.
    """
    identity = {
        "version": VERSION,
        "base_model": base_model.pipeline_digest(),
        "guidance": guidance.identity(),
        "collect": config.identity(),
    }
    teacher = GuidedDenoiser(base_model, guidance.build())
    return place.produce(
        STAGE, identity, lambda artefact: _collect_units(config, teacher, base_model, artefact.path, place)
    )


def _collect_units(
    config: CollectConfig, teacher: GuidedDenoiser, base_model: BaseModel, root: Path, place: Workplace
) -> None:
    place.require_space(_stored_bytes(config, base_model, already=_shard_bytes(root)), "collecting these trajectories")
    writer = _open_writer(config, base_model, root)
    missing = writer.missing_units()
    done, units = writer.units - len(missing), writer.units
    place.announce(f"{STAGE}: collecting {config.trajectories} trajectories, {done} of {units} shards there already")
    progress = place.progress("collect")
    for position, unit in enumerate(missing, start=done):
        if place.should_stop():
            raise Stopped(f"stopped with {position} of {units} shards committed; run the same command to resume")
        writer.commit(unit, collect_block(teacher, base_model, writer.planned(unit), config))
        progress(position + 1, units, "shards")


def _open_writer(config: CollectConfig, base_model: BaseModel, root: Path) -> ZarrTrajectoryWriter:
    schedule = build_scheduler(config.scheduler, base_model.scheduler_config, config.steps).timesteps
    spec = StoreSpec(
        latent_shape=base_model.latent_shape,
        dtype=config.dtype,
        shard_trajectories=min(config.shard_trajectories, config.trajectories),
        schedule=tuple(schedule.to(torch.float32).tolist()),
        attributes={"base_fingerprint": base_model.fingerprint, "collect": config.identity()},
    )
    return ZarrTrajectoryWriter(root, plan_trajectories(config, len(base_model.class_names)), spec)


def _stored_bytes(config: CollectConfig, base_model: BaseModel, already: int) -> int:
    pairs = config.trajectories * config.stored_steps
    whole = pairs * 2 * math.prod(base_model.latent_shape) * torch.finfo(getattr(torch, config.dtype)).bits // 8
    return max(0, whole - already)


def _shard_bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in root.glob("latents/c/**/*") if path.is_file())
