"""Content-addressed stage results: a folder named by its key, finished once its manifest is there."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agd_core.atomic import write_bytes
from agd_core.digest import canonical_json, digest, file_digest

MANIFEST = "manifest.json"
FOLDER = "artefacts"
"""Name of the folder that holds an output folder's artefacts."""
SELF_CHECKED = "store"
"""A folder of this name inside an artefact has checksums of its own; the manifest leaves it out."""
FORMAT_VERSION = 2
_KEY_DIGITS = 16
_MANIFEST_KEYS = {"format_version", "stage", "key", "identity", "files", "measured", "digest", "seal"}


@dataclass(frozen=True)
class Artefact:
    """One stage result, finished or in progress.

    The key is the digest of (stage, stage version, configuration, upstream digests); it names the folder and is
    the cache key. The manifest lists every file with size and sha256 and is written last: no manifest, not finished.
    """

    path: Path
    stage: str
    key: str

    @property
    def finished(self) -> bool:
        """Whether the manifest is there and every file it lists has its size (checksums: `verify`)."""
        manifest = self._read_manifest()
        if manifest is None or manifest["key"] != self.key:
            return False
        return all(_size(self.path / name) == entry["bytes"] for name, entry in manifest["files"].items())

    @property
    def started(self) -> bool:
        """Whether a manifest is there, readable or not."""
        return (self.path / MANIFEST).exists()

    @property
    def digest(self) -> str:
        """Identity of the content: sha256 over names and checksums of all files but the measured ones.

        Raises:
            FileNotFoundError: the artefact is not finished.
        """
        return str(self.manifest()["digest"])

    def manifest(self) -> dict[str, Any]:
        """The manifest of a finished artefact.

        Raises:
            FileNotFoundError: the artefact is not finished.
        """
        manifest = self._read_manifest()
        if manifest is None:
            raise FileNotFoundError(f"{self.path} has no readable {MANIFEST}: it is not finished")
        return manifest

    def finish(self, identity: Any, measured: Collection[str] = ()) -> None:
        """Declare the artefact finished: sum every file and write the manifest, last and atomically.

        Args:
            identity: the plain data whose digest is the key, kept for people to read.
            measured: files that hold measured times; they differ from run to run and do not count as content.
        """
        files = {
            path.relative_to(self.path).as_posix(): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
            for path in sorted(self.path.rglob("*"))
            if path.is_file() and path.name != MANIFEST and not path.name.endswith(".partial")
            if path.relative_to(self.path).parts[0] != SELF_CHECKED
        }
        manifest: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "stage": self.stage,
            "key": self.key,
            "identity": identity,
            "files": files,
            "measured": sorted(measured),
            "digest": _content_digest(files, measured),
        }
        manifest["seal"] = digest(manifest)
        write_bytes((json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode(), self.path / MANIFEST)

    def reopen(self) -> None:
        """Withdraw the manifest, so that the stage runs again over what is there."""
        (self.path / MANIFEST).unlink(missing_ok=True)

    def problems(self, checksum_bytes: int | None = None) -> list[str]:
        """One line per file that is missing, torn or altered; empty when every checksum holds.

        Args:
            checksum_bytes: only the size of larger files is checked; None sums every file.
        """
        manifest = self._read_manifest()
        if manifest is None:
            return [f"{self.path}: not finished (no intact {MANIFEST})"]
        found = [_file_problem(self.path / name, entry, checksum_bytes) for name, entry in manifest["files"].items()]
        return [problem for problem in found if problem]

    def delete_torn(self) -> list[str]:
        """Delete every file that is not what the manifest says; returns their names."""
        manifest = self._read_manifest()
        files = manifest["files"] if manifest else {}
        torn = [name for name, entry in files.items() if _file_problem(self.path / name, entry, None)]
        for name in torn:
            (self.path / name).unlink(missing_ok=True)
        return torn

    def _read_manifest(self) -> dict[str, Any] | None:
        try:
            manifest = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(manifest, dict) or manifest.keys() != _MANIFEST_KEYS:
            return None
        sealed = {name: value for name, value in manifest.items() if name != "seal"}
        return manifest if digest(sealed) == manifest["seal"] else None


@dataclass(frozen=True)
class ArtefactStore:
    """All artefacts below one folder."""

    root: Path

    def artefact(self, stage: str, identity: Any) -> Artefact:
        """The artefact of this stage with this identity, whether or not it exists yet.

        Raises:
            TypeError: the identity holds something that is not plain data: the key fails closed.
        """
        key = digest({"stage": stage, "identity": json.loads(canonical_json(identity))})
        return Artefact(self.root / f"{stage}-{key[:_KEY_DIGITS]}", stage, key)


def find_artefacts(folder: Path) -> list[Artefact]:
    """Every artefact at or below a folder, finished or not, by path."""
    finished = {path.parent for path in folder.rglob(MANIFEST)}
    rooms = [path for path in (folder, *folder.rglob(FOLDER)) if path.resolve().name == FOLDER]
    started = {path for room in rooms for path in room.iterdir() if path.is_dir()}
    itself = {folder} if folder.resolve().parent.name == FOLDER else set()
    return [_artefact_at(path) for path in sorted(finished | started | itself)]


def _artefact_at(path: Path) -> Artefact:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return Artefact(path, manifest["stage"], manifest["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return Artefact(path, path.name.partition("-")[0], "")


def _content_digest(files: dict[str, Any], measured: Collection[str]) -> str:
    return digest({name: entry["sha256"] for name, entry in files.items() if name not in measured})


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _file_problem(path: Path, entry: dict[str, Any], checksum_bytes: int | None) -> str | None:
    if (size := _size(path)) < 0:
        return f"{path}: missing"
    if size != entry["bytes"]:
        return f"{path}: {size} bytes instead of {entry['bytes']}"
    summed = checksum_bytes is None or size <= checksum_bytes
    if summed and file_digest(path) != entry["sha256"]:
        return f"{path}: checksum differs"
    return None
