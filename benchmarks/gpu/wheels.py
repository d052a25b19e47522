"""What an offline GPU machine lacks, as wheels for Python 3.12 on Linux x86-64: `make gpu-wheels`.

The machine has torch 2.11, transformers 5, accelerate, peft, safetensors, pyarrow, numpy and pillow with all that they
need. The rest has the versions of constraints.txt. There: `python -m pip install --no-index --no-deps .wheels/*`.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".wheels"
MOST_MEGABYTES = 60
MEGABYTE = 1e6
LACKING = {
    "networks": ("diffusers",),
    "store": ("zarr", "numcodecs", "google-crc32c", "donfig"),
    "settings": ("pydantic", "pydantic_core", "annotated-types", "typing-inspection", "typing_extensions"),
    "shapes": ("jaxtyping", "wadler_lindig", "beartype"),
    "tests": ("pytest", "iniconfig", "pluggy", "Pygments", "pytest-xdist", "execnet", "hypothesis", "sortedcontainers"),
}
"""By what they are for. diffusers names importlib_metadata too, and imports Python's own."""
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def requirements(constraints: str) -> list[str]:
    """NAME==VERSION of all that is lacking.

    Args:
        constraints: the text of constraints.txt.

    Raises:
        KeyError: it pins no version of one.
    """
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", constraints, flags=re.MULTILINE))
    versions = {_plain(name): version for name, version in pinned.items()}
    return [f"{name}=={versions[_plain(name)]}" for names in LACKING.values() for name in names]


def command(wanted: Iterable[str], folder: Path) -> list[str]:
    """The download, as a command line."""
    platforms = [f"--platform={platform}" for platform in _PLATFORMS]
    target = ["--python-version=3.12", "--implementation=cp", "--only-binary=:all:", "--no-deps", *platforms]
    return [sys.executable, "-m", "pip", "download", "--quiet", f"--dest={folder}", *target, *wanted]


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every wheel."""
    return {path.name: path.stat().st_size for path in sorted(folder.glob("*.whl"))}


def problem(found: Mapping[str, int]) -> str | None:
    """Why these wheels are not to be carried, in one line."""
    megabytes = sum(found.values()) / MEGABYTE
    if megabytes > MOST_MEGABYTES:
        return f"the wheels take {megabytes:.1f} MB; allowed are {MOST_MEGABYTES}: take a package out of {__file__}"
    return None


def main(arguments: Sequence[str]) -> int:
    """Empty the folder of wheels, download, print what there is; the exit code."""
    folder = Path(arguments[0]) if arguments else FOLDER
    for old in folder.glob("*.whl"):
        old.unlink()
    wanted = requirements((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    if code := subprocess.run(command(wanted, folder), check=False).returncode:
        return code
    found = sizes(folder)
    for name, size in found.items():
        print(f"{size / MEGABYTE:6.2f} MB  {name}")
    print(f"{sum(found.values()) / MEGABYTE:6.2f} MB  {len(found)} wheels in {folder}")
    if said := problem(found):
        print(said, file=sys.stderr)
        return 1
    return 0


def _plain(name: str) -> str:
    """A package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
