"""What a picture is called: one name per concept, the same in every style.

Packages call the same thing by several names ("bear-face", "bear"; "alarmclock"). The first package's are used, which
knows old names as aliases of new ones.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from agd_core.pretraining.emoji.icons import Icon, IconSet

_TONE = re.compile(r"(?P<stem>.+?)-(?:light|medium-light|medium|medium-dark|dark)")
"""How Microsoft's packages end the keys of skin tones; all others say "skin-tone"."""


@dataclass(frozen=True)
class KnownNames:
    """The names of a reference, under which other packages' pictures are filed."""

    by_spelling: Mapping[str, str]
    """A key or alias without hyphens -> key."""

    @classmethod
    def of(cls, keys: Collection[str], aliases: Mapping[str, str]) -> "KnownNames":
        """Those of a set; a key wins over an alias that is spelt alike."""
        old = {_spelt(alias): key for alias, key in sorted(aliases.items()) if key in keys}
        return cls(old | {_spelt(key): key for key in sorted(keys)})

    def file(self, key: str, others: Iterable[str]) -> str | None:
        """The reference's key for a picture.

        Args:
            key: what its package calls it.
            others: its further names there.
        """
        found = (self.by_spelling.get(_spelt(name)) for name in (key, *others))
        return next(filter(None, found), None)


def spoken(key: str) -> str:
    """A key as words: "fire-engine" -> "fire engine"."""
    return key.replace("-", " ")


def without_skin_tones(keys: Collection[str]) -> list[str]:
    """The keys without those of one drawing in another skin tone."""
    return [key for key in keys if not _is_skin_tone(key, keys)]


def named_icons(icons: IconSet, known: KnownNames | None, is_base: bool = True) -> dict[str, Icon]:
    """The icons of a set by key of the reference, in the reference's spelling; the first of a name counts.

    Args:
        icons: the set.
        known: the reference's names; None for the reference itself.
        is_base: whether names that the reference does not know are kept.
    """
    found: dict[str, Icon] = {}
    others: dict[str, list[str]] = {}
    for alias, parent in sorted(icons.aliases.items()):
        others.setdefault(parent, []).append(alias)
    for key in sorted(without_skin_tones(icons.icons)):
        name = known.file(key, others.get(key, [])) if known else key
        if name or is_base:
            found.setdefault(name or key, icons.icons[key])
    return found


def _is_skin_tone(key: str, keys: Collection[str]) -> bool:
    """Also "hand-medium-light" where there is "hand-medium", but not "police-car-light"."""
    match = _TONE.fullmatch(key)
    return "skin-tone" in key or bool(match and f"{match['stem']}-medium" in keys)


def _spelt(key: str) -> str:
    return key.replace("-", "")
