"""What `agd register` takes, what it keeps, and everything that it refuses."""

import json
import os
from datetime import UTC, datetime

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from flows.cli.app import app
from flows.presets import load_config
from flows.registry import find, registered
from flows.stages.nightly import protocol_of
from flows.workplace import Workplace
from tests.flows.nights import save_untrained


@pytest.fixture
def adapter(teacher, tmp_path):
    return save_untrained(teacher, tmp_path / "adapter")


def agd(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def register(adapter, output, *extra, name="mine", preset="fashion-dit"):
    return agd("register", adapter, "--name", name, "--preset", preset, "--output", output, *extra)


def assert_refused(result, message, output):
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(output.glob("registry/*")) == []


def test_it_keeps_the_protocol_and_where_the_adapter_is(adapter, teacher, tmp_path):
    before = datetime.now(UTC).replace(microsecond=0)
    settings = ["--set", "sample.images=300", "--set", "sample.guidance_scales=[3.0,2.0]"]
    result = register(adapter, tmp_path / "out", *settings)
    assert result.exit_code == 0, result.stderr
    assert f"mine: {adapter}, 300 images, ddim, 20 steps, guidance scale 3" in result.stdout
    entry = find(tmp_path / "out", "mine")
    assert entry.folder == str(adapter)
    assert (entry.preset, entry.overrides) == ("fashion-dit", tuple(settings[1::2]))
    assert (entry.sample.guidance_scales, entry.sample.curve_steps) == ((3.0,), ())
    assert (entry.guidance_scale, entry.sample.images, entry.sample.steps) == (3.0, 300, 20)
    assert entry.base_model.source == "builtin:fashion-dit"
    assert entry.evaluate.extractor == "fashion-classifier"
    assert entry.pipeline_digest == teacher.pipeline_digest()
    assert before <= datetime.fromisoformat(entry.registered_at) <= datetime.now(UTC)
    assert [path.name for path in (tmp_path / "out" / "registry").iterdir()] == ["mine.json"]


def test_the_json_is_the_entry(adapter, tmp_path):
    printed = json.loads(register(adapter, tmp_path / "out", "--json").stdout)
    assert printed == json.loads((tmp_path / "out" / "registry" / "mine.json").read_text())


def test_relative_paths_hold_from_everywhere(adapter, tmp_path, monkeypatch):
    from agd_core.builtin.shipped import BUILTIN_FOLDER

    monkeypatch.chdir(adapter.parent)
    source = os.path.relpath(BUILTIN_FOLDER / "fashion-dit")
    assert register("adapter", "out", "--set", f"base_model.source={source}").exit_code == 0
    entry = find(tmp_path / "out", "mine")
    assert entry.folder == str(adapter)
    assert entry.base_model.source == str(BUILTIN_FOLDER / "fashion-dit")


def test_what_shapes_a_score_shapes_the_protocol(adapter, tmp_path):
    changes = ["sample.images=7", "sample.steps=3", "sample.scheduler=euler", "sample.guidance_scales=[3]"]
    changes += ["sample.seed=2", "evaluate.distance_subsets=3", "evaluate.metrics=[paired]"]
    changes += ["base_model.dtype=bfloat16"]
    assert register(adapter, tmp_path / "out", name="plain").exit_code == 0
    assert register(adapter, tmp_path / "out", "--set", "sample.batch_size=3", name="batch").exit_code == 0
    for number, change in enumerate(changes):
        assert register(adapter, tmp_path / "out", "--set", change, name=f"n{number}").exit_code == 0
    protocols = {entry.name: json.dumps(protocol_of(entry, {})) for entry in registered(tmp_path / "out")[0]}
    assert protocols.pop("batch") == protocols["plain"]
    assert len(set(protocols.values())) == len(protocols) == 1 + len(changes)
    plain = find(tmp_path / "out", "plain")
    assert protocol_of(plain, {"extractor": None}) != protocol_of(plain, {"extractor": "e" * 64})
    assert protocol_of(plain, {}, "a" * 64) != protocol_of(plain, {}, "b" * 64) != protocol_of(plain, {})


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "../mine", "a.b", "ä", "a\n", "x" * 65])
def test_a_name_is_letters_digits_and_dashes(adapter, tmp_path, name):
    result = register(adapter, tmp_path, f"--name={name}")
    assert_refused(result, "must be 1 to 64 letters, digits and dashes, no dash first", tmp_path)


@pytest.mark.parametrize("name", ["a", "9", "Ab-9", "x" * 64])
def test_such_names_are_taken(adapter, tmp_path, name):
    assert register(adapter, tmp_path, name=name).exit_code == 0


def test_a_name_is_taken_once(adapter, tmp_path):
    register(adapter, tmp_path)
    before = (tmp_path / "registry" / "mine.json").read_bytes()
    result = register(adapter, tmp_path, "--set", "sample.images=9")
    assert result.exit_code == 2
    assert "adapter 'mine' is registered already; agd adapters --remove mine takes it out" in result.stderr
    assert (tmp_path / "registry" / "mine.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "nonsense"], "unknown preset 'nonsense'; presets: "),
        (["--set", "sample.imagez=5"], "sample.imagez: no such setting; allowed here: "),
        (["--set", "sample.images=1"], "sample.images: Input should be greater than or equal to 2"),
        (["--set", "sample.steps=5000"], "sample.steps: "),
        (["--set", "base_model.source=/no/folder"], "base model folder /no/folder does not exist"),
        (["--set", "sample.guidance_scales=[9.5]"], "guidance scale 9.5 is outside the range 1 to 5 that adapter "),
        (
            ["--set", "guidance.guided_channels=3"],
            "has learnt the guidance rule guided_channels none, kind cfg, the",
        ),
        (["--set", "sample.guidance_scales=[0.5]"], "guidance scale 0.5 is outside the range 1 to 5 that adapter "),
    ],
)
def test_settings_that_cannot_be_evaluated_are_refused(adapter, tmp_path, options, message):
    assert_refused(register(adapter, tmp_path, *options), message, tmp_path)


