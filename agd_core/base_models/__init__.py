"""Base-model families. A new family is one file here plus one line in `BaseModelConfig`."""

from agd_core.base_models.base import AdapterSite, BaseModel
from agd_core.base_models.dit import DiTConfig

BaseModelConfig = DiTConfig

__all__ = ["AdapterSite", "BaseModel", "BaseModelConfig", "DiTConfig"]
