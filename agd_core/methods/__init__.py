"""Methods of folding guidance into one network pass. A new one is one file here plus one line in `AnyMethodConfig`."""

from typing import Annotated

from pydantic import Field

from agd_core.methods.agd.cross_attention import CrossAttentionConfig
from agd_core.methods.agd.modulated_mlp import ModulatedMlpConfig
from agd_core.methods.agd.offset import OffsetConfig
from agd_core.methods.base import MethodConfig, Pairs, Trained
from agd_core.methods.dice import DiceConfig
from agd_core.methods.finetune import FinetuneConfig
from agd_core.methods.gated_lora import GatedLoraConfig
from agd_core.methods.guide.full import FullGuideConfig
from agd_core.methods.guide.tiny import TinyGuideConfig
from agd_core.methods.lora import LoraConfig

AnyMethodConfig = Annotated[
    CrossAttentionConfig
    | OffsetConfig
    | ModulatedMlpConfig
    | LoraConfig
    | GatedLoraConfig
    | FinetuneConfig
    | DiceConfig
    | FullGuideConfig
    | TinyGuideConfig,
    Field(discriminator="kind"),
]

__all__ = [
    "AnyMethodConfig",
    "CrossAttentionConfig",
    "DiceConfig",
    "FinetuneConfig",
    "FullGuideConfig",
    "GatedLoraConfig",
    "LoraConfig",
    "MethodConfig",
    "ModulatedMlpConfig",
    "OffsetConfig",
    "Pairs",
    "TinyGuideConfig",
    "Trained",
]
