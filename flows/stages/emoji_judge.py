"""Stage `emoji-judge`: the judge's training, its folder in CLIPModel format, and its own accuracy.

The folder is an extractor's: `evaluate.extractor=emoji-judge`, `evaluate.extractor_weights=FOLDER`.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import CLIPModel, CLIPTokenizer

from agd_core.basics.atomic import write_json
from agd_core.basics.checkpoint import Checkpoint, system_errors
from agd_core.basics.permutation import Permutation
from agd_core.basics.seeding import derive_seed
from agd_core.evaluation.extractors.emoji_judge import MOST_NAMES, REFERENCE, WORDS, EmojiJudge
from agd_core.evaluation.metrics import FeatureStatistics, Measured, Reference, Score, Seen
from agd_core.evaluation.metrics.reference import KEPT_FEATURES
from agd_core.evaluation.metrics.retrieval import RETRIEVAL
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.emoji.captions import PLAIN, all_captions, plain_caption
from agd_core.pretraining.emoji.images import HELD_OUT, TRAIN, EmojiImages
from agd_core.pretraining.emoji.judge import MEAN, STD, JudgeRecipe, build_judge, judge_loop, split_for_judge
from agd_core.pretraining.emoji.tokenizer import write_tokenizer
from flows.reference import describe, even_rows
from flows.stages.emoji_source import read_emoji
from flows.workplace import Workplace
from storage.artefacts import Artefact

STAGE, VERSION = "emoji-judge", 1
FOLDER, LOSSES, ACCURACY = "emoji-judge", "losses.json", "accuracy.json"


def emoji_judge(source: Artefact, place: Workplace, recipe: JudgeRecipe | None = None) -> Artefact:
    """Train the judge on all pictures of a source but those that it is tested on.

    Args:
        source: what `flows.stages.emoji_source.emoji_source` gives.
        place: where to work.
        recipe: how; the shipped one by default.

    Returns:
        The artefact; `FOLDER` in it is the judge's, `ACCURACY` says how well it does on pictures that it never saw.

    Raises:
        Stopped: after a checkpoint, when asked to; run again to resume.
    """
    recipe = recipe or JudgeRecipe()
    identity = {"version": VERSION, "source": source.digest, "recipe": recipe.identity()}

    def work(artefact: Artefact) -> None:
        images = read_emoji(source.path)
        learnt, tested = split_for_judge(images, recipe)
        tokenizer = write_tokenizer(_all_captions(images), artefact.path / FOLDER)
        losses = _trained(artefact, learnt, tokenizer, recipe, place)
        _describe(images, recipe, artefact.path / FOLDER)
        with place.on_device("look at the emoji with their judge"):
            judge = EmojiJudge(artefact.path / FOLDER, place.device)
            scores = judged(judge, tested)
            _reference(judge, images, artefact.path / FOLDER)
        write_json(losses, artefact.path / LOSSES)
        told = {name: score.model_dump(mode="json") for name, score in scores.items()}
        write_json({"images": len(tested), **told}, artefact.path / ACCURACY)

    return place.produce(STAGE, identity, work)


def judged(judge: EmojiJudge, images: EmojiImages) -> dict[str, Score]:
    """Retrieval of the names and styles of pictures, in the words of their plain captions."""
    asked = [plain_caption(name, style) for name, style in zip(images.names, images.styles, strict=True)]
    ranks = judge.ranks(judge.extract(images.pixels), asked)
    nothing = torch.zeros(len(images), 0, 0, 0)
    seen = Seen(images.pixels, nothing, torch.zeros(len(images), dtype=torch.long), ranks=ranks)
    return dict(RETRIEVAL.scores(Measured(seen, None, None), RETRIEVAL.settings()))


def _trained(
    artefact: Artefact, learnt: EmojiImages, tokenizer: CLIPTokenizer, recipe: JudgeRecipe, place: Workplace
) -> list[float]:
    """Train to the end and save the average of the weights, in float16."""
    place.announce(f"{STAGE}: training on {len(learnt):,} pictures")
    checkpoint = Checkpoint(artefact.path / "checkpoint.safetensors", artefact.key)
    with place.on_device("train the judge"):
        torch.manual_seed(derive_seed(recipe.seed, STAGE))
        model = build_judge(tokenizer, recipe)
        ema = Ema(model, recipe.ema_decay)
        loop = judge_loop(model, ema, tokenizer, learnt, recipe, checkpoint)
        losses = loop.run(place.progress(STAGE), place.should_stop)
    _save(ema.average, artefact.path / FOLDER)
    checkpoint.remove()
    return losses


def _save(model: CLIPModel, folder: Path) -> None:
    with system_errors():
        model.half().save_pretrained(folder)


def _all_captions(images: EmojiImages) -> list[str]:
    pairs = zip(images.names, images.styles, strict=True)
    return [caption for name, style in pairs for caption in all_captions(name, style)]


def _describe(images: EmojiImages, recipe: JudgeRecipe, folder: Path) -> None:
    """Write what it tells apart and how pictures become its input."""
    words: dict[str, object] = {
        "caption": PLAIN,
        "names": candidates(images, recipe.seed),
        "styles": sorted(set(images.styles)),
    }
    write_json(words, folder / WORDS)
    colours = {"image_mean": list(MEAN), "image_std": list(STD)}
    write_json({"image_processor_type": "CLIPImageProcessor", **colours}, folder / "preprocessor_config.json")


def candidates(images: EmojiImages, seed: int) -> list[str]:
    """At most a thousand names to choose among: the best-known ones, then others by chance."""
    known = sorted({name for name, common in zip(images.names, images.common.tolist(), strict=True) if common})
    others = sorted(set(images.names) - set(known))
    room = min(MOST_NAMES - len(known), len(others))
    if room <= 0:
        return known[:MOST_NAMES]
    order = Permutation(len(others), derive_seed(seed, "candidates")).forward(np.arange(room))
    return sorted([*known, *(others[number] for number in order)])


def _reference(judge: EmojiJudge, images: EmojiImages, folder: Path) -> None:
    """Statistics of the well-known pictures of the base styles, those held out from the base model among them."""
    real = images.of(TRAIN, HELD_OUT, common_only=True)
    features = judge.extract(real.pixels).features
    kept = features[even_rows(len(features), KEPT_FEATURES)].half()
    text = describe(f"{len(features):,} emoji of the base styles", judge)
    Reference(FeatureStatistics.of(features), kept, text).save(folder / REFERENCE)
