"""`agd doctor` as a person uses it, and the presets against the papers' tables."""

import json

import pytest
import typer
from typer.testing import CliRunner

from agd_core.basics.errors import InputError
from agd_core.models.backbones import BACKBONES
from flows.cli import doctor as command
from flows.preset_files import preset_names
from flows.presets import load_config
from flows.stages import doctor as estimating
from flows.stages.doctor import device_memory_gib, examine
from flows.stages.sizes import Sizes

TINY = ("--set", "methods.0.hidden_width=32", "--set", "base_model.resolution=null", "--set", "sample.batch_size=2")
TINY_MODEL = ("--set", "base_model.source=builtin:tiny-pixart", *TINY)
SD21_BASE, SDXL_BASE = 865_910_724, 2_567_463_684
# from the papers' hyper-parameters: guidance range, conditions x trajectories, batch, gradient steps, learning rate,
# hidden width, and pairs: conditions x stored steps
PAPER = {
    "sd21": ((1.0, 12.0), 500, 8, 5_000, 1e-4, 320, 40_000),
    "sd21-authors": ((1.0, 12.0), 500, 8, 5_000, 1e-4, 320, 499_500),
    "sdxl": ((1.0, 12.0), 500, 1, 20_000, 1e-4, 320, 20_000),
    "sdxl-authors": ((1.0, 12.0), 500, 1, 20_000, 1e-4, 320, 500_000),
    "dit-xl-2-256": ((1.0, 6.0), 4_000, 64, 5_000, 1e-4, 256, 320_000),
    "dit-xl-2-256-authors": ((1.0, 6.0), 4_000, 64, 5_000, 1e-4, 256, 4_000_000),
}
COUNTS = {
    "sd15": (859_520_964, 16, [34_915_520]),
    "sd21": (SD21_BASE, 16, [36_226_240]),
    "sd21-authors": (SD21_BASE, 16, [36_226_240]),
    "sdxl": (SDXL_BASE, 70, [199_760_000]),
    "sdxl-authors": (SDXL_BASE, 70, [199_760_000]),
    "sd3": (2_028_328_000, 24, [91_528_704]),
    "dit-xl-2-256": (749_826_464, 28, [41_463_296, 51_476_992]),
    "dit-xl-2-256-authors": (749_826_464, 28, [41_463_296, 51_476_992]),
}


