"""Adapter kinds. A new kind is one file here plus one line in `AnyAdapterConfig`."""

from typing import Annotated

from pydantic import Field

from agd_core.adapters.attach import AdapterCall, AttachedAdapter
from agd_core.adapters.base import Adapter, AdapterConfig, AdapterInputs, AdapterLayer
from agd_core.adapters.cross_attention import CrossAttentionConfig
from agd_core.adapters.modulated_mlp import ModulatedMlpConfig
from agd_core.adapters.offset import OffsetConfig

AnyAdapterConfig = Annotated[CrossAttentionConfig | OffsetConfig | ModulatedMlpConfig, Field(discriminator="kind")]

__all__ = [
    "Adapter",
    "AdapterCall",
    "AdapterConfig",
    "AdapterInputs",
    "AdapterLayer",
    "AnyAdapterConfig",
    "AttachedAdapter",
    "CrossAttentionConfig",
    "ModulatedMlpConfig",
    "OffsetConfig",
]
