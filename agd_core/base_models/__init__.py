"""The model that is distilled: any diffusers folder whose class of networks is known, see `agd_core.backbones`."""

from agd_core.base_models.base import BaseModel
from agd_core.base_models.config import BaseModelConfig

__all__ = ["BaseModel", "BaseModelConfig"]
