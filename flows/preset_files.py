"""Presets as they are written down: their names, and the plain data that a file with `key=value` overrides holds."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import parse_yaml, read_yaml

_HERE = Path(__file__).resolve().parent
_FOLDERS = (_HERE / "presets", _HERE.parent / "deployments" / "presets")


def preset_names() -> list[str]:
    """Names of the shipped presets."""
    return sorted(path.stem for folder in _FOLDERS for path in folder.glob("*.yaml"))


def read_preset(preset: str, overrides: Sequence[str], sections: Mapping[str, Any]) -> dict[str, Any]:
    """A preset or a file as plain data with changes, see `flows.presets.load_config`.

    Raises:
        InputError: unknown preset, unreadable file, or an override that names no place in it; the message names it.
    """
    path = _find(preset)
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise InputError(f"configuration file {path} must hold sections such as collect: and train:")
    for name, section in sections.items():
        raw[name] = {**(raw.get(name) or {}), **section} if isinstance(section, Mapping) else section
    for override in overrides:
        _apply(raw, override)
    return raw


def repeat_command(preset: str, overrides: Sequence[str], output: Path, verb: str = "distill") -> str:
    """What a person types to repeat a whole run."""
    settings = [part for override in overrides for part in ("--set", override)]
    return shlex.join(["agd", verb, preset, *settings, "--output", str(output)])


def _find(preset: str) -> Path:
    path = Path(preset)
    if path.suffix in (".yaml", ".yml"):
        if not path.exists():
            raise InputError(f"configuration file {preset} does not exist")
        return path
    names = preset_names()
    for folder in _FOLDERS:
        if preset in names and (named := folder / f"{preset}.yaml").is_file():
            return named
    raise InputError(f"unknown preset {preset!r}; presets: {', '.join(names)}; or give a .yaml file")


def _apply(raw: dict[str, Any], override: str) -> None:
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise InputError(f"override {override!r} is not of the form section.setting=value")
    value = parse_yaml(text, f"override {override!r}: the value")
    *parents, last = dotted.split(".")
    target: Any = raw
    try:
        for name in parents:
            target = target[int(name)] if isinstance(target, list) else target.setdefault(name, {})
        target[int(last) if isinstance(target, list) else last] = value
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"override {override!r}: {dotted} names no setting of this configuration") from error
