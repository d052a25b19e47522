"""What chance, an accident or a stranger does to one file of a folder: a function per kind of damage.

Each takes the folder that will be read, a file in it, and a seeded random state. `OUTSIDE` stands in crafted names: a
folder beside the given one, which no reader may touch.
"""

import contextlib
import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from agd_core.basics.digest import digest

OUTSIDE = "outside"
DEEP = "[" * 100_000


def _nasty_values(folder: Path) -> list[Any]:
    secret = folder.parent / OUTSIDE / "secret.txt"
    return [
        None, True, -1, 0, 1, 2**63, 10**30, 1.5, 1e308, float("nan"), float("inf"), "", "x", "\x1b[2J\x1b[31mred",
        "a\nb", "a\0b", "n" * 300, "\u202egnp.exe", "[red]x[/red]", f"../{OUTSIDE}/secret.txt",
        f"../../../{OUTSIDE}/secret.txt", f"../../../../../{OUTSIDE}/secret.txt", str(secret), str(secret.parent),
        f"file://{secret}", "s3://b/x", "http://127.0.0.1:9/x", "zip::http://127.0.0.1:9/x", "<script>", "{{ 7*7 }}",
        [], {}, [[]], [None], {"": None}, [1] * 1000, ["x", "y"], {"a": {"b": {"c": {}}}},
    ]  # fmt: skip


def flip_bits(folder: Path, file: Path, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(chance.choice((1, 1, 8, 64)) if data else 0):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


def cut_off(folder: Path, file: Path, chance: random.Random) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: chance.randrange(len(data) + 1)])


def put_noise_in(folder: Path, file: Path, chance: random.Random) -> None:
    data = file.read_bytes()
    place = chance.randrange(len(data) + 1)
    file.write_bytes(data[:place] + chance.randbytes(chance.choice((1, 16, 4096))) + data[place:])


def overwrite_with_zeros(folder: Path, file: Path, chance: random.Random) -> None:
    size = file.stat().st_size
    place = chance.randrange(size + 1)
    file.write_bytes(file.read_bytes()[:place] + bytes(size - place))


def replace_by_noise(folder: Path, file: Path, chance: random.Random) -> None:
    file.write_bytes(chance.randbytes(chance.choice((0, 1, 100, 10_000))))


def replace_by_another(folder: Path, file: Path, chance: random.Random) -> None:
    other = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    if other != file:
        shutil.copyfile(other, file)


def replace_by_no_file(folder: Path, file: Path, chance: random.Random) -> None:
    kind = chance.choice(("nothing", "folder", "pipe", "zeros", "secret", "circle", "room"))
    file.unlink()
    outside = folder.parent / OUTSIDE
    makers: dict[str, Callable[[], Any]] = {
        "nothing": lambda: None,
        "folder": file.mkdir,
        "pipe": lambda: os.mkfifo(file),
        "zeros": lambda: file.symlink_to("/dev/zero"),
        "secret": lambda: file.symlink_to(outside / "secret.txt"),
        "circle": lambda: file.symlink_to(file.name),
        "room": lambda: file.symlink_to(outside),
    }
    makers[kind]()


def link_its_folder_outside(folder: Path, file: Path, chance: random.Random) -> None:
    """The file's own folder becomes a link to a copy of it that lies outside; not the one that a person names."""
    if folder in (file.parent, file.parent.parent):
        return replace_by_no_file(folder, file, chance)
    moved = folder.parent / OUTSIDE / "moved"
    shutil.move(file.parent, moved)
    file.parent.symlink_to(moved)


def add_a_stranger(folder: Path, file: Path, chance: random.Random) -> None:
    names = (
        b"caf\xe9.png",
        b"a\nb.json",
        b"\x1b[31m.png",
        b"n" * 255,
        b"x.partial",
        b".lock",
        b"manifest.json",
        b"[v2].tar",
    )
    path = os.path.join(os.fsencode(file.parent), chance.choice(names))
    with open(path, "ab") as new:
        new.write(chance.randbytes(100))


def craft_text(folder: Path, file: Path, chance: random.Random) -> None:
    pieces = (
        DEEP,
        "a: " + DEEP,
        "\ufeff",
        "\x1b[2J",
        "{",
        "}",
        '"',
        "&a [*a]",
        "!!python/name:os.system",
        "\r\n",
        "9" * 5000,
    )
    text = file.read_bytes().decode("utf-8", "replace")
    place = chance.randrange(len(text) + 1)
    file.write_text(text[:place] + chance.choice(pieces) + text[place:], encoding="utf-8")


def craft_lines(folder: Path, file: Path, chance: random.Random) -> None:
    """A line of a text (YAML, prompts) twice, away, or with another value."""
    lines = file.read_bytes().decode("utf-8", "replace").splitlines() or [""]
    place = chance.randrange(len(lines))
    key = lines[place].partition(":")[0]
    value = chance.choice(_nasty_values(folder))
    lines[place : place + 1] = chance.choice(([lines[place]] * 2, [], [f"{key}: {json.dumps(value)}"]))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def craft_json(folder: Path, file: Path, chance: random.Random) -> None:
    """One value anywhere in the document is another one; the seal of a manifest is made anew, as anybody can."""
    try:
        document = json.loads(file.read_bytes())
    except ValueError:
        return craft_text(folder, file, chance)
    document = _changed(document, _nasty_values(folder), chance)
    if isinstance(document, dict) and "seal" in document and chance.random() < 0.7:
        rest = {name: value for name, value in document.items() if name != "seal"}
        with contextlib.suppress(ValueError, TypeError):
            document["seal"] = digest(rest)
    file.write_text(json.dumps(document), encoding="utf-8")


