import json
import math
import os
import re
import resource
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import agd_core
from agd_core.basics.checksums import as_text, sums_of
from agd_core.data.subjects import Subjects
from agd_core.guidance import ClassifierFreeGuidance
from agd_core.methods import ModulatedMlpConfig, OffsetConfig
from agd_core.methods.adapter_files import AdapterCard, open_adapter, read_adapter, read_card, save_adapter
from agd_core.methods.adapter_weights import read_weights
from agd_core.methods.base_sketch import load_sketch
from storage.artefacts import ArtefactStore

RULE = ClassifierFreeGuidance().identity()


@pytest.fixture
def saved(teacher, tmp_path):
    adapter = ModulatedMlpConfig(hidden_width=8, bottleneck_width=4).build(teacher.backbone)
    with torch.no_grad():
        for layer in adapter.layers:
            layer.up.weight.normal_(generator=torch.Generator().manual_seed(1))
    card = AdapterCard.of(teacher, adapter, "builtin:fashion-dit", RULE, (1.0, 5.0), "d" * 64)
    save_adapter(adapter, card, teacher.network, tmp_path / "mine")
    return adapter, card, tmp_path / "mine"


def test_one_line_loads_it(teacher, saved):
    adapter, card, folder = saved
    call = torch.randn(2, 4, 8, 8), torch.full((2,), 300.0), Subjects(teacher).ask([1, 2], 2.0)
    with adapter.installed(teacher) as expected:
        wanted = expected.predict(*call)
    with agd_core.load_student(teacher, folder) as student:
        assert torch.equal(student.predict(*call), wanted)
    assert read_card(folder) == (adapter.config, card)


def test_the_json_names_base_method_range_and_training(saved):
    content = json.loads((saved[2] / "adapter.json").read_text())
    assert content["method"]["kind"] == "agd-modulated-mlp"
    assert content["guidance_range"] == [1.0, 5.0]
    assert len(content["base_fingerprint"]) == len(content["training_digest"]) == 64


def test_the_json_says_which_guidance_rule_was_learnt(teacher, saved):
    adapter, _, folder = saved
    assert read_card(folder)[1].guidance == json.loads((folder / "adapter.json").read_text())["guidance"] == RULE
    other = {"kind": "other", "strength": [1.5]}
    save_adapter(adapter, replace(saved[1], guidance=other), teacher.network, folder)
    assert read_card(folder)[1].guidance == other


def test_an_adapter_of_a_format_without_it_is_refused_in_one_line(saved):
    change_card(saved, format_version=2)
    with pytest.raises(agd_core.InputError, match=r"holds an adapter of format 2, we read format 3: train it again$"):
        read_card(saved[2])