def run_doctor(*arguments):
    app = typer.Typer()
    app.command()(command.doctor)
    app.command("other")(lambda: None)
    result = CliRunner().invoke(app, ["doctor", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize("name", PAPER)
def test_presets_have_the_papers_hyper_parameters(name):
    config = load_config(name)
    scales, trajectories, batch, steps, rate, width, pairs = PAPER[name]
    assert config.collect.guidance_range == scales
    assert config.collect.trajectories == trajectories
    assert (config.train.batch_size, config.train.steps) == (batch, steps)
    assert (config.train.learning_rate, config.train.warmup_fraction) == (rate, 0.1)
    assert config.train.max_gradient_norm is None
    assert {adapter.hidden_width for adapter in config.methods} == {width}
    assert {adapter.encoder for adapter in config.methods} == {"per-layer"}
    assert config.collect.trajectories * config.collect.stored_steps == pairs
    if not name.endswith("authors"):
        assert config.train.pairs_read == pairs


@pytest.mark.parametrize(
    ("name", "source", "pixels", "scheduler", "dtype", "checkpointing"),
    [
        ("sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5", 512, "ddim", "float32", False),
        ("sd21", "stabilityai/stable-diffusion-2-1", 768, "ddim", "float32", True),
        ("sdxl", "stabilityai/stable-diffusion-xl-base-1.0", 1024, "euler", "bfloat16", True),
        ("sdxl-authors", "stabilityai/stable-diffusion-xl-base-1.0", 1024, "euler", "float32", False),
        ("sd3", "stabilityai/stable-diffusion-3-medium-diffusers", 1024, "flow-euler", "bfloat16", True),
    ],
)
def test_presets_name_their_model_and_how_it_runs(name, source, pixels, scheduler, dtype, checkpointing):
    config = load_config(name)
    assert (config.base_model.source, config.base_model.resolution) == (source, pixels)
    assert (config.collect.scheduler, config.sample.scheduler) == (scheduler, scheduler)
    assert (config.base_model.dtype, config.train.activation_checkpointing) == (dtype, checkpointing)
    assert (config.collect.prompts, config.sample.prompts) == ("builtin:everyday-500", "builtin:everyday-1000")
    assert config.methods[0].kind == "agd-cross-attention"


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_counted_to_the_integer(name):
    found = Sizes(load_config(name)).counts()
    base, sites, adapters = COUNTS[name]
    assert found["base"]["parameters"] == base
    assert [adapter["parameters"] for adapter in found["methods"]] == adapters
    assert {adapter["sites"] for adapter in found["methods"]} == {sites}
    assert found["methods"][0]["percent"] == pytest.approx(100 * adapters[0] / base)


def test_the_sizes_of_every_preset_are_known_without_a_download():
    for name in preset_names():
        config = load_config(name)
        assert Sizes(config).model.kind.class_name in BACKBONES


@pytest.fixture(scope="module")
def found():
    """What `agd doctor --json` prints for a tiny model."""
    return json.loads(run_doctor("sd21", *TINY_MODEL, "--device-memory-gib", "8", "--json").stdout)


def test_json_is_one_object(found):
    assert (found["fits"], found["proposal"], found["device_memory_gib"]) == (True, None, 8)
    train = next(job for job in found["jobs"] if job["name"].startswith("train"))
    assert sum(train["parts_bytes"].values()) == train["peak_bytes"]
    assert train["largest_batch"] > train["batch"] == 8


def test_the_table_shows_parameters_peaks_and_batches(found, monkeypatch):
    monkeypatch.setattr(estimating, "examine", lambda *_: found)  # minutes in the making
    result = run_doctor("sd21", *TINY_MODEL)
    assert result.exit_code == 0, result.stderr
    for part in ("parameters", "encode prompts", "train agd-cross-attention", "sample with guidance", "decode images"):
        assert part in result.stdout
    assert "not verified on a GPU" in result.stdout
    assert "everything fits as configured" in result.stdout


def test_a_network_of_its_own_is_trained_and_sampled_beside_the_base():
    changes = ("base_model.source=builtin:tiny-dit", "base_model.resolution=null", "sample.batch_size=2")
    methods = "methods=[{kind: finetune}, {kind: agd-offset, hidden_width: 16}]"
    jobs = {job["name"]: job for job in examine(load_config("fashion-dit", [*changes, methods]), 8.0)["jobs"]}
    assert [name for name in jobs if name.startswith("sample")] == ["sample with guidance", "sample finetune"]
    base = jobs["train finetune"]["parts_bytes"]["base weights"]
    for part, times in {"adapter weights": 1, "optimizer state": 2}.items():
        assert jobs["train finetune"]["parts_bytes"][part] >= times * base
    assert jobs["train agd-offset"]["parts_bytes"]["optimizer state"] < base
    assert jobs["sample finetune"]["peak_bytes"] > 2 * base


def proposal(gib, *overrides):
    source = ("base_model.source=builtin:tiny-sd3", "base_model.resolution=null", "train.batch_size=2048")
    tiny = ("sample.batch_size=2", "collect.batch_size=2", "methods.0.hidden_width=32", "collect.prompt_count=4")
    large = ("train.activation_checkpointing=false", "base_model.dtype=float32")
    return examine(load_config("sd3", [*source, *tiny, *large, *overrides]), gib)


def test_settings_are_proposed_in_order_and_then_they_fit():
    remedies = ["train.activation_checkpointing=true", "base_model.dtype=bfloat16", "train.optimizer_memory=offloaded"]
    assert proposal(6.4)["proposal"] == remedies[:1]
    all_of_them = proposal(1.9)
    assert not all_of_them["fits"]
    assert all_of_them["proposal"][:3] == remedies
    assert all_of_them["proposal"][3].startswith("train.batch_size=")
    assert proposal(1.9, *all_of_them["proposal"])["fits"]


def test_where_nothing_fits_the_exit_code_is_one():
    result = run_doctor("sd21", *TINY_MODEL, "--device-memory-gib", "1.001")
    assert result.exit_code == 1
    assert "does NOT fit in 1 GiB, whatever is set: take a larger device" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sd21", "--set", "base_model.source=somebody/tuned"), "doctor downloads nothing and knows the sizes of"),
        (("sd21", "--set", "base_model.kind=sdxl"), "base_model: kind is no setting any more"),
        (("sd21", "--set", "collect.prompts=null", *TINY), "collect.prompts"),
        (("sd21", "--device-memory-gib", "0.5"), "--device-memory-gib 0.5: allowed are numbers above 1"),
        (("sd9",), "unknown preset 'sd9'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(arguments, message):
    result = run_doctor(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith("doctor: ")]
    assert len(lines) == 1


def test_without_a_cuda_device_24_gib_are_assumed(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device_memory_gib(None) == (24.0, "24 GiB assumed, no CUDA device here")
    assert device_memory_gib(10) == (10, "as given")
    with pytest.raises(InputError):
        device_memory_gib(float("nan"))
