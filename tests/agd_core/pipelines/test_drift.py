import json

import pytest
import torch

import agd_core
from agd_core.pipelines.drift import measure_drift
from agd_core.pipelines.network_adapters import NetworkAdapters
from tests.agd_core.pipelines.stock import arguments, network_of, open_miniature, open_pipeline, write_adapter
from tests.composition_parts import IP_SUBFOLDER, IP_WEIGHTS, ip_image_embeds, write_ip_adapter
from tests.soak import short

SCALE, STEPS = 7.5, 2
STOCK = {"sd": "tiny-sd", "sd-controlnet": "tiny-sd", "sdxl": "tiny-sdxl", "dit": "tiny-dit", "sd3": "tiny-sd3"}
each_pipeline = pytest.mark.parametrize("case", STOCK)


@pytest.fixture
def pipe(case, adapters):
    opened = open_pipeline(case)
    agd_core.load_adapter(opened, adapters(STOCK[case]), name="mine")
    return opened


@pytest.fixture
def sd(adapters):
    opened = open_miniature("tiny-sd")
    agd_core.load_adapter(opened, adapters("tiny-sd"), name="mine")
    return opened


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def call_of(pipe, **more):
    return arguments(pipe) | {"guidance_scale": SCALE, "num_inference_steps": STEPS} | more


def latents(pipe, **more):
    """By hand; DiTPipeline answers with images whatever it is asked for."""
    given = {"generator": seeded()} | call_of(pipe, output_type="latent") | more
    return torch.as_tensor(pipe(**given).images).double()


def squared(a, b):
    return ((a - b) ** 2).mean().item()


@each_pipeline
def test_it_is_three_calls_by_hand(case, pipe):
    student = latents(pipe)
    agd_core.set_enabled(pipe, False)
    teacher, unguided = latents(pipe), latents(pipe, guidance_scale=1.0)
    agd_core.set_enabled(pipe, True)
    drift = measure_drift(pipe, generator=seeded(), **call_of(pipe))
    assert drift.student_teacher == squared(student, teacher) > 0
    assert drift.unguided_teacher == squared(unguided, teacher) > 0
    assert drift.relative == drift.student_teacher / drift.unguided_teacher
    assert drift.compared == ("images" if case == "dit" else "latents")


@each_pipeline
@pytest.mark.parametrize("images", short([3, 1]))
def test_a_student_costs_half_of_its_teacher(case, images, pipe):
    name = "class_labels" if case == "dit" else "prompt"
    seeds = [seeded(number) for number in range(images)]
    drift = measure_drift(pipe, **call_of(pipe, generator=seeds, **{name: arguments(pipe)[name] * images}))
    steps = len(pipe.scheduler.timesteps)  # PNDM takes one more than it is asked for
    assert (drift.student_nfe, drift.teacher_nfe, drift.unguided_nfe) == (steps, 2 * steps, steps)


@each_pipeline
def test_an_identity_adapter_is_as_far_as_no_guidance(case, adapters):
    pipe = open_pipeline(case)
    agd_core.load_adapter(pipe, adapters(STOCK[case], trained=False))
    assert measure_drift(pipe, generator=seeded(), **call_of(pipe)).relative == 1.0


def test_its_numbers_are_plain_data(sd):
    drift = measure_drift(sd, generator=seeded(), **call_of(sd))
    said = drift.as_dict()
    assert json.loads(json.dumps(said)) == said
    assert set(said) == {
        "relative", "student_teacher", "unguided_teacher", "student_nfe", "teacher_nfe", "unguided_nfe", "compared"
    }  # fmt: skip
    assert said["relative"] == drift.relative


def test_given_latents_are_a_seed_too(sd):
    noise = torch.randn(1, 4, 8, 8, generator=seeded())
    agd_core.set_enabled(sd, False)
    teacher = latents(sd, latents=noise, generator=None)
    agd_core.set_enabled(sd, True)
    drift = measure_drift(sd, latents=noise, **call_of(sd))
    assert drift.student_teacher == squared(latents(sd, latents=noise, generator=None), teacher)


def test_noise_that_a_sampler_draws_by_itself_is_the_same_in_all_three_calls(sd):
    import diffusers

    sd.register_modules(scheduler=diffusers.EulerAncestralDiscreteScheduler.from_config(sd.scheduler.config))
    noise = torch.randn(1, 4, 8, 8, generator=seeded())
    before = torch.get_rng_state()
    first, again = (measure_drift(sd, latents=noise, **call_of(sd)) for _ in range(2))
    assert first == again
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("many", [False, True])
def test_a_generator_ends_where_one_call_leaves_it(many, sd):
    import diffusers

    sd.register_modules(scheduler=diffusers.EulerAncestralDiscreteScheduler.from_config(sd.scheduler.config))
    given, by_hand = seeded(), seeded()
    first = measure_drift(sd, generator=[given] if many else given, **call_of(sd))
    sd(generator=by_hand, **call_of(sd, output_type="latent"))
    assert torch.equal(given.get_state(), by_hand.get_state())
    assert measure_drift(sd, generator=given, **call_of(sd)) != first


@pytest.mark.parametrize("enabled", [True, False])
def test_the_adapter_is_on_or_off_as_before(enabled, sd, adapters):
    agd_core.load_adapter(sd, adapters("tiny-sd", trained=False), name="nothing")
    agd_core.set_active(sd, "mine")
    agd_core.set_enabled(sd, enabled)
    expected, hooks = latents(sd), count_hooks(sd)
    drift = measure_drift(sd, generator=seeded(), **call_of(sd))
    assert drift.student_nfe * 2 == drift.teacher_nfe
    assert drift.relative != 1.0, "the active one is measured"
    assert torch.equal(latents(sd), expected)
    assert count_hooks(sd) == hooks