@pytest.mark.parametrize("preset", ["tiny-sd", "tiny-sd3"])
def test_a_night_of_a_model_that_takes_prompts_can_begin(tmp_path, preset):
    output, model = tmp_path / "out", load_config(preset).base_model.build(torch.device("cpu"))
    adapter = save_untrained(model, tmp_path / "adapter")
    assert register(adapter, output, "--set", "sample.guidance_scales=[4.0]", preset=preset).exit_code == 0
    assert len(find(output, "mine").run(Workplace(output)).sampled) > 1


def test_the_teacher_of_the_night_has_the_negative_prompt_that_was_learnt(tmp_path):
    output, model, preset = tmp_path / "out", load_config("tiny-sd").base_model.build(torch.device("cpu")), "tiny-sd"
    adapter = save_untrained(model, tmp_path / "adapter", negative_prompt="ugly")
    steps = ["--set", "sample.guidance_scales=[4.0]"]
    assert_refused(register(adapter, output, *steps, preset=preset), "--set collect.negative_prompt=TEXT", output)
    named = register(adapter, output, *steps, "--set", "collect.negative_prompt=ugly", preset=preset)
    assert named.exit_code == 0, named.stderr
    entry = find(output, "mine")
    assert protocol_of(entry, {})["guidance"]["negative_prompt"] == "ugly"
    assert entry.run(Workplace(output)).sampled.negative_prompt == "ugly"


def changed(adapter, **fields):
    content = json.loads((adapter / "adapter.json").read_text())
    (adapter / "adapter.json").write_text(json.dumps(content | fields))


def without_a_weight(adapter):
    weights = load_file(adapter / "adapter.safetensors")
    weights.popitem()
    save_file(weights, adapter / "adapter.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda adapter: (adapter / "adapter.json").unlink(), "holds no readable adapter"),
        (lambda adapter: (adapter / "adapter.json").write_text("[]"), "holds no readable adapter"),
        (lambda adapter: (adapter / "adapter.json").write_text("not json"), "holds no readable adapter"),
        (lambda adapter: changed(adapter, guidance_range=None), "holds no readable adapter"),
        (lambda adapter: changed(adapter, base_fingerprint="0" * 64), "this base model is another one"),
        (lambda adapter: (adapter / "adapter.safetensors").unlink(), "does not hold this adapter's weights"),
        (
            lambda adapter: (adapter / "adapter.safetensors").write_bytes(b"torn"),
            "does not hold this adapter's weights",
        ),
        (without_a_weight, "does not hold this adapter's weights"),
    ],
)
def test_what_cannot_be_loaded_is_refused(adapter, tmp_path, damage, message):
    damage(adapter)
    assert_refused(register(adapter, tmp_path / "out"), message, tmp_path / "out")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert_refused(register(tmp_path / "nothing", tmp_path), "nothing holds no readable adapter", tmp_path)


def test_another_base_than_the_presets_is_refused(adapter, tmp_path):
    """The very folder of the teacher, with one weight moved."""
    import shutil

    from agd_core.builtin.shipped import BUILTIN_FOLDER

    base = shutil.copytree(BUILTIN_FOLDER / "fashion-dit", tmp_path / "base")
    path = base / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    name = sorted(weights)[0]
    save_file({**weights, name: weights[name] + 1}, path, {"format": "pt"})
    result = register(adapter, tmp_path, "--set", f"base_model.source={base}")
    assert_refused(result, "was trained on base builtin:fashion-dit", tmp_path)


def test_an_adapter_can_be_taken_out(adapter, tmp_path):
    register(adapter, tmp_path)
    assert "mine: not evaluated yet" in agd("adapters", "--output", tmp_path).stdout
    removed = agd("adapters", "--output", tmp_path, "--remove", "mine", "--json")
    assert json.loads(removed.stdout) == {"adapters": [], "problems": []}
    assert list((tmp_path / "registry").iterdir()) == []
    again = agd("adapters", "--output", tmp_path, "--remove", "mine")
    assert_refused(again, f"no adapter 'mine' in {tmp_path / 'registry'}; registered: none", tmp_path)


def test_a_damaged_entry_is_named_and_can_be_taken_out(adapter, tmp_path):
    for name in ("first", "torn", "wrong"):
        register(adapter, tmp_path, name=name)
    torn, wrong = (tmp_path / "registry" / f"{name}.json" for name in ("torn", "wrong"))
    torn.write_bytes(torn.read_bytes()[:200])
    wrong.write_bytes((tmp_path / "registry" / "first.json").read_bytes())
    found = json.loads(agd("adapters", "--output", tmp_path, "--json").stdout)
    assert [entry["name"] for entry in found["adapters"]] == ["first"]
    assert [problem.partition(" is no ")[0] for problem in found["problems"]] == [str(torn), str(wrong)]
    assert agd("nightly", "--output", tmp_path, "--name", "torn").exit_code == 2
    assert agd("adapters", "--output", tmp_path, "--remove", "torn").exit_code == 0
    assert not torn.exists()


def test_listing_makes_no_folder(tmp_path):
    found = agd("adapters", "--output", tmp_path / "nowhere", "--json")
    assert json.loads(found.stdout) == {"adapters": [], "problems": []}
    assert not (tmp_path / "nowhere").exists()
