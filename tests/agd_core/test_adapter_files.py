import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import agd_core
from agd_core.adapter_files import AdapterCard, read_card, save_adapter
from agd_core.adapters import Adapter, ModulatedMlpConfig
from agd_core.student import Student


@pytest.fixture
def saved(teacher, tmp_path):
    adapter = Adapter(
        ModulatedMlpConfig(hidden_width=8, bottleneck_width=4),
        teacher.backbone.sites,
        teacher.backbone.embedding_widths,
    )
    with torch.no_grad():
        for layer in adapter.layers:
            layer.up.weight.normal_(generator=torch.Generator().manual_seed(1))
    card = AdapterCard.of(teacher, adapter, "builtin:fashion-dit", (1.0, 5.0), "d" * 64)
    save_adapter(adapter, card, teacher.network, tmp_path / "mine")
    return adapter, card, tmp_path / "mine"


def test_one_line_loads_it(teacher, saved):
    adapter, card, folder = saved
    call = torch.randn(2, 4, 8, 8), torch.full((2,), 300.0), teacher.class_condition([1, 2]), torch.tensor([2.0, 3.0])
    with Student(teacher) as expected:
        expected.add("x", adapter)
        wanted = expected.predict(*call)
    with agd_core.load_student(teacher, folder) as student:
        assert list(student.adapters) == ["mine"]
        assert torch.equal(student.predict(*call), wanted)
    assert read_card(folder) == (adapter.config, card)


def test_the_json_names_base_method_range_and_training(saved):
    content = json.loads((saved[2] / "adapter.json").read_text())
    assert content["adapter"]["kind"] == "agd-modulated-mlp"
    assert content["guidance_range"] == [1.0, 5.0]
    assert len(content["base_fingerprint"]) == len(content["training_digest"]) == 64


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


def test_weights_that_do_not_fit_are_an_error(teacher, saved):
    weights = load_file(saved[2] / "adapter.safetensors")
    weights.popitem()
    save_file(weights, saved[2] / "adapter.safetensors")
    with pytest.raises(agd_core.InputError, match=r"adapter\.safetensors"):
        agd_core.load_student(teacher, saved[2])
