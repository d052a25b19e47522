"""The one door for files that come from outside: adapters, output folders, presets, images, prompts, base models.

What lies on disk may have been made by anybody. So each file is opened here: it must be a regular file (a named pipe
waits for ever, a device never ends), it has a largest size, and JSON and YAML have a largest depth and no repeated
keys. What is wrong becomes one `InputError` line. Names that stand inside such files are kept below their folder by
`confined`, and everything that is printed out of them goes through `printable`.
"""

import codecs
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open

from agd_core.basics.errors import InputError, first_line

MOST_JSON_BYTES = 64 << 20
MOST_YAML_BYTES = 256 << 10
MOST_DEPTH = 64
"""Lists and mappings inside one another; our own files have less than 20."""
MOST_NAME_BYTES = 255
"""Longest file name on Linux's file systems."""
_OTHER_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def printable(text: object) -> str:
    r"""Text that a terminal shows and never obeys: control characters and escape codes as `\n`, `\x1b`, ..."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in str(text)
    )


def require_regular(path: str | Path) -> None:
    """Make sure that a library which opens `path` by itself meets a regular file.

    Raises:
        InputError: nothing there, no permission, or no regular file.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(mode):
        kind = next((words for is_kind, words in _OTHER_KINDS if is_kind(mode)), "something else")
        raise InputError(f"{printable(path)} is no regular file but {kind}")


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading bytes; never waits, and never touches a device.

    Raises:
        InputError: nothing there, no permission, or no regular file.
    """
    require_regular(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # it was changed since it was looked at
        os.close(descriptor)
        raise InputError(f"{printable(path)} is no regular file")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: str | Path, most: int) -> bytes:
    """A whole regular file of at most `most` bytes.

    Raises:
        InputError: it cannot be read, is no regular file, or is larger.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(size + 1) if size <= most else b""
            if len(data) > size:  # it has grown, or the system tells no size
                data += file.read(most + 1 - len(data))
    except OSError as error:
        raise _unreadable(path, error) from error
    if max(size, len(data)) > most:
        raise _too_large(path, most)
    return data


@contextmanager
def open_tensors(path: str | Path, most: int | None = None) -> Iterator[Any]:
    """A safetensors file, whose list and tensors are read one by one while the block runs.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        InputError: it cannot be read, is no regular file, is larger, or what is read of it is damaged.
    """
    require_regular(path)
    if most is not None and os.path.getsize(path) > most:
        raise _too_large(path, most)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{printable(path)} is no whole safetensors file: {printable(first_line(error))}") from error


def read_text(path: str | Path, most: int) -> str:
    """A whole UTF-8 file of at most `most` bytes, with or without a byte order mark.

    Raises:
        InputError: as `read_bytes`, or it is not UTF-8.
    """
    return _decoded(read_bytes(path, most), path)


def read_json(path: str | Path, most: int = MOST_JSON_BYTES) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: as `read_bytes` and `parse_json`.
    """
    return parse_json(read_bytes(path, most), path)


def parse_json(data: bytes | str, where: object) -> Any:
    """The value of a JSON text; `where` names it in messages.

    Raises:
        InputError: no JSON, not UTF-8, a key twice in one object, or deeper than `MOST_DEPTH`.
    """
    try:
        value = json.loads(data if isinstance(data, str) else _decoded(data, where), object_pairs_hook=_once)
    except InputError:
        raise
    except RecursionError as error:
        raise _too_deep(where) from error
    except ValueError as error:
        raise InputError(f"{printable(where)} is no JSON: {printable(first_line(error))}") from error
    _require_shallow(value, where)
    return value


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file.

    Raises:
        InputError: as `read_bytes` and `parse_yaml`.
    """
    return parse_yaml(read_text(path, MOST_YAML_BYTES), path)


def parse_yaml(text: str, where: object) -> Any:
    """The plain value of a YAML text; `where` names it in messages. `1e-3` is a number, as in YAML 1.2.

    Raises:
        InputError: no YAML, a key twice in one mapping, an alias (it can make a small file endless), a tag of a
            Python object, or deeper than `MOST_DEPTH`.
    """
    import yaml

    from agd_core.basics.strict_yaml import StrictLoader

    try:
        value = yaml.load(text, StrictLoader)  # noqa: S506 a SafeLoader
    except RecursionError as error:
        raise _too_deep(where) from error
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise InputError(f"{printable(where)} is no YAML: {printable(' '.join(str(error).split()))}") from error
    _require_shallow(value, where)
    return value


def confined(root: str | Path, name: str) -> Path:
    """The path below `root` that a name out of a file means; it need not exist.

    Links are followed only where they stay below `root`, or lead to the blobs of the hub cache's snapshot that `root`
    is.

    Raises:
        InputError: no relative name, "..", a control character, a part over 255 bytes, or a link that leads out.
    """
    _require_plain(root, name)
    path, folder = Path(root) / name, Path(root).resolve()
    try:
        real = path.resolve()
    except (OSError, RuntimeError) as error:  # a circle of links
        raise InputError(f"{printable(path)} cannot be read: {printable(first_line(error))}") from error
    if not any(real.is_relative_to(allowed) for allowed in (folder, *_hub_blobs(folder))):
        raise InputError(f"{printable(path)} is a link that leads out of {printable(root)}; nothing outside it is read")
    return path


def _require_plain(root: str | Path, name: str) -> None:
    parts = PurePosixPath(name).parts
    wrong = (
        not parts
        or name.startswith("/")
        or ".." in parts
        or not name.isprintable()
        or any(len(os.fsencode(part)) > MOST_NAME_BYTES for part in parts)
    )
    if wrong:
        shown = printable(name[:MOST_NAME_BYTES])
        raise InputError(f"{printable(root)} names a file {shown!r}; allowed are plain names below that folder")


def _hub_blobs(folder: Path) -> Iterable[Path]:
    """Where the files of a snapshot in huggingface_hub's cache really are: models--X/snapshots/REVISION -> blobs."""
    blobs = folder.parent.parent / "blobs"
    return [blobs] if folder.parent.name == "snapshots" and blobs.is_dir() and not blobs.is_symlink() else []


def _decoded(data: bytes, where: object) -> str:
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{printable(where)} is not UTF-8 (byte {error.start})") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def _require_shallow(value: Any, where: object) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_DEPTH):
        inside = [item for part in level for item in (part.values() if isinstance(part, dict) else part)]
        level = [item for item in inside if isinstance(item, dict | list)]
        if not level:
            return
    raise _too_deep(where)


def _too_deep(where: object) -> InputError:
    return InputError(f"{printable(where)} is nested deeper than {MOST_DEPTH} levels")


def _too_large(path: str | Path, most: int) -> InputError:
    return InputError(f"{printable(path)} is larger than {most:,} bytes, the most that is read of such a file")


def _unreadable(path: str | Path, error: OSError | ValueError) -> InputError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
    return InputError(f"{printable(path)} cannot be read: {printable(reason)}")
