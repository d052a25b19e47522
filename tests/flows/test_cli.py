"""The command line as a person uses it: real processes, real signals."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.stages.verify import verify
from tests.conftest import SMALL
from tests.soak import short

AGD = [sys.executable, "-m", "flows.cli"]
SETTINGS = [part for override in SMALL for part in ("--set", override)]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def agd(*arguments):
    return subprocess.run([*AGD, *arguments], capture_output=True, text=True, env=ENVIRONMENT, check=False)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    output = tmp_path_factory.mktemp("cli")
    return output, agd("distill", "fashion-dit", *SETTINGS, "--output", str(output), "--json")


def test_json_is_all_that_standard_output_holds(distilled):
    output, result = distilled
    assert result.returncode == 0, result.stderr
    metrics = json.loads(result.stdout)
    assert metrics == json.loads((output / "metrics.json").read_text())
    assert set(metrics) >= {"rows", "curve", "protocol", "artefacts"}
    assert (output / "report.html").is_file()


def test_a_second_run_says_that_it_is_cached_and_prints_the_table(distilled):
    result = agd("distill", "fashion-dit", *SETTINGS, "--output", str(distilled[0]))
    assert result.returncode == 0
    assert "cached" in result.stderr
    assert "training" not in result.stderr
    assert all(name in result.stdout for name in ("no guidance", "CFG", "agd-offset", "report.html"))


def test_verify_says_ok_and_then_names_the_damage(distilled):
    output = distilled[0]
    result = json.loads(agd("verify", str(output), "--json").stdout)
    assert result["ok"]
    assert result["problems"] == []
    shard = next((output / "artefacts").glob("trajectories-*/store/latents/c.1.0.0.0.0.0"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    damaged = agd("verify", str(output))
    assert damaged.returncode == 1
    assert str(shard) in damaged.stdout
    shard.write_bytes(whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["distill", "nonsense"], "unknown preset 'nonsense'; presets: "),
        (["distill", "missing.yaml"], "configuration file missing.yaml does not exist"),
        (["distill", "fashion-dit", "--set", "train.stepz=5"], "train.stepz: no such setting; allowed here: steps, "),
        (
            ["distill", "fashion-dit", "--set", "train.steps=-5"],
            "train.steps: Input should be greater than or equal to 1",
        ),
        (["distill", "fashion-dit", "--set", "train.steps"], "is not of the form section.setting=value"),
        (
            ["collect", "fashion-dit", "--set", "collect.guidance_scale_min=9"],
            "collect: guidance_scale_min 9 must be below guidance_scale_max 5",
        ),
        (["collect", "fashion-dit", "--set", "base_model.source=/no/folder"], "folder /no/folder does not exist"),
        (["collect", "fashion-dit", "--set", "collect.trajectories=900000000000"], "MB are free"),
        (["collect", "fashion-dit", "--device", "cuda:77"], "device 'cuda:77' is not available here"),
        (["collect", "fashion-dit", "--device", "meta"], "unknown device 'meta'; allowed: auto, cpu, cuda, cuda:N"),
        (
            ["collect", "fashion-dit", "--set", "sample.curve_steps=[-1]"],
            "sample.curve_steps.0: Input should be greater",
        ),
        (
            ["collect", "fashion-dit", "--set", "sample.guidance_scales=[.nan]"],
            "sample.guidance_scales.0: Input should be",
        ),
        (["collect", "fashion-dit", "--set", "sample.guidance_scales=[2,2]"], "must name every value once"),
        (
            ["collect", "fashion-dit", "--set", "evaluate.extractor=vgg"],
            "evaluate.extractor: allowed are fashion-classifier, inception-v3",
        ),
        (["collect", "fashion-dit", "--set", "guidance.guided_channels=9"], "exceeds the 4 channels"),
        (
            ["collect", "fashion-dit", "--set", "methods.2.hidden_wdith=3"],
            "methods.2.hidden_wdith: no such setting; allowed here: ",
        ),
        (["collect", "fashion-dit", "--set", "methods.9.hidden_width=3"], "names no setting of this configuration"),
        (["collect", "fashion-dit", "--output", "/dev/null"], "output /dev/null is not a folder that can be made"),
        (["verify", "/no/folder"], "folder /no/folder does not exist"),
        (["pretrain", "--data", "/no/folder"], "Fashion-MNIST file /no/folder/"),
        (["pretrain", "fashion"], "world 'fashion' is unknown; allowed: fashion-dit, emoji-sd, emoji-judge"),
        (["pretrain", "emoji-sd", "--base", "builtin:tiny-sd"], "emoji-sd is trained from nothing: leave the base out"),
        (["pretrain", "emoji-sd-food", "--base", "/no/folder"], "base model folder /no/folder does not exist"),
        (["pretrain", "emoji-sd-lora", "--base", "builtin:tiny-dit"], "a relative needs a StableDiffusionPipeline"),
        (["pretrain", "emoji-sd", "--size", "big"], "size 'big' of emoji-sd is unknown; allowed: cpu, gpu"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path):
    extra = [] if arguments[0] == "verify" or "--output" in arguments else ["--output", str(tmp_path)]
    result = CliRunner().invoke(app, [*arguments, *extra])
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_help_lists_the_commands():
    text = CliRunner().invoke(app, ["--help"]).stdout
    assert all(
        name in text for name in ("distill", "collect", "train", "sample", "evaluate", "verify", "pretrain", "presets")
    )
    assert "--set" in CliRunner().invoke(app, ["distill", "--help"]).stdout


def test_the_process_itself_exits_with_2():
    result = agd("distill", "nonsense")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("agd: unknown preset")


def start(output, *overrides):
    command = [*AGD, "collect", "fashion-dit", *SETTINGS, "--output", str(output)]
    command += [
        part
        for override in ("collect.trajectories=100", "collect.steps=30", *overrides)
        for part in ("--set", override)
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def wait_for_units(process, output, count):
    while len(list(output.glob("artefacts/trajectories-*/store/index/*.parquet"))) < count:
        assert process.poll() is None
        time.sleep(0.02)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    output = tmp_path_factory.mktemp("straight")
    process = start(output)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return verify(output)["digest"]


@pytest.mark.parametrize(
    ("number", "code"), short([(signal.SIGTERM, 130), (signal.SIGKILL, -9), (signal.SIGINT, 130)], several=True)
)
def test_a_killed_collection_resumes_to_the_same_content(uninterrupted, tmp_path, number, code):
    process = start(tmp_path)
    wait_for_units(process, tmp_path, 2)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == code, errors
    committed = len(list(tmp_path.glob("artefacts/trajectories-*/store/index/*.parquet")))
    assert 2 <= committed < 25
    assert not verify(tmp_path)["ok"]
    resumed = start(tmp_path)
    _, errors = resumed.communicate()
    assert resumed.returncode == 0
    assert f"{committed} of 25 units there already" in errors
    result = verify(tmp_path)
    assert result["ok"], result["problems"]
    assert result["digest"] == uninterrupted
