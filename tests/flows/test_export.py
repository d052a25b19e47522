"""`agd export` and `agd import` on trajectories of the real teacher."""

import json
import os
import shutil
from pathlib import Path

import diffusers
import pytest
from typer.testing import CliRunner

from agd_core.basics.progress import Stopped
from flows.cli.app import app
from flows.presets import load_config
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.export import export_archive, export_webdataset, import_archive, import_webdataset, open_source
from flows.workplace import Workplace
from storage.exports.base import INDEX
from tests.agd_core.pipelines.test_one_pass_folder import fine_tuned

SETTINGS = ("collect.trajectories=16", "collect.steps=50", "collect.kept_steps=50", "collect.shard_trajectories=16")
RAW_BYTES = 16 * 50 * 1024
TAR_BYTES = 500_000


@pytest.fixture(scope="module")
def output(teacher, tmp_path_factory):
    """16 whole DDIM trajectories of the built-in teacher."""
    folder = tmp_path_factory.mktemp("collected")
    collect(Run(load_config("fashion-dit", SETTINGS), Workplace(folder), teacher))
    return folder


@pytest.fixture(scope="module")
def store_folder(output):
    return next(output.glob("artefacts/trajectories-*/store"))


@pytest.fixture(scope="module")
def digest(store_folder):
    return open_source(str(store_folder)).content_digest()


