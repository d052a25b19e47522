"""What a whole run does and how often, stage by stage, before any of it is done."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from agd_core.evaluation.extractors.preprocessing import batch_images
from agd_core.evaluation.prediction_error import UNGUIDED
from agd_core.methods import MethodConfig
from agd_core.models.prompt_encoder import PROMPTS_TOGETHER
from agd_core.models.schedulers import SchedulerName, build_scheduler
from flows.instruments import open_networks
from flows.reference import count_real_images
from flows.run import Run
from flows.stages.comparison import headline_points, methods, teacher_of, training_free_of
from flows.stages.evaluations import collection_evaluations, evaluations_by_step
from flows.stages.repeatable import Decoding, ImageEncoding, PromptEncoding, Repeatable, SamplerStep, TrainingStep
from flows.stages.repeatable_scoring import Looking, Scoring

_SCORED_TOGETHER = 1000
"""Most images of which metrics are timed."""


@dataclass(frozen=True)
class Repetition:
    """One kind of work of a stage."""

    stage: str
    work: Repeatable
    units: int
    """In all."""

    @property
    def times(self) -> float:
        """Rounds of the work."""
        return self.units / self.work.together


def repetitions(run: Run) -> list[Repetition]:
    """Everything that a whole run repeats, where nothing of it is done yet."""
    return [
        *_encoding(run),
        *_image_encoding(run),
        Repetition("collect", *collection_steps(run)),
        *(_training(run, method) for method in run.config.methods),
        *_sampling(run),
        *_evaluation(run),
        *_prediction_error(run),
    ]


def collection_steps(run: Run) -> tuple[SamplerStep, int]:
    """A step of stage 1's sampler, and the network evaluations of all trajectories."""
    config = run.collect
    trajectories = config.trajectories or 0
    rows = min(config.batch_size, config.unit_trajectories or config.shard_trajectories, trajectories)
    name, scale = teacher_of(run.config).name, config.guidance_scale_max
    most, _ = _evaluations(run, name, config.scheduler, config.steps, scale)
    step = SamplerStep(most * rows, name, rows, config.scheduler, config.steps, scale)
    return step, collection_evaluations(run)


def _encoding(run: Run) -> Iterator[Repetition]:
    prompts = {*run.collected.prompts, *run.sampled.prompts}
    if prompts:
        yield Repetition("encode prompts", PromptEncoding(min(len(prompts), PROMPTS_TOGETHER)), len(prompts))


def _image_encoding(run: Run) -> Iterator[Repetition]:
    """Every real image that is noised goes through the VAE's encoder once."""
    if images := run.real_images:
        yield Repetition("encode images", ImageEncoding(1), len(images.chosen(run.collect)))


def _training(run: Run, method: MethodConfig) -> Repetition:
    config = run.config.training_of(method)
    return Repetition(f"train {method.label}", TrainingStep(config.batch_size, method.label), config.pairs_read)


def _sampling(run: Run) -> Iterator[Repetition]:
    sets = list(_sample_sets(run))
    for name in dict.fromkeys(name for name, _ in sets):
        steps = [steps for other, steps in sets if other == name]
        yield _walks(run, f"sample {name}", name, run.config.sample.images, steps)
    images = run.config.sample.images
    decoding = Decoding(min(run.config.sample.batch_size, images))
    yield Repetition("decode samples", decoding, images * len(sets))


def _sample_sets(run: Run) -> Iterator[tuple[str, int]]:
    """(who samples, in how many steps) of every sample set; the bare model's are the same at all scales."""
    points = headline_points(run.config)
    for point in dict.fromkeys(replace(point, scale=1.0) for point in points):
        yield UNGUIDED, point.steps
    guided = [rule.name for rule in (teacher_of(run.config), *training_free_of(run.config))]
    for name in (*guided, *(method.label for method in run.config.methods)):
        yield from ((name, point.steps) for point in points)


def _walks(run: Run, stage: str, name: str, images: int, steps: list[int]) -> Repetition:
    """A denoiser's network evaluations for so many images in each of these numbers of steps."""
    config = run.config.sample
    rows, scale = min(config.batch_size, config.images), config.guidance_scale
    counts = {each: _evaluations(run, name, config.scheduler, each, scale) for each in {config.steps, *steps}}
    step = SamplerStep(counts[config.steps][0] * rows, name, rows, config.scheduler, config.steps, scale)
    return Repetition(stage, step, images * sum(counts[each][1] for each in steps))


def _evaluation(run: Run) -> Iterator[Repetition]:
    config, images, sets = run.config, run.config.sample.images, len(list(_sample_sets(run)))
    extractor, judge = open_networks(config.evaluate, run.model, run.place.device)
    together = batch_images(run.place.device)
    if extractor:
        if real := count_real_images(config.evaluate):
            yield Repetition("real images", Looking(together), real)
        yield Repetition("features", Looking(together), images * sets)
    if judge and judge is not extractor:
        yield Repetition("features", Looking(together, is_judge=True), images * sets)
    rows = len(headline_points(config)) * (len(methods(config, ())) + len(config.methods))
    yield Repetition("evaluate", Scoring(min(images, _SCORED_TOGETHER)), images * rows)


def _prediction_error(run: Run) -> Iterator[Repetition]:
    """For every method the teacher walks, and both the bare model and the method are asked at each of its steps."""
    config = run.config
    labels = [*(method.label for method in config.methods), *(rule.name for rule in training_free_of(config))]
    if images := config.evaluate.curve_images:
        for name in (teacher_of(config).name, UNGUIDED):
            yield _walks(run, "prediction error", name, images * len(labels), [config.sample.steps])
        for label in labels:
            yield _walks(run, "prediction error", label, images, [config.sample.steps])


def _evaluations(run: Run, name: str, scheduler: SchedulerName, steps: int, scale: float) -> tuple[int, int]:
    """(most at one step, sum over all steps) of a denoiser's network evaluations for one row."""
    if (rule := run.rules.get(name)) is None:
        return 1, len(build_scheduler(scheduler, run.model.scheduler_config, steps).timesteps)
    counts = evaluations_by_step(run, rule, scheduler, steps, scale)
    return max(counts), sum(counts)