def _changed(document: Any, values: list[Any], chance: random.Random) -> Any:
    places: list[tuple[Any, Any]] = []
    level: list[Any] = [document]
    while level:
        part = level.pop()
        for key in part if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
            places.append((part, key))
            level.append(part[key])
    if not places or chance.random() < 0.03:
        return chance.choice(values)
    part, key = chance.choice(places)
    if isinstance(part, dict) and chance.random() < 0.3:
        value = part.pop(key)
        if chance.random() < 0.7:
            part[str(chance.choice(values))] = value
    else:
        part[key] = chance.choice(values)
    return document


def craft_safetensors(folder: Path, file: Path, chance: random.Random) -> None:
    """One value of the header is another one; the tensors stay."""
    data = file.read_bytes()
    try:
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size])
    except (ValueError, struct.error):
        return flip_bits(folder, file, chance)
    crafted = json.dumps(_changed(header, _nasty_values(folder), chance)).encode()
    said = chance.choice((len(crafted), len(crafted), len(crafted), 2**63, 99_999_999))
    file.write_bytes(struct.pack("<Q", said) + crafted + data[8 + size :])


def craft_parquet(folder: Path, file: Path, chance: random.Random) -> None:
    """Columns away, renamed or of another type, rows twice or away, footers changed; seals are made anew."""
    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError):
        return flip_bits(folder, file, chance)
    kinds = (_lose_a_column, _retype_a_column, _change_the_rows, _change_the_footer)
    crafted = chance.choice(kinds)(table, folder, chance)
    _write_sealed(crafted, file)


def _lose_a_column(table: Any, folder: Path, chance: random.Random) -> Any:
    return table.drop_columns([chance.choice(table.column_names)]) if table.num_columns > 1 else table.slice(0, 0)


def _retype_a_column(table: Any, folder: Path, chance: random.Random) -> Any:
    values = [None, -1, 2**62, 1.5, f"../{OUTSIDE}/secret.txt", b"\xff", [], True]
    place = chance.randrange(table.num_columns)
    column = pa.array([chance.choice(values)] * table.num_rows)
    return table.set_column(place, table.column_names[place], column)


def _change_the_rows(table: Any, folder: Path, chance: random.Random) -> Any:
    return chance.choice((table.slice(0, 0), table.slice(1), pa.concat_tables([table, table])))


def _change_the_footer(table: Any, folder: Path, chance: random.Random) -> Any:
    footer = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if not footer:
        return table.slice(0, 0)
    key = chance.choice(sorted(footer))
    try:
        footer[key] = json.dumps(_changed(json.loads(footer[key]), _nasty_values(folder), chance))
    except ValueError:
        footer[key] = chance.choice(("", "x", "-1", "../x", DEEP))
    return table.replace_schema_metadata(footer)


def _write_sealed(table: Any, file: Path) -> None:
    from storage.sealed_parquet import seal

    footer = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    footer.pop("agd.crc32c", None)
    with contextlib.suppress(pa.ArrowException, UnicodeError):
        file.write_bytes(seal(table.replace_schema_metadata(None), footer))


def craft_tar(folder: Path, file: Path, chance: random.Random) -> None:
    """Members are renamed, repeated, linked, or said to be larger; the rest is written again."""
    import io
    import tarfile

    secret = str(folder.parent / OUTSIDE / "secret.txt")
    names = (
        f"../{OUTSIDE}/secret.txt",
        secret,
        "a/../../x.png",
        "\x1b[2J.png",
        "x" * 300 + ".png",
        ".png",
        "a\nb.json",
    )
    out = io.BytesIO()
    try:
        with tarfile.open(file) as old, tarfile.open(fileobj=out, mode="w") as new:
            members = old.getmembers()
            victim = chance.choice(members)
            for member in members:
                data = old.extractfile(member)
                if member is victim:
                    _craft_member(member, names, secret, chance)
                new.addfile(member, data)
    except (tarfile.TarError, OSError, IndexError, ValueError):
        return flip_bits(folder, file, chance)
    file.write_bytes(out.getvalue())


def _craft_member(member: Any, names: tuple[str, ...], secret: str, chance: random.Random) -> None:
    import tarfile

    if chance.random() < 0.6:
        member.name = chance.choice(names)
    else:
        member.type = chance.choice(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE)
        )
        member.linkname = chance.choice((secret, "/dev/zero", member.name))


Damage = Callable[[Path, Path, random.Random], None]
ANY: tuple[Damage, ...] = (
    flip_bits, cut_off, put_noise_in, overwrite_with_zeros, replace_by_noise, replace_by_another, replace_by_no_file,
    link_its_folder_outside, add_a_stranger,
)  # fmt: skip
BY_SUFFIX: dict[str, tuple[Damage, ...]] = {
    ".json": (craft_json, craft_json, craft_json, craft_text),
    ".safetensors": (craft_safetensors, craft_safetensors),
    ".parquet": (craft_parquet, craft_parquet, craft_parquet),
    ".tar": (craft_tar, craft_tar, craft_tar),
    ".yaml": (craft_lines, craft_lines, craft_lines, craft_text),
    ".txt": (craft_lines, craft_text),
}
"""Crafted contents of a format, tried as often as all other kinds of damage together."""


def damage(folder: Path, seed: int) -> str:
    """Damage one file below a folder; the same way for the same seed. Returns what was done."""
    chance = random.Random(seed)  # noqa: S311 not for secrets
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    suffix = chance.choice(sorted({path.suffix for path in files}))
    file = chance.choice([path for path in files if path.suffix == suffix])
    crafted = BY_SUFFIX.get(suffix, ())
    kind = chance.choice(crafted if crafted and chance.random() < 0.6 else ANY)
    kind(folder, file, chance)
    return f"{kind.__name__} {file.relative_to(folder)}"
