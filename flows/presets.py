"""From a preset's name or a YAML file, and `key=value` overrides, to a checked configuration."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from agd_core.adapters import AnyAdapterConfig
from agd_core.base_models import BaseModelConfig
from agd_core.errors import InputError
from flows.config import PipelineConfig

_HERE = Path(__file__).resolve().parent
_KINDS: dict[int | str, type[BaseModel]] = {
    model.model_fields["kind"].default: model
    for union in (AnyAdapterConfig, BaseModelConfig)
    for model in get_args(get_args(union)[0])
}
"""The configurations of both unions by kind; no two have a kind in common."""
_FOLDERS = (_HERE / "presets", _HERE.parent / "deployments" / "presets")


def preset_names() -> list[str]:
    """Names of the shipped presets."""
    return sorted(path.stem for folder in _FOLDERS for path in folder.glob("*.yaml"))


def load_config(preset: str, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Read a preset or a file and apply overrides such as `train.steps=500` or `adapters.0.hidden_width=32`.

    Raises:
        InputError: unknown preset, unreadable file, unknown setting or bad value; the message names it.
    """
    raw = _read(_find(preset))
    for override in overrides:
        _apply(raw, override)
    return parse_config(raw)


def parse_config(raw: Any) -> PipelineConfig:
    """Check plain data against the configuration.

    Raises:
        InputError: the first problem, with the dotted name of the setting.
    """
    try:
        return PipelineConfig.model_validate(raw)
    except ValidationError as error:
        raise InputError(_first_problem(error)) from None


def repeat_command(preset: str, overrides: Sequence[str], output: Path, verb: str = "distill") -> str:
    """What a person types to repeat a whole run."""
    settings = [part for override in overrides for part in ("--set", override)]
    return shlex.join(["agd", verb, preset, *settings, "--output", str(output)])


def _find(preset: str) -> Path:
    path = Path(preset)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(f"configuration file {preset} does not exist")
        return path
    for folder in _FOLDERS:
        if (named := folder / f"{preset}.yaml").is_file():
            return named
    raise InputError(f"unknown preset {preset!r}; presets: {', '.join(preset_names())}; or give a .yaml file")


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"configuration file {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise InputError(f"configuration file {path} must hold sections such as collect: and train:")
    return raw


def _apply(raw: dict[str, Any], override: str) -> None:
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise InputError(f"override {override!r} is not of the form section.setting=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"override {override!r}: the value cannot be read: {' '.join(str(error).split())}") from error
    *parents, last = dotted.split(".")
    target: Any = raw
    try:
        for name in parents:
            target = target[int(name)] if isinstance(target, list) else target.setdefault(name, {})
        target[int(last) if isinstance(target, list) else last] = value
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"override {override!r}: {dotted} names no setting of this configuration") from error


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
