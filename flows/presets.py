"""From a preset's name or a YAML file, and `key=value` overrides, to a checked configuration."""

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from agd_core.adapters import AnyAdapterConfig
from agd_core.base_models import BaseModelConfig
from agd_core.errors import InputError
from flows.config import PipelineConfig
from flows.preset_files import read_preset

_KINDS: dict[int | str, type[BaseModel]] = {
    model.model_fields["kind"].default: model
    for union in (AnyAdapterConfig, BaseModelConfig)
    for model in get_args(get_args(union)[0])
}
"""The configurations of both unions by kind; no two have a kind in common."""


def load_config(preset: str, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Read a preset or a file and apply overrides such as `train.steps=500` or `adapters.0.hidden_width=32`.

    Raises:
        InputError: unknown preset, unreadable file, unknown setting or bad value; the message names it.
    """
    return parse_config(read_preset(preset, overrides))


def parse_config(raw: Any) -> PipelineConfig:
    """Check plain data against the configuration.

    Raises:
        InputError: the first problem, with the dotted name of the setting.
    """
    try:
        return PipelineConfig.model_validate(raw)
    except ValidationError as error:
        raise InputError(_first_problem(error)) from None


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    section, allowed = _settings_at(problem["loc"][:-1])
    where = ".".join([*section, *(str(part) for part in problem["loc"][-1:])]) or "configuration"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"{where}: no such setting; allowed here: {', '.join(allowed)}"
    return f"{where}: {message}, got {problem['input']!r}" if _shows_value(problem) else f"{where}: {message}"


def _shows_value(problem: Any) -> bool:
    return isinstance(problem["input"], str | int | float | bool | None)


def _settings_at(location: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """The path as a person types it, without the union tags that pydantic adds, and the settings that exist there."""
    path: list[str] = []
    current: type[BaseModel] = PipelineConfig
    for part in location:
        if part in _KINDS:
            current = _KINDS[part]
            continue
        path.append(str(part))
        field = current.model_fields.get(str(part))
        if field and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            current = field.annotation
    return path, list(current.model_fields)
