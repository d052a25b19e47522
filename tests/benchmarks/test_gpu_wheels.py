"""Which wheels a GPU machine is sent, without downloading one."""

from pathlib import Path

import pytest

from benchmarks.gpu.wheels import LACKING, command, problem, requirements, sizes

ROOT = Path(__file__).resolve().parents[2]


def test_every_wheel_has_the_version_that_is_tested_here():
    wanted = requirements((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert len(wanted) == sum(map(len, LACKING.values()))
    assert all("==" in each for each in wanted)


def test_names_are_compared_as_registries_do():
    names = {name: "1.2" for names in LACKING.values() for name in names}
    pins = "".join(f"{name.upper().replace('_', '-')}=={version}\n" for name, version in names.items())
    assert requirements(pins)[0] == "diffusers==1.2"


def test_a_version_that_is_not_pinned_is_an_error():
    with pytest.raises(KeyError, match="diffusers"):
        requirements("numpy==2\n")


def test_wheels_are_of_the_machine_that_gets_them(tmp_path):
    asked = command(["diffusers==1"], tmp_path)
    assert {"--python-version=3.12", "--only-binary=:all:", "--no-deps", f"--dest={tmp_path}"} < set(asked)
    assert asked[-1] == "diffusers==1"


def test_too_many_megabytes_are_one_line(tmp_path):
    (tmp_path / "a.whl").write_bytes(b"12345")
    (tmp_path / "note.txt").write_bytes(b"1")
    assert sizes(tmp_path) == {"a.whl": 5}
    assert problem(sizes(tmp_path)) is None
    said = problem({"a.whl": 61_000_000})
    assert "61.0 MB; allowed are 60" in said
    assert "\n" not in said
