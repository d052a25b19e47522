"""An adapter among a LoRA, an IP-Adapter and a ControlNet: whatever is loaded first, nothing is lost."""

import copy
import logging
import re
from itertools import permutations

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

import agd_core
from agd_core.builtin.miniatures import miniature_folder
from agd_core.pipelines.drift import measure_drift
from tests.agd_core.pipelines.stock import arguments, as_kind, network_of, open_miniature, quiet
from tests.composition_parts import (
    IP_SUBFOLDER,
    IP_WEIGHTS,
    fine_tuned,
    inject_lora,
    ip_image_embeds,
    share,
    tiny_controlnet,
    write_ip_adapter,
    write_lora,
)
from tests.soak import short

SCALE = 7.5
KINDS = {
    "tiny-sd": ("StableDiffusionPipeline", "StableDiffusionControlNetPipeline"),
    "tiny-sdxl": ("StableDiffusionXLPipeline", "StableDiffusionXLControlNetPipeline"),
}
PARTS = ("adapter", "lora", "ip-adapter")
HARMLESS = re.compile(
    "No LoRA keys associated to CLIPText"
    "|image_encoder is not loaded since `image_encoder_folder=None` passed"
    r"|There are modules in \w+ that should be kept in float32: \[\]"
    "|Expected types for id2label"
)
"""Of any LoRA without text encoders, of image embeddings, in every `from_pipe`, when the tiny DiT is opened."""
each_model = pytest.mark.parametrize("name", KINDS)


class Kit:
    """One miniature's parts, and pipelines made of them."""

    def __init__(self, name, folder, adapter):
        self.name, self.folder, self.adapter = name, folder, adapter
        self.stock = open_miniature(name)
        write_lora(folder / "lora", self.stock.unet)
        write_ip_adapter(folder / "ip", self.stock.unet)
        self.controlnet = tiny_controlnet(self.stock.unet)

    def load(self, part, pipe):
        loads = {
            "adapter": lambda: agd_core.load_adapter(pipe, self.adapter),
            "lora": lambda: pipe.load_lora_weights(self.folder / "lora"),
            "ip-adapter": lambda: pipe.load_ip_adapter(
                self.folder / "ip", IP_SUBFOLDER, IP_WEIGHTS, image_encoder_folder=None
            ),
        }
        loads[part]()

    def constructed(self, pipe):
        """A ControlNet pipeline by its constructor."""
        return quiet(getattr(diffusers, KINDS[self.name][1])(**pipe.components, **self._controlled(pipe)))

    def derived(self, pipe):
        """A ControlNet pipeline by `from_pipe`."""
        return quiet(getattr(diffusers, KINDS[self.name][1]).from_pipe(pipe, controlnet=self.controlnet))

    def _controlled(self, pipe):
        checker = {"requires_safety_checker": False} if self.name == "tiny-sd" else {}
        return {"controlnet": self.controlnet, **checker}

    def compose(self, order, controlnet="before"):
        pipe = copy.deepcopy(self.stock)
        pipe = self.constructed(pipe) if controlnet == "before" else pipe
        for part in order:
            self.load(part, pipe)
        return self.derived(pipe) if controlnet == "after" else pipe


@pytest.fixture(scope="module")
def kits(tmp_path_factory, adapters):
    return {name: Kit(name, tmp_path_factory.mktemp(name), adapters(name)) for name in KINDS}


@pytest.fixture
def kit(name, kits):
    return kits[name]


@pytest.fixture(scope="module")
def expected(kits):
    """(one pass, composed teacher, drift) of each miniature; the teacher's pipeline never had an adapter."""
    found = {}
    for name, kit in kits.items():
        teacher, pipe = kit.compose(("lora", "ip-adapter")), kit.compose(PARTS)
        found[name] = drawn(pipe), drawn(teacher, two_passes=True), drift_of(pipe)
    return found


@pytest.fixture
def complaints():
    """What diffusers, peft and transformers warn about."""
    said = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    loggers = [logging.getLogger(library) for library in ("diffusers", "peft", "transformers", "accelerate")]
    for logger in loggers:
        logger.addHandler(handler)
    yield lambda: [message for message in said if not HARMLESS.match(message)]
    for logger in loggers:
        logger.removeHandler(handler)


def call_of(pipe, **more):
    return arguments(pipe) | {"guidance_scale": SCALE, "num_inference_steps": 2} | more


def drawn(pipe, two_passes=False, **more):
    """Images by the user's own call. With two passes, image embeddings take the form of CFG."""
    embeds = {"ip_adapter_image_embeds": ip_image_embeds(two_passes)} if has_ip_adapter(pipe) else {}
    seeded = torch.Generator().manual_seed(0)
    return np.asarray(pipe(**call_of(pipe, generator=seeded, output_type="np", **embeds, **more)).images)


def has_ip_adapter(pipe):
    return getattr(network_of(pipe), "encoder_hid_proj", None) is not None


