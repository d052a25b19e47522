"""The judge of the emoji world: its training, its folder in CLIPModel format, and its own accuracy.

The folder is an extractor's: `evaluate.extractor=emoji-judge` takes the one that ships, `evaluate.extractor_weights`
another one.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from agd_core.basics.atomic import replacing_folder, write_json
from agd_core.basics.checkpoint import Checkpoint, load_tensors, system_errors
from agd_core.basics.permutation import Permutation
from agd_core.basics.seeding import derive_seed
from agd_core.evaluation.extractors.emoji_judge import ACCURACY, MOST_NAMES, REFERENCE, WORDS, EmojiJudge
from agd_core.evaluation.metrics import FeatureStatistics, Measured, Reference, Score, Seen
from agd_core.evaluation.metrics.reference import KEPT_FEATURES
from agd_core.evaluation.metrics.retrieval import RETRIEVAL
from agd_core.methods.training_loop import Loop
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.emoji.attribution import write_attribution
from agd_core.pretraining.emoji.captions import PLAIN, all_captions, plain_caption
from agd_core.pretraining.emoji.images import HELD_OUT, TRAIN, EmojiImages
from agd_core.pretraining.emoji.judge import MEAN, STD, JudgeRecipe, build_judge, judge_loop, split_for_judge
from agd_core.pretraining.emoji.packages import may_ship
from agd_core.pretraining.emoji.tokenizer import write_tokenizer
from flows.reference import describe, even_rows
from flows.stages.emoji_source import emoji_source, read_emoji
from flows.stages.network_training import WEIGHTS, trained_network
from flows.workplace import Workplace
from storage.artefacts import Artefact

STAGE = FOLDER = "emoji-judge"


def pretrain_emoji_judge(data: Path | None, place: Workplace) -> dict[str, Any]:
    """Draw the emoji, train their judge and assemble `emoji-judge` in the output folder.

    Args:
        data: folder of the npm packages; None fetches them with npm.
        place: where to work.

    Raises:
        InputError: the packages or what draws them are missing.
        Stopped: after a checkpoint, when asked to; run again to resume.
    """
    source = emoji_source(data, place)
    return train_judge(read_emoji(source.path), source.digest, place, JudgeRecipe())


def train_judge(images: EmojiImages, seen: str, place: Workplace, recipe: JudgeRecipe) -> dict[str, Any]:
    """Train on all pictures but those that the judge is tested on, and those whose licence would be the judge's too.

    Args:
        images: of all styles.
        seen: identity of the images.
        place: where to work.
        recipe: of the training.
    """
    images = images.of_styles(may_ship)
    learnt, tested = split_for_judge(images, recipe)
    folder = place.output / FOLDER
    with TemporaryDirectory() as scratch:
        tokenizer = write_tokenizer(_all_captions(images), Path(scratch))

    def start(checkpoint: Checkpoint) -> tuple[Loop, nn.Module]:
        model = build_judge(tokenizer, recipe).to(place.device)
        ema = Ema(model, recipe.ema_decay)
        return judge_loop(model, ema, tokenizer, learnt, recipe, checkpoint), ema.average

    identity = {"recipe": recipe.identity(), "images": seen, "styles": sorted(set(images.styles))}
    trained = trained_network(STAGE, identity, recipe.seed, start, place)
    with replacing_folder(folder) as partial:
        _save(trained, images, recipe, partial)
        with place.on_device("look at the emoji with their judge"):
            judge = EmojiJudge(partial, place.device)
            scores = judged(judge, tested)
            _reference(judge, images, partial)
        told = {name: score.model_dump(mode="json") for name, score in scores.items()}
        write_json({"images": len(tested), **told}, partial / ACCURACY)
    measured = {f"judge_{name}": score.value for name, score in scores.items()}
    return {"artefacts": {FOLDER: str(folder)}, "measured": {"judge_images": len(tested), **measured}}


def judged(judge: EmojiJudge, images: EmojiImages) -> dict[str, Score]:
    """Retrieval of the names and styles of pictures, in the words of their plain captions."""
    asked = [plain_caption(name, style) for name, style in zip(images.names, images.styles, strict=True)]
    ranks = judge.ranks(judge.extract(images.pixels), asked)
    nothing = torch.zeros(len(images), 0, 0, 0)
    seen = Seen(images.pixels, nothing, torch.zeros(len(images), dtype=torch.long), ranks=ranks)
    return dict(RETRIEVAL.scores(Measured(seen, None, None), RETRIEVAL.settings()))


def candidates(images: EmojiImages, seed: int) -> list[str]:
    """At most a thousand names to choose among: the best-known ones, then others by chance."""
    known = sorted({name for name, common in zip(images.names, images.common.tolist(), strict=True) if common})
    others = sorted(set(images.names) - set(known))
    room = min(MOST_NAMES - len(known), len(others))
    if room <= 0:
        return known[:MOST_NAMES]
    order = Permutation(len(others), derive_seed(seed, "candidates")).forward(np.arange(room))
    return sorted([*known, *(others[number] for number in order)])


def _all_captions(images: EmojiImages) -> list[str]:
    pairs = zip(images.names, images.styles, strict=True)
    return [caption for name, style in pairs for caption in all_captions(name, style)]


def _save(trained: Artefact, images: EmojiImages, recipe: JudgeRecipe, folder: Path) -> None:
    """The weights in float16 in transformers' format, the tokenizer, and what it says of itself."""
    model = build_judge(write_tokenizer(_all_captions(images), folder), recipe)
    model.load_state_dict(load_tensors(trained.path / WEIGHTS)[0])
    with system_errors():
        model.half().save_pretrained(folder)
    _describe(images, recipe, folder)
    write_attribution(folder, set(images.styles))


def _describe(images: EmojiImages, recipe: JudgeRecipe, folder: Path) -> None:
    """Write what it tells apart and how pictures become its input."""
    names, styles = candidates(images, recipe.seed), sorted(set(images.styles))
    write_json({"caption": PLAIN, "names": names, "styles": styles}, folder / WORDS)
    colours = {"image_mean": list(MEAN), "image_std": list(STD)}
    write_json({"image_processor_type": "CLIPImageProcessor", **colours}, folder / "preprocessor_config.json")


def _reference(judge: EmojiJudge, images: EmojiImages, folder: Path) -> None:
    """Statistics of the well-known pictures of the base styles, those held out from the base model among them."""
    real = images.of(TRAIN, HELD_OUT, common_only=True)
    features = judge.extract(real.pixels).features
    kept = features[even_rows(len(features), KEPT_FEATURES)].half()
    text = describe(f"{len(features):,} emoji of the base styles", judge)
    Reference(FeatureStatistics.of(features), kept, text).save(folder / REFERENCE)
