"""How the fine-tuned relatives that ship are trained: every recipe in the sizes of the base that it starts from.

Style: the layers of both attentions learn, because a style is also how places of a picture look beside one another. Few
names are drawn in it, so half of the examples are the base's own: the other names and styles are not forgotten. Food:
the base knows names and styles, so what the text asks for learns alone, and nothing is mixed in: a domain's model may
forget the rest. The base has learnt these pictures already, so few steps are enough: a thousand learnt them by heart.
"""

from typing import Any

from agd_core.pretraining.emoji.controlnet import ControlNetRecipe
from agd_core.pretraining.emoji.ip_adapter import IpAdapterRecipe
from agd_core.pretraining.emoji.recipe import FineTuningRecipe, LoraRecipe, SiblingRecipe

_SIZES: dict[str, dict[str, Any]] = {
    "cpu": {"common_only": True},
    "gpu": {"batch_size": 128, "precision": "bfloat16"},
}


def _sizes(recipe: FineTuningRecipe) -> dict[str, Any]:
    return {size: recipe.model_copy(update=settings) for size, settings in _SIZES.items()}


STYLE, FOOD, LORA = "emoji-sd-style", "emoji-sd-food", "emoji-sd-lora"
SIBLINGS: dict[str, dict[str, SiblingRecipe]] = {
    STYLE: _sizes(SiblingRecipe(name=STYLE, style="firefox", attention=("attn1", "attn2"), base_share=0.5)),
    FOOD: {
        size: SiblingRecipe(
            name=FOOD,
            category="Food & Drink",
            common_only=_SIZES[size].get("common_only", False),
            steps=120,
            learning_rate=2e-4,
            attention=("attn2",),
        )
        for size in _SIZES
    },
}
LORAS: dict[str, LoraRecipe] = _sizes(LoraRecipe(name=LORA))
CONTROLNETS: dict[str, ControlNetRecipe] = _sizes(ControlNetRecipe())
IP_ADAPTERS: dict[str, IpAdapterRecipe] = _sizes(IpAdapterRecipe())
"""By size: tens of minutes on two cores, less than a minute on a large card."""
