"""Which picture is drawn for which row: all packages' icons, named, chosen and split."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agd_core.pretraining.emoji.choice import HELD_OUT as HELD_OUT_PAIRS
from agd_core.pretraining.emoji.choice import common_keys, held_out_pairs
from agd_core.pretraining.emoji.icons import Icon, IconSet, read_icons
from agd_core.pretraining.emoji.images import HELD_OUT, SIBLING, TRAIN
from agd_core.pretraining.emoji.names import KnownNames, named_icons, without_skin_tones
from agd_core.pretraining.emoji.packages import Package


@dataclass(frozen=True)
class EmojiPlan:
    """What is drawn in every style, and what for."""

    icons: Mapping[Package, Mapping[str, Icon]]
    """By package and key."""
    categories: Mapping[str, str]
    """By key, as the first package has it."""
    common: frozenset[str]
    """Keys of the best-known concepts."""
    held_out: frozenset[tuple[str, str]]
    """Pairs of key and style."""

    def split(self, package: Package, key: str) -> str:
        """What a picture is for."""
        if not package.is_base:
            return SIBLING
        return HELD_OUT if (key, package.style) in self.held_out else TRAIN


def plan_emoji(folders: Mapping[Package, Path], seed: int = 0, held_out: int = HELD_OUT_PAIRS) -> EmojiPlan:
    """Read the packages, the first of which names all others' pictures, and choose.

    Args:
        folders: the packages' folders, base styles first.
        seed: of the held-out pairs.
        held_out: how many pairs are held out.

    Raises:
        InputError: a package cannot be read, or there are too few concepts.
    """
    sets = {package: read_icons(folder) for package, folder in folders.items()}
    named = _named(sets)
    categories = next(iter(sets.values())).categories
    base = {package.style: list(icons) for package, icons in named.items() if package.is_base}
    common = common_keys(base, categories)
    pairs = [(key, style) for style, keys in base.items() for key in keys if key in common]
    return EmojiPlan(named, categories, common, held_out_pairs(pairs, held_out, seed))


def _named(sets: Mapping[Package, IconSet]) -> dict[Package, dict[str, Icon]]:
    """Every package's icons by key; siblings get the concepts that the base has names for."""
    first = next(iter(sets.values()))
    reference = KnownNames.of(without_skin_tones(first.icons), first.aliases)
    base = {
        package: named_icons(icons, None if icons is first else reference)
        for package, icons in sets.items()
        if package.is_base
    }
    known = KnownNames.of({key for icons in base.values() for key in icons}, first.aliases)
    siblings = {package: icons for package, icons in sets.items() if not package.is_base}
    return base | {package: named_icons(icons, known, is_base=False) for package, icons in siblings.items()}