def test_saving_twice_gives_equal_bytes(teacher, saved, tmp_path):
    adapter, card, folder = saved
    save_adapter(adapter, card, teacher.network, tmp_path / "again")
    for name in ("adapter.safetensors", "adapter.json", "base_sketch.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_another_base_is_refused(teacher, saved):
    content = json.loads((saved[2] / "adapter.json").read_text())
    (saved[2] / "adapter.json").write_text(json.dumps(content | {"base_fingerprint": "0" * 64}))
    with pytest.raises(agd_core.InputError, match="this base model is another one"):
        agd_core.load_student(teacher, saved[2])


def test_a_folder_without_adapter_is_one_clear_line(teacher, tmp_path):
    with pytest.raises(agd_core.InputError, match="holds no readable adapter") as caught:
        agd_core.load_student(teacher, tmp_path)
    assert "\n" not in str(caught.value)


def weights_of(saved, **changed):
    """Write the adapter's weights with changed tensors; None leaves one out."""
    path = saved[2] / "adapter.safetensors"
    tensors = load_file(path) | changed
    save_file({name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}, path)


NAME, SHAPE = "layers.0.up.bias", (128,)
NOT_WEIGHTS = {
    "NaN": (torch.full(SHAPE, math.nan), "holds NaN or infinite values"),
    "infinity": (torch.full(SHAPE, -math.inf), "holds NaN or infinite values"),
    "one NaN": (torch.zeros(SHAPE).index_fill(0, torch.tensor([5]), math.nan), "holds NaN or infinite values"),
    "huge": (torch.full(SHAPE, -1e30), "holds a value of 1e+30; weights are at most 65504"),
    "just too large": (torch.full(SHAPE, 65536.0), "holds a value of 6.55e+04"),
    "bool": (torch.ones(SHAPE).bool(), "is of type BOOL"),
    "int8": (torch.ones(SHAPE, dtype=torch.int8), "is of type I8"),
    "int64": (torch.ones(SHAPE, dtype=torch.int64), "is of type I64"),
    "float64": (torch.ones(SHAPE, dtype=torch.float64), "is of type F64"),
    "float8": (torch.ones(SHAPE).to(torch.float8_e4m3fn), "is of type F8_E4M3"),
    "complex": (torch.ones(SHAPE, dtype=torch.complex64), "is of type C64"),
    "shape": (torch.zeros(129), "has shape [129] instead of [128]"),
    "another number of dimensions": (torch.zeros(1, 128), "has shape [1, 128] instead of [128]"),
    "empty": (torch.zeros(0), "has shape [0] instead of [128]"),
    "missing": (None, "tensors are missing, e.g. layers.0.up.bias"),
}


@pytest.mark.parametrize("case", NOT_WEIGHTS)
def test_what_is_no_weight_is_refused_by_name(teacher, saved, case):
    tensor, complaint = NOT_WEIGHTS[case]
    weights_of(saved, **{NAME: tensor})
    with pytest.raises(agd_core.InputError, match=re.escape(complaint)) as caught:
        agd_core.load_student(teacher, saved[2])
    assert NAME in str(caught.value)
    assert str(saved[2] / "adapter.safetensors") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tensor_that_is_not_the_adapters_is_refused_by_name(teacher, saved):
    weights_of(saved, more=torch.zeros(3))
    with pytest.raises(agd_core.InputError, match=r"1 tensors are not this adapter's, e\.g\. more"):
        agd_core.load_student(teacher, saved[2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_and_large_ones_are_weights(teacher, saved, dtype):
    weights_of(saved, **{NAME: torch.full(SHAPE, 65504.0)})
    tensors = load_file(saved[2] / "adapter.safetensors")
    weights_of(saved, **{name: tensor.to(dtype) for name, tensor in tensors.items() if name != NAME})
    state = open_adapter(teacher, saved[2]).state_dict()
    assert torch.equal(state["layers.1.up.weight"], tensors["layers.1.up.weight"].to(dtype).float())
    assert all(value.dtype == torch.float32 and value.device.type == "cpu" for value in state.values())


def change_card(saved, **changes):
    path = saved[2] / "adapter.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


CRAFTED = {
    "format_version": [None, "2", True, 2.0, []],
    "base_source": [None, 3, "x" * 5000],
    "base_fingerprint": [None, "", "0" * 63, "G" * 64, "0" * 64 + "\n"],
    "guidance": [
        *(None, [], {}, {"kind": None}, {"guided_channels": 3}),
        *({"kind": "cfg", "rescale": wrong} for wrong in (None, "0.7", 2.0, True)),
        *({"kind": "cfg", "negative_prompt": wrong} for wrong in (None, 3, ["ugly"], "x" * 5000)),
    ],
    "guidance_range": [None, [1], [1, 2, 3], [5, 1], ["1", "5"], [math.nan, 5], [1, math.inf], [1, 10**400], [True, 5]],
    "training_digest": [None, 64 * [0]],
    "parameters": [None, "3", True, -1, 2.5, 10**30],
    "prediction_type": [None, 1],
    "backbone": [None, ["DiTTransformer2DModel"]],
    "method": [None, [], {}, {"kind": "agd-nothing\n\u001b[2J"}, {"kind": ["agd-offset"]}],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in CRAFTED.items() for value in values])
def test_a_crafted_card_is_one_line_that_names_the_field(saved, field, value):
    change_card(saved, **{field: value})
    with pytest.raises(agd_core.InputError, match=field) as caught:
        read_card(saved[2])
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("hidden_width", 10**9),
        ("hidden_width", "8"),
        ("hidden_width", 8.0),
        ("hidden_width", True),
        ("bottleneck_width", -4),
        ("guidance_frequency", math.nan),
        ("scale_output", 1),
        ("encoder", "none"),
        ("unknown", 1),
    ],
)
def test_a_crafted_setting_is_named(saved, setting, value):
    adapter = json.loads((saved[2] / "adapter.json").read_text())["method"]
    change_card(saved, method=adapter | {setting: value})
    with pytest.raises(agd_core.InputError, match=rf"method\.{setting}: "):
        read_card(saved[2])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[" * 100_000, "deeper"),
        ('{"format_version": 2, "format_version": 2}', "stands twice"),
        ("[]", "must be a section of settings"),
        ("null", "must be a section of settings"),
        (b"\xff\xfe", "is not UTF-8"),
        (" " * (2 << 20), "larger than"),
    ],
)
def test_a_card_that_is_no_json_of_ours_is_one_line(saved, text, complaint):
    (saved[2] / "adapter.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(agd_core.InputError, match=complaint) as caught:
        read_card(saved[2])
    assert str(caught.value).isprintable()


def test_a_card_that_asks_for_endless_layers_costs_no_memory(teacher, saved):
    adapter = {"kind": "agd-offset", "hidden_width": 4096, "encoder": "per-layer"}
    change_card(saved, method=json.loads(OffsetConfig(**adapter).model_dump_json(exclude={"name"})))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(agd_core.InputError, match="tensors are missing"):
        agd_core.load_student(teacher, saved[2])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, (
        "kilobytes; the layers would take 9 GB"
    )


@pytest.mark.parametrize("name", ["adapter.json", "adapter.safetensors"])
@pytest.mark.parametrize("kind", ["a named pipe", "a folder"])
def test_what_is_no_file_is_refused_and_not_waited_for(teacher, saved, name, kind):
    path = saved[2] / name
    path.unlink()
    os.mkfifo(path) if kind == "a named pipe" else path.mkdir()
    with pytest.raises(agd_core.InputError, match=f"{name} is no regular file but {kind}"):
        agd_core.load_student(teacher, saved[2])


@pytest.mark.parametrize("name", ["adapter.json", "adapter.safetensors", "checksums.json"])
def test_a_link_that_leads_out_of_the_folder_is_not_followed(teacher, saved, tmp_path_factory, name):
    path, outside = saved[2] / name, tmp_path_factory.mktemp("outside") / name
    outside.write_bytes(path.read_bytes() if path.exists() else as_text(sums_of(saved[2], ("adapter.json",))))
    path.unlink(missing_ok=True)
    path.symlink_to(outside)
    with pytest.raises(agd_core.InputError, match=f"{name} is a link that leads out of"):
        agd_core.load_student(teacher, saved[2])


def test_published_checksums_are_checked_by_whoever_reads(teacher, saved):
    folder = saved[2]
    names = ("adapter.safetensors", "adapter.json", "base_sketch.safetensors")
    (folder / "checksums.json").write_bytes(as_text(sums_of(folder, names)))
    with agd_core.load_student(teacher, folder):
        pass
    change_card(saved, parameters=5)
    weights_of(saved, **{NAME: torch.ones(SHAPE)})
    for read in (read_card, lambda folder: read_adapter(folder, saved[0].config, teacher.backbone)):
        with pytest.raises(agd_core.InputError, match=r"adapter\..*; copy the folder again, or publish it again"):
            read(folder)
    sketch = folder / "base_sketch.safetensors"
    sketch.write_bytes(sketch.read_bytes()[:-1] + b"x")
    with pytest.raises(agd_core.InputError, match="checksum differs"):
        load_sketch(sketch)


def test_the_artefact_of_the_training_is_checked_by_its_manifest(teacher, saved, tmp_path):
    artefact = ArtefactStore(tmp_path).artefact("adapter", {"x": 1})
    shutil.copytree(saved[2], artefact.path)
    artefact.finish({"x": 1})
    with agd_core.load_student(teacher, artefact.path):
        pass
    weights_of((None, None, artefact.path), **{NAME: torch.ones(SHAPE)})
    with pytest.raises(agd_core.InputError, match=r"adapter\.safetensors: .* bytes instead of"):
        agd_core.load_student(teacher, artefact.path)


def test_where_an_adapter_is_built_without_rows_the_file_says_how_many(tmp_path):
    def read(rows, wanted=(0, 3)):
        save_file({"tokens": torch.ones(rows)}, tmp_path / "weights")
        return read_weights(tmp_path / "weights", {"tokens": wanted})["tokens"].shape

    assert read((77, 3)) == (77, 3)
    assert read((0, 3)) == (0, 3)
    for rows in [(4097, 3), (77, 4), (77,), (1, 77, 3)]:
        with pytest.raises(agd_core.InputError, match=re.escape(f"has shape {list(rows)} instead of [0, 3]")):
            read(rows)
    with pytest.raises(agd_core.InputError, match=r"has shape \[77, 3\] instead of \[76, 3\]"):
        read((77, 3), (76, 3))