def agd(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def archive(output, tmp_path_factory):
    target = tmp_path_factory.mktemp("exports") / "archive"
    return target, export_archive(str(output), str(target), Workplace(target.parent))


@pytest.fixture(scope="module")
def tars(output, tmp_path_factory):
    target = tmp_path_factory.mktemp("exports") / "tars"
    return target, export_webdataset(str(output), str(target), TAR_BYTES, 0, Workplace(target.parent))


def test_an_archive_of_whole_ddim_trajectories_takes_half_the_bytes(archive):
    target, result = archive
    assert sum(path.stat().st_size for path in (target / "latents").iterdir()) <= 0.5 * RAW_BYTES
    assert result["bytes"] <= 0.5 * RAW_BYTES
    assert result["ratio"] <= 0.5


@pytest.mark.parametrize("kind", ["archive", "webdataset"])
def test_there_and_back_on_the_command_line(kind, output, store_folder, digest, tmp_path):
    code, out, errors = agd("export", kind, output, tmp_path / "export", "--json")
    assert code == 0, errors
    result = json.loads(out)
    assert result["target"] == str(tmp_path / "export")
    assert (result["samples"], result["content_digest"]) == (800, digest)
    code, out, errors = agd("import", kind, tmp_path / "export", tmp_path / "store")
    assert code == 0, errors
    assert f"{tmp_path / 'store'}: 800 samples" in out
    assert f"ratio {result['ratio']:.3f}" in out
    assert open_source(str(tmp_path / "store")).content_digest() == digest
    latents = Path("latents/c.0.0.0.0.0.0")
    assert (tmp_path / "store" / latents).read_bytes() == (store_folder / latents).read_bytes()


@pytest.mark.parametrize("source", ["output", "artefact", "store"])
def test_a_source_can_be_named_in_three_ways(source, output, store_folder, digest):
    folder = {"output": output, "artefact": store_folder.parent, "store": store_folder}[source]
    assert open_source(str(folder)).content_digest() == digest


def test_two_exports_have_the_same_bytes_and_a_third_changes_nothing(output, tars, tmp_path):
    for _ in range(2):
        assert agd("export", "webdataset", output, tmp_path / "x", "--tar-bytes", TAR_BYTES)[0] == 0
        assert files(tmp_path / "x") == files(tars[0])
    assert len(list(tars[0].glob("*.tar"))) == 5


def test_memory_of_fsspec_is_a_place_too(output, digest, tmp_path):
    place = Workplace(tmp_path)
    export_archive(str(output), "memory://archived", place)
    export_webdataset(str(output), "memory://tars", TAR_BYTES, 0, place)
    assert import_archive("memory://archived", str(tmp_path / "a"), place)["content_digest"] == digest
    assert import_webdataset("memory://tars", str(tmp_path / "b"), place)["content_digest"] == digest


def test_work_that_is_stopped_continues(output, tars, archive, tmp_path):
    stopping = Workplace(tmp_path, should_stop=lambda: True)
    for export, import_, whole in (
        (lambda *where: export_webdataset(*where[:2], TAR_BYTES, 0, where[2]), import_webdataset, tars[0]),
        (export_archive, import_archive, archive[0]),
    ):
        target, back = tmp_path / whole.name, tmp_path / f"{whole.name}-back"
        with pytest.raises(Stopped, match="of 800 samples done; run the same command to resume"):
            export(str(output), str(target), stopping)
        assert not (target / INDEX).exists()
        export(str(output), str(target), Workplace(tmp_path))
        assert files(target) == files(whole)
        with pytest.raises(Stopped):
            import_(str(target), str(back), stopping)
        import_(str(target), str(back), Workplace(tmp_path))


def test_progress_is_told(output, tmp_path):
    told = {}
    place = Workplace(tmp_path, progress=lambda job: lambda *state: told.setdefault(job, []).append(state))
    export_webdataset(str(output), str(tmp_path / "x"), TAR_BYTES, 0, place)
    assert list(told) == ["export webdataset"]
    done = [state[0] for state in told["export webdataset"]]
    assert done == sorted(done)
    assert told["export webdataset"][-1] == (800, 800, "samples")


def several(output, folder):
    for name in "ab":
        shutil.copytree(output / "artefacts", folder / name / "artefacts")
    return folder


def unfinished(store_folder, folder):
    shutil.copytree(store_folder, folder / "store")
    (folder / "store" / "index" / "u-000000.parquet").unlink()
    return folder / "store"


def foreign(folder):
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.tex").write_text("x")
    return folder / "mine"


def torn(whole, folder, key):
    shutil.copytree(whole, folder / "torn")
    os.truncate(folder / "torn" / key, 1000)
    return folder / "torn"


BAD = {
    "no source": (lambda o, s, t, a, p: ("export", "archive", p / "no", p / "x"), "no does not exist"),
    "no trajectories": (lambda o, s, t, a, p: ("export", "webdataset", p, p / "x"), "holds no trajectories"),
    "several": (
        lambda o, s, t, a, p: ("export", "archive", several(o, p), p / "x"),
        "several trajectories; name one: ",
    ),
    "unfinished": (
        lambda o, s, t, a, p: ("export", "archive", unfinished(s, p), p / "x"),
        "is not whole: 1 of 1 units missing",
    ),
    "strange URL": (lambda o, s, t, a, p: ("export", "archive", "zz://a", p / "x"), "zz://a cannot be used: "),
    "foreign target": (lambda o, s, t, a, p: ("export", "archive", o, foreign(p)), "mine holds something else"),
    "a store as target": (lambda o, s, t, a, p: ("export", "archive", o, s), "store holds something else"),
    "a file as target": (lambda o, s, t, a, p: ("export", "archive", o, t / INDEX), "is not a folder"),
    "other export there": (lambda o, s, t, a, p: ("export", "archive", o, t), "holds another export: "),
    "other seed there": (
        lambda o, s, t, a, p: ("export", "webdataset", o, t, "--tar-bytes", TAR_BYTES, "--seed", 1),
        "seed 0 there, 1 asked for",
    ),
    "no tar fits": (lambda o, s, t, a, p: ("export", "webdataset", o, p / "x", "--tar-bytes", 0), "--tar-bytes"),
    "no export": (lambda o, s, t, a, p: ("import", "archive", s, p / "x"), "holds no finished export"),
    "other kind": (lambda o, s, t, a, p: ("import", "webdataset", a, p / "x"), "agd-archive version 1, not agd-web"),
    "target is an export": (lambda o, s, t, a, p: ("import", "archive", a, t), "tars holds something else"),
    "torn tar": (
        lambda o, s, t, a, p: ("import", "webdataset", torn(t, p, "train-000002.tar"), p / "x"),
        "train-000002.tar",
    ),
    "torn chunk": (
        lambda o, s, t, a, p: ("import", "archive", torn(a, p, "latents/c.0.0.0.0.0.0"), p / "x"),
        "latents/c.0.0.0.0.0.0: 1000 bytes instead of ",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_one_line_and_exit_code_2(bad, output, store_folder, tars, archive, tmp_path):
    arguments, message = BAD[bad]
    code, out, errors = agd(*arguments(output, store_folder, tars[0], archive[0], tmp_path))
    assert (code, out) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1 or errors.startswith("Usage")
    assert not (tmp_path / "x").exists() or "torn" in bad


@pytest.mark.parametrize("command", ["export webdataset", "export archive", "import webdataset", "import archive"])
def test_a_disk_that_is_too_small_is_told_first(command, output, tars, archive, tmp_path, monkeypatch):
    verb, kind = command.split()
    source = output if verb == "export" else {"webdataset": tars, "archive": archive}[kind][0]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    code, _, errors = agd(verb, kind, source, tmp_path / "deep" / "x")
    assert code == 2
    assert "1.0 kB are free" in errors
    assert not (tmp_path / "deep").exists()


def test_a_finished_export_needs_no_space(output, tars, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0))
    assert agd("export", "webdataset", output, tars[0], "--tar-bytes", TAR_BYTES)[0] == 0


def test_exports_and_stores_are_verified_like_anything_else(archive, tars, store_folder, digest, tmp_path):
    for source, pattern in ((tars[0], "*.tar"), (archive[0], "latents/c.*"), (store_folder, "latents/c.*")):
        folder = shutil.copytree(source, tmp_path / source.name)
        code, out, _ = agd("verify", folder, "--json")
        assert (code, json.loads(out)["digest"]) == (0, digest)
        victim = next(folder.glob(pattern))
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
        code, out, _ = agd("verify", folder)
        assert code == 1
        assert victim.name in out


def test_a_fine_tuned_unet_becomes_a_folder_that_diffusers_opens(tmp_path):
    adapter = fine_tuned("tiny-sd", tmp_path / "finetune")[1]
    code, _, error = agd("export", "pipeline", adapter, tmp_path / "out")
    assert (code, "--base" in error) == (2, True)
    code, _, error = agd("export", "pipeline", tmp_path, tmp_path / "out", "--base", "builtin:tiny-sd")
    assert (code, error.count("\n")) == (2, 1)
    code, out, _ = agd("export", "pipeline", adapter, tmp_path / "out", "--base", "builtin:tiny-sd", "--json")
    assert (code, json.loads(out)) == (0, {"target": str(tmp_path / "out"), "base": "builtin:tiny-sd"})
    unet = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "out" / "unet")
    assert unet.config.time_cond_proj_dim == 512
