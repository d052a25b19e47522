"""The subjects that a section of the configuration asks for."""

from collections.abc import Callable

from agd_core.base_models import BaseModel
from agd_core.sampling import SampleConfig
from agd_core.subjects import Subjects
from agd_core.trajectory import CollectConfig
from flows.prompts import load_prompts


def collect_subjects(config: CollectConfig, base_model: BaseModel) -> Subjects:
    """What trajectories are collected of.

    Raises:
        InputError: prompts are missing, cannot be read, or are given to a model with classes.
    """
    return _subjects(config, base_model, "collect.prompts")


def sample_subjects(config: SampleConfig, base_model: BaseModel) -> Subjects:
    """What images are sampled of; errors as in `collect_subjects`."""
    return _subjects(config, base_model, "sample.prompts")


def _subjects(config: CollectConfig | SampleConfig, base_model: BaseModel, setting: str) -> Subjects:
    prompts = load_prompts(config.prompts, config.prompt_count, setting) if config.prompts else ()
    return Subjects.of(base_model, prompts, setting)


def say_what_is_cut(setting: str, subjects: Subjects, announce: Callable[[str], None]) -> None:
    """One line if prompts are longer than the text encoders read."""
    if cut := subjects.base_model.cut_prompts(subjects.prompts):
        same = f"; {cut.equal} became equal to another one" if cut.equal else ""
        announce(
            f"{setting}: {cut.cut} of {len(subjects)} prompts are cut, for a text encoder reads {cut.most_tokens} "
            f"tokens{same}"
        )
