"""Every way in which a file from outside is read: a good folder to begin with, and what is done with it afterwards."""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SMALL = (
    "collect.trajectories=4", "collect.steps=3", "collect.kept_steps=2", "collect.shard_trajectories=2",
    "train.steps=3", "sample.images=4", "sample.steps=2", "sample.batch_size=4", "evaluate.curve_images=2",
    "methods=[{kind: agd-offset, hidden_width: 8}]",
)  # fmt: skip
PRESET = ["tiny-dit", *(word for part in SMALL for word in ("--set", part))]


@dataclass(frozen=True)
class Reader:
    """One way in: `make` fills the folder once, `read` is done with every damaged copy of it."""

    name: str
    make: Callable[[Path, Path], None]
    """(folder to fill, folder of the good output folder)"""
    read: Callable[[Path], Any]
    """Given the damaged folder; gives the arguments of `agd`, or raises as a user of the library would see it."""
    follows_links: bool = False
    """Whether links that lead out are followed, as for images that a person names."""


def agd(*arguments: object) -> list[str]:
    return [str(argument) for argument in arguments]


def make_output(folder: Path) -> None:
    """A finished run of the whole chain on a random-weight miniature."""
    command = [sys.executable, "-m", "flows.cli", "distill", *PRESET, "--output", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _output(folder: Path, output: Path) -> None:
    shutil.copytree(output, folder / "output")


def _export(kind: str, folder: Path, output: Path) -> None:
    command = [sys.executable, "-m", "flows.cli", "export", kind, str(output), str(folder / "export")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _registered(folder: Path, output: Path) -> None:
    adapter = next((output / "adapters").iterdir())
    command = [sys.executable, "-m", "flows.cli", "register", str(adapter), "--preset", "tiny-dit", "--name", "x"]
    subprocess.run(
        [*command, "--output", str(folder / "nights")], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def _adapter(folder: Path, output: Path) -> None:
    shutil.copytree(next((output / "adapters").iterdir()), folder / "adapter")


def _picture(number: int, kind: str = "PNG") -> bytes:
    out = BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def _images(folder: Path, output: Path) -> None:
    (folder / "images" / "cats").mkdir(parents=True)
    for number, kind in enumerate(("PNG", "JPEG", "WEBP", "PNG")):
        suffix = kind.lower().replace("jpeg", "jpg")
        (folder / "images" / "cats" / f"{number}.{suffix}").write_bytes(_picture(number, kind))


def _tar(folder: Path, output: Path) -> None:
    with tarfile.open(folder / "shard-0.tar", "w") as tar:
        for number in range(4):
            for name, data in ((f"{number}.png", _picture(number)), (f"{number}.txt", b"a red bus")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, BytesIO(data))


def _parquet(folder: Path, output: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {
        "image": [{"bytes": _picture(n), "path": None} for n in range(4)],
        "caption": [f"text {n}" for n in range(4)],
    }
    pq.write_table(pa.table(rows), folder / "images.parquet")


def _zarr(format_version: int, folder: Path, output: Path) -> None:
    import zarr

    pixels = np.random.default_rng(0).integers(0, 255, (4, 16, 16, 3), dtype=np.uint8)
    array: Any = zarr.create_array(
        str(folder / "images.zarr"),
        shape=pixels.shape,
        chunks=(2, 16, 16, 3),
        dtype="uint8",
        zarr_format=format_version,
    )
    array[:] = pixels


def _texts(folder: Path, output: Path) -> None:
    (folder / "prompts.txt").write_text("".join(f"a red bus, number {n}\n" for n in range(8)), encoding="utf-8")


def _preset(folder: Path, output: Path) -> None:
    shutil.copyfile(Path("deployments/presets/tiny-sd.yaml"), folder / "preset.yaml")


def _base(name: str, folder: Path, output: Path) -> None:
    from agd_core.builtin.miniatures import miniature_folder

    shutil.copytree(miniature_folder(name), folder / "base")


def _reference(folder: Path, output: Path) -> None:
    _images(folder, output)
    command = [sys.executable, "-m", "flows.cli", "reference", str(folder / "images")]
    subprocess.run(
        [*command, "--output", str(folder.parent / "reference-work" / "reference.safetensors")],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    shutil.rmtree(folder / "images")
    shutil.copyfile(folder.parent / "reference-work" / "reference.safetensors", folder / "reference.safetensors")


def _load_adapter(folder: Path) -> None:
    from diffusers import DiTPipeline

    import agd_core
    from agd_core.builtin.miniatures import miniature_folder

    pipe = DiTPipeline.from_pretrained(miniature_folder("tiny-dit"))
    agd_core.load_adapter(pipe, folder / "adapter")


def _resume(folder: Path) -> None:
    import torch
    from torch import nn

    from agd_core.basics.checkpoint import Checkpoint

    net = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(net.parameters())
    Checkpoint(folder / "checkpoint.safetensors", "run").load({"net": net}, optimizer)


def _checkpoint(folder: Path, output: Path) -> None:
    import torch
    from torch import nn

    from agd_core.basics.checkpoint import Checkpoint

    net = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.zeros(1, 3)).sum().backward()
    optimizer.step()
    Checkpoint(folder / "checkpoint.safetensors", "run").save(1, [0.5], {"net": net}, optimizer)


def _good_output(folder: Path) -> Path:
    return folder.parent.parent / "good-output"


def _one(folder: Path, pattern: str) -> str:
    return os.path.join(folder, pattern)


def _reference_of(place: str) -> Callable[[Path], list[str]]:
    return lambda folder: agd("reference", folder / place, "--output", folder.parent / "made" / "r.safetensors")


def _prompts_of(place: str) -> Callable[[Path], list[str]]:
    def read(folder: Path) -> None:
        from flows.prompts import load_prompts

        load_prompts(str(folder / place), 4, "collect.prompts")

    return read


def _base_of(preset: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        import torch

        from flows.presets import load_config
        from flows.run import Run
        from flows.workplace import Workplace

        config = load_config(preset, [f"base_model.source={folder / 'base'}"])
        Run(config, Workplace(folder.parent / "made", torch.device("cpu"))).check()

    return read


def _import(kind: str) -> Callable[[Path], list[str]]:
    return lambda folder: agd("import", kind, folder / "export", folder.parent / "made" / "imported")


READERS = (
    Reader("verify", _output, lambda folder: agd("verify", folder / "output")),
    Reader("repair", _output, lambda folder: agd("verify", folder / "output", "--repair")),
    Reader("distill", _output, lambda folder: agd("distill", *PRESET, "--output", folder / "output")),
    Reader("compare", _output, lambda folder: agd("compare", _good_output(folder), folder / "output")),
    Reader("export", _output, lambda f: agd("export", "webdataset", f / "output", f.parent / "made" / "exported")),
    Reader("load adapter", _adapter, _load_adapter),
    Reader("verify adapter", _adapter, lambda folder: agd("verify", folder / "adapter")),
    Reader(
        "register",
        _adapter,
        lambda f: agd("register", f / "adapter", "--preset", "tiny-dit", "--output", f.parent / "made"),
    ),
    Reader("nights", _registered, lambda folder: agd("adapters", "--output", folder / "nights")),
    Reader("import webdataset", partial(_export, "webdataset"), _import("webdataset")),
    Reader("import archive", partial(_export, "archive"), _import("archive")),
    Reader("verify export", partial(_export, "webdataset"), lambda folder: agd("verify", folder / "export")),
    Reader("images", _images, _reference_of("images"), follows_links=True),
    Reader("images in tar", _tar, _reference_of("shard-0.tar"), follows_links=True),
    Reader("images in Parquet", _parquet, _reference_of("images.parquet"), follows_links=True),
    Reader("images in Zarr 3", partial(_zarr, 3), _reference_of("images.zarr"), follows_links=True),
    Reader("images in Zarr 2", partial(_zarr, 2), _reference_of("images.zarr"), follows_links=True),
    Reader("prompts", _texts, _prompts_of("prompts.txt"), follows_links=True),
    Reader("prompts in tar", _tar, _prompts_of("shard-0.tar"), follows_links=True),
    Reader("prompts in Parquet", _parquet, _prompts_of("images.parquet"), follows_links=True),
    Reader(
        "preset", _preset, lambda f: agd("collect", f / "preset.yaml", "--dry-run", "--output", f.parent / "made"), True
    ),
    Reader("base of DiT", partial(_base, "tiny-dit"), _base_of("tiny-dit"), follows_links=True),
    Reader("base of SD", partial(_base, "tiny-sd"), _base_of("tiny-sd"), follows_links=True),
    Reader("base of SD3", partial(_base, "tiny-sd3"), _base_of("tiny-sd3"), follows_links=True),
    Reader("checkpoint", _checkpoint, _resume, follows_links=True),
)
