"""A judge's folder: the tiny CLIP with RANDOM weights, and what it tells apart."""

import json

from tests.agd_core.evaluation.extractors.tiny_clip import write_tiny_clip

# the tiny tokenizer knows letters only, and reads up to the first character that it does not know
NAMES, STYLES = ["cat", "fire engine", "red heart"], ["flat", "noto"]
WORDS = {"caption": "{name} in {style} style", "names": NAMES, "styles": STYLES}


def write_tiny_judge(folder, **changes):
    write_tiny_clip(folder)
    (folder / "words.json").write_text(json.dumps(WORDS | changes))
    return folder
