"""What ships was trained by the recipe in the code, and says so beside its weights."""

import json

import pytest

from agd_core.builtin.shipped import BUILTIN_FOLDER
from agd_core.pretraining.emoji.relative_recipes import CONTROLNETS, IP_ADAPTERS, LORAS, SIBLINGS, STYLE

SHIPPED = {
    "difference.json": SIBLINGS[STYLE]["gpu"],
    "lora.json": LORAS["gpu"],
    "controlnet.json": CONTROLNETS["gpu"],
    "ip-adapter.json": IP_ADAPTERS["gpu"],
}


@pytest.mark.parametrize("file", SHIPPED)
def test_the_recipe_beside_shipped_weights_is_the_codes(file):
    recipe = SHIPPED[file]
    said = json.loads((BUILTIN_FOLDER / recipe.name / file).read_text(encoding="utf-8"))
    assert said["base"] == "emoji-sd"
    assert said["recipe"] == json.loads(json.dumps(recipe.identity()))
