"""Stage 2: one adapter on the stored trajectories, resumable to the exact step."""

from agd_core.adapter_files import AdapterCard, save_adapter
from agd_core.adapters import Adapter, AdapterConfig
from agd_core.atomic import write_json
from agd_core.checkpoint import Checkpoint
from agd_core.errors import InputError
from agd_core.records import TrajectoryReader
from agd_core.trainer import train_adapter
from flows.run import Run
from flows.stages.trajectories import open_trajectories
from storage.artefacts import Artefact
from storage.errors import Damaged

STAGE, VERSION = "adapter", 4
LOSSES = "losses.json"


def train(run: Run, adapter_config: AdapterConfig, trajectories: Artefact) -> Artefact:
    """Train one adapter; the artefact is a folder that `agd_core.load_adapter` and `agd_core.load_student` read.

    Raises:
        NotNamed: the trajectories lie at a place that `store.url` does not name.
        Stopped: after a checkpoint, when asked to; run again to resume.
    """
    config, base_model, guidance = run.config, run.model, run.config.guidance.identity()
    identity = {
        "version": VERSION,
        "base_model": base_model.network_digest(),
        "trajectories": trajectories.digest,
        "adapter": adapter_config.identity(),
        "guidance": guidance,
        "train": config.train.identity(),
    }

    def work(artefact: Artefact) -> None:
        adapter = _new_adapter(run, adapter_config)
        reader = open_trajectories(trajectories, config.store.url)
        _train(run, adapter, trajectories, reader, artefact)
        source, scales = config.base_model.source, config.collect.guidance_range
        card = AdapterCard.of(base_model, adapter, source, guidance, scales, artefact.key)
        save_adapter(adapter, card, base_model.network, artefact.path)

    return run.place.produce(STAGE, identity, work, title=f"train {adapter_config.label}")


def _new_adapter(run: Run, adapter_config: AdapterConfig) -> Adapter:
    config, base_model = run.config.train, run.model
    adapter = Adapter(adapter_config, base_model.backbone.sites, base_model.backbone.embedding_widths, config.seed)
    count = adapter.parameter_count()
    share = f"{count:,} parameters, {100 * count / base_model.parameters:.1f} % of the base"
    run.place.announce(f"{STAGE}: training {adapter_config.label} ({share}), {config.steps} steps")
    return adapter.to(base_model.device)


def _train(run: Run, adapter: Adapter, trajectories: Artefact, reader: TrajectoryReader, artefact: Artefact) -> None:
    config, place = run.config.train, run.place
    checkpoint = Checkpoint(artefact.path / "checkpoint.safetensors", artefact.key)
    if checkpoint.path.exists():
        place.announce(f"{STAGE}: going on from {checkpoint.path}")
    progress = place.progress(f"train {adapter.config.label}")
    try:
        with place.on_device(f"train {adapter.config.label}"):
            losses = train_adapter(run.model, adapter, reader, config, checkpoint, progress, place.should_stop)
    except Damaged as error:
        again = f"agd verify {trajectories.path} --repair deletes what is torn, then run the same command again"
        raise InputError(f"damaged trajectories, {error}: {again}") from error
    write_json(losses, artefact.path / LOSSES)
    checkpoint.remove()
