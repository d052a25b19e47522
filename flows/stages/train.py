"""Stage 2: one method on the stored trajectories, resumable to the exact step."""

from agd_core.basics.atomic import write_json
from agd_core.basics.errors import InputError
from agd_core.methods import MethodConfig
from agd_core.methods.adapter_files import AdapterCard, save_adapter
from agd_core.methods.trainer import Training
from flows.run import Run
from flows.stages.training_time import TRAINING, TimedCheckpoint
from flows.stages.trajectories import open_trajectories
from flows.workplace import describe_device
from storage.artefacts import Artefact
from storage.errors import Damaged

STAGE, VERSION = "adapter", 4
LOSSES, CHECKPOINT = "losses.json", "checkpoint.safetensors"


def train(run: Run, method: MethodConfig, trajectories: Artefact) -> Artefact:
    """Train one method; the artefact is a folder that `agd_core.load_adapter` and `agd_core.load_student` read.

    Raises:
        NotNamed: the trajectories lie at a place that `store.url` does not name.
        Stopped: after a checkpoint, when asked to; run again to resume.
    """
    config, base_model, guidance = run.config, run.model, run.config.teacher_identity
    training = config.training_of(method)
    identity = {
        "version": VERSION,
        "base_model": base_model.network_digest(),
        "trajectories": trajectories.digest,
        "method": method.identity(),
        "guidance": guidance,
        "train": training.identity(),
    }

    def work(artefact: Artefact) -> None:
        trained = method.build(base_model.backbone, training.seed)
        reader = open_trajectories(trajectories, config.store.url)
        _train(run, Training(base_model, trained, reader, training), trajectories, artefact)
        source, scales = config.base_model.source, config.collect.guidance_range
        card = AdapterCard.of(base_model, trained, source, guidance, scales, artefact.key)
        save_adapter(trained, card, base_model.network, artefact.path)

    return run.place.produce(STAGE, identity, work, measured=[TRAINING], title=f"train {method.label}")


def _train(run: Run, training: Training, trajectories: Artefact, artefact: Artefact) -> None:
    """Train to the end and write the losses, and how long it took."""
    label, place = training.trained.config.label, run.place
    checkpoint = TimedCheckpoint(artefact.path / CHECKPOINT, artefact.key)
    count = training.trained.parameter_count()
    share = f"{count:,} parameters, {100 * count / run.model.parameters:.1f} % of the base"
    place.announce(f"{STAGE}: training {label} ({share}), {training.config.steps} steps")
    if checkpoint.path.exists():
        place.announce(f"{STAGE}: going on from {checkpoint.path}")
    progress = place.progress(f"train {label}")
    try:
        with place.on_device(f"train {label}"):
            losses, seconds = training.run(checkpoint, progress, place.should_stop), checkpoint.seconds
    except Damaged as error:
        again = f"agd verify {trajectories.path} --repair deletes what is torn, then run the same command again"
        raise InputError(f"damaged trajectories, {error}: {again}") from error
    write_json(losses, artefact.path / LOSSES)
    write_json({"seconds": seconds, "device": describe_device(place.device)}, artefact.path / TRAINING)
    checkpoint.remove()
