"""Base-model families. A new family is one file here plus one line in `BaseModelConfig`."""

from typing import Annotated

from pydantic import Field

from agd_core.base_models.base import BaseModel
from agd_core.base_models.dit import DiTConfig
from agd_core.base_models.sd import SDConfig
from agd_core.base_models.sd3 import SD3Config
from agd_core.base_models.sdxl import SDXLConfig

BaseModelConfig = Annotated[DiTConfig | SDConfig | SDXLConfig | SD3Config, Field(discriminator="kind")]

__all__ = ["BaseModel", "BaseModelConfig", "DiTConfig", "SD3Config", "SDConfig", "SDXLConfig"]
