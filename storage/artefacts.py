"""Content-addressed stage results: a folder named by its key, finished once its manifest is there.

An output folder may come from anybody, and anybody can compute a seal. So what a manifest says is believed for the
folder that it lies in and for nothing else: names are confined to it, links out of it are not followed.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agd_core.basics.atomic import write_bytes
from agd_core.basics.digest import canonical_json, digest, file_digest
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import confined, printable, read_bytes, read_json, require_regular
from storage.walking import files_below, walk

MANIFEST = "manifest.json"
ARTEFACTS = "artefacts"
"""Name of the folder that holds an output folder's artefacts."""
SELF_CHECKED = "store"
"""A folder of this name inside an artefact has checksums of its own; the manifest leaves it out."""
FORMAT_VERSION = 2
_KEY_DIGITS = 16
_MOST_BYTES = 2 << 30
"""Of a file that is read as a whole: pages, pictures, adapters."""
_Sum = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_T = TypeVar("_T")


class _ListedFile(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    bytes: int = Field(ge=0)
    sha256: _Sum


class _Manifest(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    format_version: int
    stage: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    key: _Sum
    identity: Any
    files: dict[str, _ListedFile]
    measured: list[str]
    digest: _Sum
    seal: _Sum


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
        return (
            manifest is not None and manifest["key"] == self.key and not self._problems_of(manifest, checksum_bytes=0)
        )

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
            for path in sorted(files_below(self.path))
            if path.name != MANIFEST and not path.name.endswith(".partial")
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
        try:
            return self._problems_of(self._load_manifest(), checksum_bytes)
        except FileNotFoundError:
            return [f"{printable(self.path)}: not finished (no intact {MANIFEST})"]
        except InputError as error:
            return [f"{printable(self.path)}: not finished (no intact {MANIFEST}): {error}"]

    def delete_torn(self) -> list[str]:
        """Delete every file that is not what the manifest says; returns their names."""
        manifest = self._read_manifest()
        files = manifest["files"] if manifest else {}
        return [name for name, entry in files.items() if self._file_problem(name, entry, None) and self._deleted(name)]

    def read(self, name: str) -> bytes:
        """One of its files.

        Raises:
            InputError: no such file.
        """
        return read_bytes(confined(self.path, name), _MOST_BYTES)

    def json(self, name: str, form: type[_T]) -> _T:
        """The content of one of its JSON files.

        Args:
            name: of the file, a path inside the artefact.
            form: a type of plain data, such as a TypedDict, that the content must have.

        Raises:
            InputError: no such file, or something else in it.
        """
        path = confined(self.path, name)
        content: _T = read_json(path)
        try:
            TypeAdapter(form).validate_python(content, strict=True)
        except ValidationError as error:
            raise InputError(f"{printable(path)} is not what a stage writes: {_first_fault(error)}") from error
        return content

    def _problems_of(self, manifest: dict[str, Any], checksum_bytes: int | None) -> list[str]:
        found = (self._file_problem(name, entry, checksum_bytes) for name, entry in manifest["files"].items())
        return [problem for problem in found if problem]

    def _file_problem(self, name: str, entry: dict[str, Any], checksum_bytes: int | None) -> str | None:
        try:
            path = confined(self.path, name)
            return _difference(path, entry, checksum_bytes)
        except InputError as error:
            return str(error)
        except OSError as error:
            return f"{printable(self.path / name)}: {error.strerror}"

    def _deleted(self, name: str) -> bool:
        """Delete a file of ours; nothing that a crafted name means, and no folder."""
        try:
            confined(self.path, name).unlink()
        except (InputError, OSError):
            return False
        return True

    def _read_manifest(self) -> dict[str, Any] | None:
        try:
            return self._load_manifest()
        except (OSError, InputError):
            return None

    def _load_manifest(self) -> dict[str, Any]:
        """The manifest.

        Raises:
            FileNotFoundError: none there.
            InputError: it is not what `finish` wrote.
        """
        path = confined(self.path, MANIFEST)
        if not path.exists():
            raise FileNotFoundError(path)
        manifest: dict[str, Any] = read_json(path)
        try:
            _Manifest.model_validate(manifest)
            sealed = digest({name: value for name, value in manifest.items() if name != "seal"})
        except ValidationError as error:
            raise InputError(_first_fault(error)) from error
        except ValueError as error:
            raise InputError("holds what no stage writes") from error
        if sealed != manifest["seal"]:
            raise InputError("its seal differs")
        return manifest


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
    real = folder.resolve()
    found = {folder} if real.parent.name == ARTEFACTS else set()
    for entry in walk(folder):
        path = Path(entry.path)
        room = path.parent.name if path.parent != folder else real.name
        if entry.name == MANIFEST:
            found.add(path.parent)
        elif room == ARTEFACTS and entry.is_dir(follow_symlinks=False):
            found.add(path)
    return [_artefact_at(path) for path in sorted(found)]


def _artefact_at(path: Path) -> Artefact:
    manifest = Artefact(path, "", "")._read_manifest()
    return Artefact(path, *((manifest["stage"], manifest["key"]) if manifest else (path.name.partition("-")[0], "")))


def _content_digest(files: dict[str, Any], measured: Collection[str]) -> str:
    return digest({name: entry["sha256"] for name, entry in files.items() if name not in measured})


def _difference(path: Path, entry: dict[str, Any], checksum_bytes: int | None) -> str | None:
    """What tells a file from its line in the manifest; only the size of one over `checksum_bytes` is looked at."""
    if not path.exists():
        return f"{path}: missing"
    require_regular(path)
    if (size := path.stat().st_size) != entry["bytes"]:
        return f"{path}: {size} bytes instead of {entry['bytes']}"
    summed = checksum_bytes is None or size <= checksum_bytes
    return f"{path}: checksum differs" if summed and file_digest(path) != entry["sha256"] else None


def _first_fault(error: ValidationError) -> str:
    """Where the first thing is that is wrong, and what, in one line."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return printable(f"{where}: {first['msg']}" if where else first["msg"])
