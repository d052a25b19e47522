"""A toy of everything that the emoji world's benchmarks read: a stock model, a judge and drawn pictures."""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from flows.stages.pretrain_emoji import train_emoji
from flows.stages.pretrain_emoji_judge import train_judge
from flows.workplace import Workplace
from storage.sources.parquet import IMAGE, SUFFIX
from storage.sources.parquet_writing import write_parquet
from tests.emoji_pictures import emoji_pictures, tiny_judge_recipe, tiny_recipe


@dataclass(frozen=True)
class Folders:
    """As `agd pretrain` leaves them."""

    model: Path
    judge: Path
    pictures: Path


def toy_folders(root, pictures=None):
    """Three steps of narrow networks on eight squares, or on these pictures."""
    pictures, place = pictures or emoji_pictures(), Workplace(root)
    train_emoji(pictures, "squares", place, tiny_recipe())
    train_judge(pictures, "squares", place, tiny_judge_recipe(steps=3, batch_size=4, held_out=2))
    write_parquet(_columns(pictures), root / "pictures" / f"all{SUFFIX}")
    return Folders(root / "emoji-sd", root / "emoji-judge", root / "pictures")


def _columns(pictures):
    texts = {"name": pictures.names, "style": pictures.styles, "split": pictures.splits}
    known = {"category": pictures.categories, "common": pictures.common.tolist()}
    return {IMAGE: [_png(pixels) for pixels in pictures.pixels], **texts, **known}


def _png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "PNG")
    return buffer.getvalue()
