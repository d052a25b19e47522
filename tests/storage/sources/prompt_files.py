"""The same prompts in every format."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq

PROMPTS = ("a dog on a beach", "ein Hund am Strand, äöü", "一只狗 🐕‍🦺", "#1 of two teams", "a dog, a cat")


def write_bytes(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def write_text(path, lines):
    return write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def write_parquet(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=3)
    return str(path)


def write_tar(path, *members):
    """A tar of (name, bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(path)


def text_members(prompts, first=0):
    """Texts with images beside them; nothing reads the images."""
    numbered = list(enumerate(prompts, start=first))
    return [pair for n, text in numbered for pair in ((f"{n:04d}.jpg", b"no image"), (f"{n:04d}.txt", text.encode()))]


def json_members(prompts, key="caption"):
    return [(f"{n:04d}.json", json.dumps({"url": "x", key: text}).encode()) for n, text in enumerate(prompts)]


def _halves(write, folder, suffix, pattern=""):
    """Two files, and the place that names both."""
    write(folder / f"part-0{suffix}", PROMPTS[:2])
    write(folder / f"part-1{suffix}", PROMPTS[2:])
    return str(folder) + pattern


def _tar(path, prompts):
    return write_tar(path, *text_members(prompts))


def _table(path, prompts):
    return write_parquet(path, caption=list(prompts))


def _lines(path, prompts):
    return write_text(path, ["", "# a comment", *(prompt.replace("#1", "1") for prompt in prompts), "   "])


FORMATS = {
    "parquet": lambda p: _table(p / "a.parquet", PROMPTS),
    "parquet beside images": lambda p: write_parquet(p / "a.parquet", image=[b"no image"] * 5, text=list(PROMPTS)),
    "parquet, lists": lambda p: write_parquet(p / "a.parquet", sentences=[[text, "another"] for text in PROMPTS]),
    "parquet folder": lambda p: _halves(_table, p / "parts", ".parquet"),
    "parquet range": lambda p: _halves(_table, p / "parts", ".parquet", "/part-{0..1}.parquet"),
    "tar": lambda p: _tar(p / "a.tar", PROMPTS),
    "tar folder": lambda p: _halves(_tar, p / "tars", ".tar"),
    "tar pattern": lambda p: _halves(_tar, p / "tars", ".tar", "/part-*.tar"),
    "tar of JSON": lambda p: write_tar(p / "a.tar", *json_members(PROMPTS)),
    "tar of JSON, lists": lambda p: write_tar(
        p / "a.tar", *json_members([[text, "other"] for text in PROMPTS], "text")
    ),
}
"""Writes `PROMPTS` below a folder and gives the place to read."""
TEXT_FORMATS = {
    "text": lambda p: _lines(p / "a.txt", PROMPTS),
    "text folder": lambda p: _halves(_lines, p / "texts", ".txt"),
    "text pattern": lambda p: _halves(_lines, p / "texts", ".txt", "/part-?.txt"),
}
"""The same with `1 of two teams`: a text file has no prompt that begins with #."""
