"""Stage `emoji`: the packages' drawings as Parquet files of pictures with captions, one file per style.

Resumes by style. A style's file is a source of images and prompts like any other (`storage.sources`).
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agd_core.basics.atomic import write_json
from agd_core.basics.digest import file_digest
from agd_core.basics.errors import InputError
from agd_core.basics.progress import Stopped
from agd_core.pretraining.emoji.captions import plain_caption
from agd_core.pretraining.emoji.choice import HELD_OUT
from agd_core.pretraining.emoji.fetching import fetch_packages
from agd_core.pretraining.emoji.images import EmojiImages
from agd_core.pretraining.emoji.names import spoken
from agd_core.pretraining.emoji.packages import SCOPE, Package, package_folders
from agd_core.pretraining.emoji.plan import EmojiPlan, plan_emoji
from agd_core.pretraining.emoji.rendering import SIDE, render
from flows.workplace import Workplace
from storage.artefacts import Artefact
from storage.sources import open_images
from storage.sources.parquet import IMAGE, SUFFIX, parquet_column
from storage.sources.parquet_writing import write_parquet

STAGE, VERSION = "emoji", 1
SOURCES = "sources.json"
"""Which packages the pictures come from, with licences and authors."""
_RENDERER = "resvg-py"
_READ_ROWS = 1000
_POLL_PICTURES = 20


def emoji_source(data: Path | None, place: Workplace, seed: int = 0, held_out: int = HELD_OUT) -> Artefact:
    """The pictures of all packages, drawn once.

    Args:
        data: folder with the packages; None fetches them with npm into the output folder.
        place: where to work.
        seed: of the choice of held-out pairs.
        held_out: how many pairs are held out.

    Raises:
        InputError: a package is missing, broken or under another licence; npm or resvg is missing.
        Stopped: between two pictures, when asked to; run again to go on with the style that was begun.
    """
    if data is None:
        data = place.output / "packages"
        fetch_packages(data, place.announce)
    folders = package_folders(data)
    identity = {
        "version": VERSION,
        "packages": {package.name: file_digest(folder / "icons.json") for package, folder in folders.items()},
        "renderer": _renderer(),
        "side": SIDE,
        "seed": seed,
        "held_out": held_out,
    }
    return place.produce(STAGE, identity, lambda artefact: _draw_all(artefact, folders, place, seed, held_out))


def read_emoji(path: Path) -> EmojiImages:
    """All pictures of a folder that `emoji_source` filled, sorted by style and name.

    Raises:
        InputError: a file is missing or broken.
    """
    place = str(path)
    batches = list(open_images(place).batches(_READ_ROWS))
    texts = {name: tuple(parquet_column(place, name)) for name in ("name", "style", "split", "category")}
    common = torch.tensor(list(parquet_column(place, "common")), dtype=torch.bool)
    pixels = torch.from_numpy(np.concatenate(batches))
    return EmojiImages(pixels, texts["name"], texts["style"], texts["split"], texts["category"], common)


def _renderer() -> str:
    try:
        return f"{_RENDERER} {version(_RENDERER)}"
    except PackageNotFoundError as error:
        raise InputError("drawing emoji needs resvg: pip install 'agd-pipeline[emoji]'") from error


def _draw_all(artefact: Artefact, folders: Mapping[Package, Path], place: Workplace, seed: int, held_out: int) -> None:
    plan = plan_emoji(folders, seed, held_out)
    for package in folders:
        path = artefact.path / f"{package.style}{SUFFIX}"
        if not path.exists():
            place.announce(f"emoji: drawing {len(plan.icons[package]):,} of {package.name}")
            write_parquet(_columns(plan, package, place), path)
    write_json([_described(package, folder) for package, folder in folders.items()], artefact.path / SOURCES)


def _columns(plan: EmojiPlan, package: Package, place: Workplace) -> dict[str, list[Any]]:
    """The rows of one style, by name."""
    keys, style = sorted(plan.icons[package]), package.style
    return {
        IMAGE: _pictures(plan, package, keys, place),
        "caption": [plain_caption(spoken(key), style) for key in keys],
        "name": [spoken(key) for key in keys],
        "style": [style] * len(keys),
        "split": [plan.split(package, key) for key in keys],
        "category": [plan.categories.get(key, "") for key in keys],
        "common": [key in plan.common for key in keys],
    }


def _pictures(plan: EmojiPlan, package: Package, keys: list[str], place: Workplace) -> list[bytes]:
    progress, pictures = place.progress(f"draw {package.name}"), []
    for done, key in enumerate(keys):
        if done % _POLL_PICTURES == 0 and place.should_stop():
            raise Stopped(f"stopped while drawing {package.name}; run the same command again to resume")
        pictures.append(render(f"{package.name}: {key}", plan.icons[package][key]))
        progress(done + 1, len(keys))
    return pictures


def _described(package: Package, folder: Path) -> dict[str, str]:
    return {
        "package": f"{SCOPE}/{package.name}",
        "licence": package.licence,
        "author": package.author,
        "page": package.page,
        "style": package.style,
        "use": "base" if package.is_base else "sibling",
        "icons_sha256": file_digest(folder / "icons.json"),
    }
