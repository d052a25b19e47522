"""What a run publishes into its output folder: reports with their numbers, and a folder per adapter.

    OUTPUT/report.html, metrics.json, sweep.html, sweep.json, shootout.html, shootout.json
    OUTPUT/adapters/NAME/   goes anywhere by itself, with checksums of its own
    OUTPUT/checksums.json   everything above

Imports nothing heavy: `agd verify` and the check before a run need it.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from agd_core.basics.atomic import write_bytes
from agd_core.basics.checksums import CHECKSUMS, Sums, as_text, is_ours, problems, read_sums, sums_of
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import MOST_JSON_BYTES, confined, printable, read_bytes
from storage.artefacts import ARTEFACTS, MANIFEST
from storage.walking import walk

METRICS_FILE = "metrics.json"
REPORT_FILES = ("report.html", METRICS_FILE, "sweep.html", "sweep.json", "shootout.html", "shootout.json")
ADAPTERS = "adapters"
_WEIGHTS, _CARD = "adapter.safetensors", "adapter.json"
ADAPTER_FILES = (_WEIGHTS, _CARD, "base_sketch.safetensors", "README.md", METRICS_FILE)
"""What may lie in an adapter's folder; the numbers only once they are measured."""
_REPORT_MARKS = {
    ".html": (b"<title>Adapter Guidance Distillation of ",),
    ".json": (b'"rows"', b'"protocol"'),
}
"""What stands in every report and its numbers, also in those of older versions."""
_CARD_MARKS = (b'"format_version"', b'"base_fingerprint"')
_NO_SUMS = "has no checksums (published by an older version, or interrupted); run its command again to publish it again"


def foreign_files(output: Path, reports: Iterable[str] = REPORT_FILES, adapters: Iterable[str] = ()) -> list[Path]:
    """Files that a run would replace and that no run has written.

    Args:
        output: the output folder; need not exist.
        reports: names of the reports and numbers that the run publishes.
        adapters: names of the adapters that the run publishes.

    Raises:
        InputError: as `adapter_folder`.
    """
    listed = _read_listed(output)
    found = [path for name in reports if name not in listed and _is_foreign(path := output / name, _marks(path))]
    if os.path.lexists(output / CHECKSUMS) and not is_ours(output / CHECKSUMS):
        found.append(output / CHECKSUMS)
    return found + [path for name in adapters for path in _strangers(adapter_folder(output, name))]


def refuse_foreign_files(output: Path, reports: Iterable[str] = REPORT_FILES, adapters: Iterable[str] = ()) -> None:
    """Refuse to replace somebody else's files, before any work; arguments as in `foreign_files`.

    Raises:
        InputError: names the first of them.
    """
    if found := foreign_files(output, reports, adapters):
        raise InputError(
            f"{printable(found[0])} was written by no run and would be replaced; choose another --output, or move it "
            "away"
        )


def _strangers(folder: Path) -> list[Path]:
    """In a folder that was never an adapter's, the files that publishing would replace."""
    if os.path.lexists(folder) and not folder.is_dir():
        return [folder]
    if (folder / CHECKSUMS).is_file() and is_ours(folder / CHECKSUMS):
        return []
    if (folder / _CARD).is_file() and not _is_foreign(folder / _CARD, _CARD_MARKS):
        return []
    return [path for name in (*ADAPTER_FILES, CHECKSUMS) if os.path.lexists(path := folder / name)]


def _marks(report: Path) -> Sequence[bytes]:
    return _REPORT_MARKS[report.suffix]


def _is_foreign(path: Path, marks: Sequence[bytes]) -> bool:
    if not os.path.lexists(path):
        return False
    try:
        data = read_bytes(confined(path.parent, path.name), MOST_JSON_BYTES)
    except InputError:
        return True
    return not all(mark in data for mark in marks)


def publish_file(data: bytes, path: Path) -> None:
    """Replace a published file, unless it holds these bytes already: a finished folder may be read-only."""
    with suppress(InputError):
        if read_bytes(confined(path.parent, path.name), len(data)) == data:
            return
    write_bytes(data, path)


def adapter_folder(output: Path, name: str) -> Path:
    """Where an adapter is published.

    Raises:
        InputError: a link on the way leads out of the output folder, which may come from anybody.
    """
    return confined(output, f"{ADAPTERS}/{name}")


def seal_adapter(folder: Path) -> None:
    """Write the checksums of an adapter's folder, last of all."""
    there = [name for name in ADAPTER_FILES if (folder / name).is_file()]
    publish_file(as_text(sums_of(folder, there)), folder / CHECKSUMS)


def note_published(output: Path, names: Iterable[str]) -> None:
    """Enter files into the output folder's checksums, beside what earlier runs published and what still is there.

    Args:
        output: the output folder.
        names: of the files that were just written, relative to it.
    """
    with _alone(output):
        earlier = {name: entry for name, entry in _read_listed(output).items() if os.path.lexists(output / name)}
        publish_file(as_text({**earlier, **sums_of(output, names)}), output / CHECKSUMS)


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """One process at a time; where the file system has no locks, as many as there are."""
    descriptor = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def published_folders(folder: Path) -> list[Path]:
    """Every output folder and every adapter's folder at or below a folder; links are not followed."""
    marks = [Path(entry.path) for entry in walk(folder) if entry.name in (ARTEFACTS, CHECKSUMS)]
    outputs = {path.parent for path in marks if path.name == ARTEFACTS} | {folder}
    sealed = {path.parent for path in marks if path.name == CHECKSUMS}
    adapters = {path for output in outputs for path in _adapters_of(output)}
    return sorted(path for path in outputs | sealed | adapters if _publishes(path))


def published_problems(folder: Path) -> list[str]:
    """What is wrong in one of `published_folders`: a line per file that is missing, altered or has no checksum."""
    expected = ADAPTER_FILES if is_adapter(folder) else REPORT_FILES
    if os.path.lexists(folder / CHECKSUMS):
        return problems(folder, expected)
    return [f"{printable(folder / name)}: {_NO_SUMS}" for name in expected if os.path.lexists(folder / name)]


def is_adapter(folder: Path) -> bool:
    """Whether a folder is an adapter's, whole or not."""
    return any(os.path.lexists(folder / name) for name in (_CARD, _WEIGHTS))


def _publishes(folder: Path) -> bool:
    if os.path.lexists(folder / CHECKSUMS):
        return True
    if os.path.lexists(folder / MANIFEST) or folder.resolve().parent.name == ARTEFACTS:
        return False  # an artefact, which may hold the same files
    reports = (path for name in REPORT_FILES if os.path.lexists(path := folder / name))
    return is_adapter(folder) or any(not _is_foreign(path, _marks(path)) for path in reports)


def _adapters_of(output: Path) -> list[Path]:
    with suppress(InputError, OSError):
        return [path for path in confined(output, ADAPTERS).iterdir() if not path.is_symlink() and is_adapter(path)]
    return []


def _read_listed(output: Path) -> Sums:
    """What the output folder's checksums list; nothing where they are missing or damaged."""
    with suppress(InputError):
        return read_sums(output) or {}
    return {}
