"""The prompts that a run is told to use: a shipped list, or files of the user's own."""

from pathlib import Path

import agd_core
from agd_core.basics.errors import InputError, naming
from agd_core.basics.safe_files import printable
from storage.sources import read_prompts

_BUILTIN = "builtin:"
_CAPTIONS = Path(agd_core.__file__).resolve().parent / "builtin" / "captions"
_SUFFIX = ".txt"


def load_prompts(place: str, count: int | None, setting: str) -> tuple[str, ...]:
    """Distinct prompts, in the order of the list.

    Args:
        place: `builtin:NAME`, or a place for `storage.sources.read_prompts`.
        count: the first so many; None takes all.
        setting: dotted name of the setting that named the place, for messages, such as `collect.prompts`.

    Raises:
        InputError: there is no such list, it cannot be used, or it holds fewer prompts than `count`.
    """
    if count is not None and count < 1:
        raise InputError(f"{setting}: {count} prompts are asked for; allowed are 1 or more")
    file = _file(place, setting)
    with naming(setting):
        prompts = read_prompts(file, most=count)
    if count is not None and len(prompts) < count:
        raise InputError(f"{setting}: {printable(place)} holds {len(prompts)} different prompts, {count} are asked for")
    return prompts


def _file(place: str, setting: str) -> str:
    if not place.startswith(_BUILTIN):
        return place
    name, known = place.removeprefix(_BUILTIN), sorted(path.stem for path in _CAPTIONS.glob(f"*{_SUFFIX}"))
    if name not in known:
        raise InputError(f"{setting}: unknown built-in captions {name!r}; known: {', '.join(known) or 'none'}")
    return str(_CAPTIONS / f"{name}{_SUFFIX}")
