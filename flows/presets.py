"""From a preset's name or a YAML file, and `key=value` overrides, to a checked configuration."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from agd_core.basics.config_problems import first_problem
from agd_core.basics.errors import InputError
from flows.config import PipelineConfig
from flows.preset_files import read_preset


def load_config(
    preset: str, overrides: Sequence[str] = (), sections: Mapping[str, Any] = MappingProxyType({})
) -> PipelineConfig:
    """Read a preset or a file and change settings of it.

    Args:
        preset: its name, or a .yaml file.
        overrides: such as `train.steps=500` or `methods.0.hidden_width=32`, applied last.
        sections: settings by section; one that is no mapping replaces the preset's.

    Raises:
        InputError: unknown preset, unreadable file, unknown setting or bad value; the message names it.
    """
    return parse_config(read_preset(preset, overrides, sections))


def parse_config(raw: Any) -> PipelineConfig:
    """Check plain data against the configuration.

    Raises:
        InputError: the first problem, with the dotted name of the setting.
    """
    try:
        return PipelineConfig.model_validate(raw)
    except ValidationError as error:
        raise InputError(first_problem(error, PipelineConfig)) from None