@each_model
@pytest.mark.parametrize("controlnet", short(["after", "before"]))
@pytest.mark.parametrize("order", short(permutations(PARTS), keep=(0, 5)), ids="-".join)
def test_the_order_of_loading_changes_no_bit_and_no_drift(name, order, controlnet, kit, expected, complaints):
    pipe = kit.compose(order, controlnet)
    one_pass, teacher, drift = expected[name]
    assert np.array_equal(drawn(pipe), one_pass)
    assert drift_of(pipe) == drift
    assert drift.student_teacher > 0
    assert drift.teacher_nfe == 2 * drift.student_nfe == 2 * len(pipe.scheduler.timesteps)
    agd_core.set_enabled(pipe, False)
    assert np.array_equal(drawn(pipe, two_passes=True), teacher)
    assert not complaints(), complaints()


@each_model
@pytest.mark.parametrize("part", [*PARTS, "controlnet"])
def test_every_part_is_in_effect_in_the_one_pass(name, part, kit, expected):
    one_pass, teacher, _ = expected[name]
    order = [each for each in PARTS if each != part]
    settings = {"guidance_scale": 1.0} if part == "adapter" else {}
    without = drawn(kit.compose(order, "none" if part == "controlnet" else "before"), **settings)
    assert share(without - one_pass, one_pass) > 0.005
    assert share(teacher - one_pass, one_pass) > 0.005


@pytest.mark.parametrize("name", ["tiny-sd"])
@pytest.mark.parametrize("part", PARTS)
def test_a_part_can_leave_again(name, part, kit):
    rest = [each for each in PARTS if each != part]
    pipe = kit.compose(PARTS)
    leave = {"adapter": agd_core.unload, "lora": type(pipe).unload_lora_weights}
    leave.get(part, type(pipe).unload_ip_adapter)(pipe)
    two_passes = part == "adapter"
    assert np.array_equal(drawn(pipe, two_passes), drawn(kit.compose(rest), two_passes))


@each_model
def test_a_fine_tuned_sibling_is_taken_only_where_that_is_said(name, kit, tmp_path):
    sibling = quiet(DiffusionPipeline.from_pretrained(fine_tuned(miniature_folder(name), tmp_path / "sibling")))
    stock = drawn(sibling, two_passes=True)
    kit.load("lora", sibling)
    with pytest.raises(agd_core.InputError, match=r"have other values here.*allow_sibling=True"):
        agd_core.load_adapter(sibling, kit.adapter)
    agd_core.load_adapter(sibling, kit.adapter, allow_sibling=True)
    with_lora = drift_of(sibling)
    sibling.unload_lora_weights()
    alone = drift_of(sibling)
    base = drift_of(kit.compose(["adapter"], "none"))
    assert len({with_lora.student_teacher, alone.student_teacher, base.student_teacher}) == 3
    assert with_lora.teacher_nfe == 2 * with_lora.student_nfe
    agd_core.set_enabled(sibling, False)
    assert np.array_equal(drawn(sibling, two_passes=True), stock)


def drift_of(pipe):
    embeds = {"ip_adapter_image_embeds": ip_image_embeds(True)} if has_ip_adapter(pipe) else {}
    return measure_drift(pipe, generator=torch.Generator().manual_seed(0), **call_of(pipe, **embeds))


@each_model
@pytest.mark.parametrize("task", short(["Inpaint", "Img2Img"]))
def test_image_to_image_and_inpainting_from_the_same_components(name, task, kit):
    kind = KINDS[name][0].replace("Pipeline", f"{task}Pipeline")
    before = kit.compose([], "none")
    made_before = as_kind(before, kind)
    for part in PARTS:
        kit.load(part, before)
    made_after = as_kind(kit.compose(PARTS[::-1], "none"), kind)
    one_pass = drawn(made_before)
    assert np.array_equal(drawn(made_after), one_pass)
    assert share(drawn(as_kind(kit.compose(["adapter", "ip-adapter"], "none"), kind)) - one_pass, one_pass) > 0.005
    drift = drift_of(made_before)
    assert drift.teacher_nfe == 2 * drift.student_nfe


@pytest.mark.parametrize("name", ["tiny-sd3", "tiny-dit"])
def test_a_lora_before_or_after_in_the_transformers(name, adapters, tmp_path, complaints):
    images = {}
    for order in permutations(["adapter", "lora"]):
        pipe = open_miniature(name)
        write_lora(tmp_path, pipe.transformer)
        inject = {"tiny-dit": lambda pipe: inject_lora(pipe.transformer, tmp_path)}
        loads = {
            "lora": inject.get(name, lambda pipe: pipe.load_lora_weights(tmp_path)),
            "adapter": lambda pipe: agd_core.load_adapter(pipe, adapters(name)),
        }
        for part in order:
            loads[part](pipe)
        one_pass, drift = drawn(pipe), drift_of(pipe)
        agd_core.set_enabled(pipe, False)
        images[order] = one_pass, drawn(pipe), drift
    first, second = images.values()
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    assert first[2] == second[2]
    assert first[2].teacher_nfe == 2 * first[2].student_nfe
    plain = open_miniature(name)
    agd_core.load_adapter(plain, adapters(name))
    assert share(drawn(plain) - first[0], first[0]) > 0.005
    assert not complaints(), complaints()
