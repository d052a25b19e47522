"""A base model whose scheduler we cannot walk is refused before its weights are read, in one line that names it."""

import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch

from agd_core.basics.errors import InputError
from agd_core.builtin.miniatures import miniature_folder
from agd_core.models.base_schedule import KNOWN, check_schedule
from agd_core.models.config import BaseModelConfig
from agd_core.models.schedulers import allowed_samplers, build_scheduler

DIFFUSION = {"_class_name": "DDIMScheduler", "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
SOLVER = {"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction", "use_flow_sigmas": True}
OF_DIFFUSERS = sorted(name for name in dir(diffusers) if name.endswith("Scheduler") and not name.startswith("Flax"))


def stored(class_name):
    """What the class itself writes, empty where it cannot be made here."""
    try:
        return json.loads(getattr(diffusers, class_name)().to_json_string())
    except (ImportError, TypeError, ValueError, AttributeError):
        return {"_class_name": class_name}


def refused(config, named=None):
    with pytest.raises(InputError) as caught:
        check_schedule(config, named, "base model mine")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # numpy's, of what some of them compute
@pytest.mark.parametrize("class_name", OF_DIFFUSERS)
def test_every_scheduler_of_diffusers_is_walked_as_it_is_or_refused_by_name(class_name):
    config = stored(class_name)
    if class_name not in KNOWN:
        assert f"its scheduler {class_name} is none that we can walk; allowed: DDIMScheduler, " in refused(config)
        return
    if class_name == "DPMSolverSDEScheduler":  # wants another package; its schedule is made as KDPM2's
        config |= {key: DIFFUSION[key] for key in DIFFUSION if key != "_class_name"} | {"num_train_timesteps": 1000}
    check_schedule(config, class_name, "base model mine")
    own = getattr(diffusers, class_name)
    for sampler in allowed_samplers(config):
        ours = build_scheduler(sampler, config, 5)
        if class_name != "DPMSolverSDEScheduler" and hasattr(own.from_config(config), "alphas_cumprod"):
            assert torch.equal(ours.alphas_cumprod, own.from_config(config).alphas_cumprod)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "its scheduler of no name is none that we can walk"),
        ({"_class_name": "MyScheduler"}, "its scheduler MyScheduler is none"),
        (DIFFUSION | {"prediction_type": "x0"}, "prediction_type is 'x0', allowed: epsilon, v_prediction, sample"),
        (DIFFUSION | {"prediction_type": None}, "prediction_type is None"),
        (DIFFUSION | {"prediction_type": "flow_prediction"}, "prediction_type is 'flow_prediction'"),
        (SOLVER | {"use_flow_sigmas": False}, "with use_flow_sigmas false"),
        (SOLVER | {"prediction_type": "epsilon"}, "with use_flow_sigmas true"),
        (SOLVER | {"flow_shift": "3"}, "flow_shift is '3', allowed: a number above 0"),
        (FLOW | {"shift": 0}, "shift is 0"),
        (FLOW | {"shift": float("nan")}, "shift is nan"),
        (FLOW | {"invert_sigmas": True}, "invert_sigmas is true"),
        (FLOW | {"use_dynamic_shifting": True, "base_image_seq_len": 4096}, "are equal"),
        (
            DIFFUSION | {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"},
            "timestep_type is 'cont",
        ),
        (DIFFUSION | {"trained_betas": [0.1, 0.2]}, "trained_betas must be 1000 numbers in"),
        (DIFFUSION | {"trained_betas": "many"}, "trained_betas must be"),
        (DIFFUSION | {"beta_start": "0.1"}, "beta_start is '0.1'"),
        (DIFFUSION | {"beta_end": True}, "beta_end is True"),
        (DIFFUSION | {"num_train_timesteps": 0}, "num_train_timesteps is 0"),
        ({"_class_name": "HeunDiscreteScheduler", "beta_schedule": "linear"}, "it does not say its beta_start"),
    ],
)
def test_what_we_do_not_walk_is_said(config, words):
    assert words in refused(config)


def test_the_class_that_the_pipeline_loads_counts_as_well():
    assert "EDMEulerScheduler is none" in refused(DIFFUSION, "EDMEulerScheduler")
    check_schedule({key: DIFFUSION[key] for key in ("beta_start", "beta_end")}, "DDIMScheduler", "mine")


@pytest.mark.parametrize("betas", [[0.001 + 1e-5 * step for step in range(1000)]])
def test_trained_betas_are_walked(betas):
    config = DIFFUSION | {"trained_betas": betas}
    check_schedule(config, None, "mine")
    for sampler in allowed_samplers(config):
        assert torch.allclose(1 - build_scheduler(sampler, config, 4).alphas, torch.tensor(betas), atol=1e-6)


def test_a_schedule_that_one_sampler_does_not_know_is_one_line():
    sigmoid = DIFFUSION | {"_class_name": "DDPMScheduler", "beta_schedule": "sigmoid"}
    build_scheduler("ddpm", sigmoid, 4)
    with pytest.raises(InputError, match=r"sampler 'ddim' cannot be made from .*: sigmoid is not implemented"):
        build_scheduler("ddim", sigmoid, 4)


ZERO_SNR = DIFFUSION | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_zero_terminal_snr_with_epsilon_is_named_before_any_step(sampler):
    with pytest.raises(InputError, match=rf"sampler '{sampler}': its step at timestep 999 has zero terminal SNR"):
        build_scheduler(sampler, ZERO_SNR, 4)
    build_scheduler(sampler, ZERO_SNR | {"prediction_type": "v_prediction"}, 4)
    build_scheduler(sampler, ZERO_SNR | {"timestep_spacing": "leading"}, 4)
    for other in ("dpm-solver++", "euler"):
        build_scheduler(other, ZERO_SNR, 4)


@pytest.fixture
def folder(tmp_path):
    """A miniature's folder, to be changed."""
    return shutil.copytree(miniature_folder("tiny-sd"), tmp_path / "base")


def changed(path: Path, **more):
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def opening(folder):
    return BaseModelConfig(source=str(folder)).build(torch.device("cpu"))


def test_a_base_is_refused_before_its_weights_are_read(folder):
    for weights in folder.glob("*/*.safetensors"):
        weights.unlink()
    changed(folder / "model_index.json", scheduler=["diffusers", "EDMDPMSolverMultistepScheduler"])
    with pytest.raises(InputError, match=r"base model \S*base: its scheduler EDMDPMSolverMultistepScheduler is none"):
        opening(folder)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_quantised_base_is_named(folder, part):
    changed(folder / part / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(InputError, match=rf"its {part} is stored quantised \(bitsandbytes\); distil the model"):
        opening(folder)