def count_hooks(pipe):
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in network_of(pipe).modules())


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_after_an_error_in_any_of_the_calls_the_pipeline_is_as_before(failing, sd):
    expected, hooks, calls = latents(sd), count_hooks(sd), []

    def interrupt(pipe, step, timestep, kwargs):
        calls.append(step)
        if calls.count(0) == failing:
            raise RuntimeError("the lights went out")
        return kwargs

    with pytest.raises(RuntimeError, match="the lights went out"):
        measure_drift(sd, generator=seeded(), callback_on_step_end=interrupt, **call_of(sd))
    assert torch.equal(latents(sd), expected)
    assert count_hooks(sd) == hooks


def test_one_call_with_the_guided_image_embeddings_serves_all_three(sd, tmp_path):
    write_ip_adapter(tmp_path, sd.unet)
    sd.load_ip_adapter(tmp_path, IP_SUBFOLDER, IP_WEIGHTS, image_encoder_folder=None)
    guided, positive = ({"ip_adapter_image_embeds": ip_image_embeds(guided)} for guided in (True, False))
    student = latents(sd, **positive)
    agd_core.set_enabled(sd, False)
    teacher, unguided = latents(sd, **guided), latents(sd, guidance_scale=1.0, **positive)
    agd_core.set_enabled(sd, True)
    drift = measure_drift(sd, generator=seeded(), **call_of(sd, **guided))
    assert drift.student_teacher == squared(student, teacher)
    assert drift.unguided_teacher == squared(unguided, teacher)
    with pytest.raises(agd_core.InputError, match=r"ip_adapter_image_embeds has 1 rows; give those of CFG"):
        measure_drift(sd, generator=seeded(), **call_of(sd, **positive))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"generator": None}, "give generator= or latents="),
        ({"generator": []}, "give generator= or latents="),
        ({"guidance_scale": 1.0}, "guidance_scale 1 is no guidance"),
        ({"guidance_scale": 11.0}, "outside the range 1 to 10"),
        ({"negative_prompt": "ugly"}, "negative_prompt has no effect"),
        ({"prompt": [""]}, "guidance changes nothing in this call"),
    ],
)
def test_wrong_use_is_one_clear_line(change, complaint, sd):
    with pytest.raises(agd_core.InputError, match=complaint) as caught:
        measure_drift(sd, **({"generator": seeded()} | call_of(sd) | change))
    assert "\n" not in str(caught.value)
    assert network_of(sd).config.time_cond_proj_dim is not None, "the adapter is on"


def test_an_adapter_of_another_guidance_rule_is_not_compared_with_cfg(tmp_path):
    pipe = open_miniature("tiny-sd")
    agd_core.load_adapter(pipe, write_adapter(tmp_path / "other", "tiny-sd", guidance={"kind": "other"}))
    with pytest.raises(agd_core.InputError, match=r"compares with CFG, the active adapter has learnt other$"):
        measure_drift(pipe, generator=seeded(), **call_of(pipe))


def test_the_teacher_of_a_rescaling_adapter_rescales(tmp_path):
    pipe, learnt = open_miniature("tiny-sd"), {"kind": "cfg", "rescale": 0.7}
    agd_core.load_adapter(pipe, write_adapter(tmp_path / "rescaled", "tiny-sd", guidance=learnt))
    drift = measure_drift(pipe, generator=seeded(), **call_of(pipe))
    student = latents(pipe)
    agd_core.set_enabled(pipe, False)
    assert drift.student_teacher == squared(student, latents(pipe, guidance_rescale=0.7))
    pipe = open_miniature("tiny-dit")
    agd_core.load_adapter(pipe, write_adapter(tmp_path / "dit", "tiny-dit", guidance=learnt))
    with pytest.raises(agd_core.InputError, match="a DiTPipeline takes no guidance_rescale, by which the active"):
        measure_drift(pipe, generator=seeded(), **call_of(pipe))


def test_the_teacher_of_an_adapter_with_a_negative_prompt_has_it_too(tmp_path):
    pipe, learnt = open_miniature("tiny-sd"), {"kind": "cfg", "negative_prompt": "ugly"}
    agd_core.load_adapter(pipe, write_adapter(tmp_path / "negative", "tiny-sd", guidance=learnt))
    drifts = [
        measure_drift(pipe, generator=seeded(), **call_of(pipe, prompt=asked)) for asked in ("a red cat", ["a red cat"])
    ]
    student = latents(pipe)
    agd_core.set_enabled(pipe, False)
    teacher = latents(pipe, negative_prompt=["ugly"])
    assert [drift.student_teacher for drift in drifts] == [squared(student, teacher)] * 2


def test_without_an_active_adapter_there_is_nothing_to_measure(sd, adapters):
    agd_core.load_adapter(sd, adapters("tiny-sd"), name="second")
    agd_core.unload(sd, "second")
    with pytest.raises(agd_core.InputError, match="no adapter of this pipeline is active"):
        measure_drift(sd, generator=seeded(), **call_of(sd))
    plain = open_miniature("tiny-sd")
    with pytest.raises(agd_core.InputError, match="no adapter is loaded"):
        measure_drift(plain, generator=seeded(), **call_of(plain))
    with pytest.raises(agd_core.InputError, match="not one of diffusers' pipelines"):
        measure_drift("sd", generator=seeded())
    assert NetworkAdapters.find(plain.unet) is None
