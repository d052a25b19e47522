"""The table of what ships: names, folders, and one clear line for what is not there."""

import shutil

import pytest
import torch

import agd_core
from agd_core.basics.checkpoint import load_tensors
from agd_core.basics.errors import InputError
from agd_core.builtin import shipped as table
from agd_core.builtin.miniatures import miniature_folder
from agd_core.builtin.shipped import BUILTIN_FOLDER, MODEL, SHIPPED, names, shipped_folder
from agd_core.models.config import BaseModelConfig
from agd_core.models.difference import write_difference
from agd_core.models.sources import resolve_source
from flows.worlds import WORLDS, world_of

CPU = torch.device("cpu")
NO_MODEL = {"captions", "miniatures", "__pycache__"}


def test_every_folder_that_ships_stands_in_the_table():
    folders = {path.name for path in BUILTIN_FOLDER.iterdir() if path.is_dir()} - NO_MODEL
    assert folders <= set(names())
    assert {"fashion-dit", "fashion-classifier"} <= folders


def test_names_are_names_once_and_relatives_have_a_base():
    assert len(set(names())) == len(names())
    assert {row.base for row in SHIPPED} - {""} <= set(names(MODEL))
    assert {world.name for world in WORLDS} <= set(names())


def test_a_shipped_folder_is_found_by_its_name():
    assert shipped_folder("fashion-dit") == resolve_source("builtin:fashion-dit") == BUILTIN_FOLDER / "fashion-dit"


@pytest.mark.parametrize("name", ["emoji", "", "../builtin/fashion-dit", "captions", "fashion-dit\n"])
def test_another_name_is_refused_with_those_that_are_known(name):
    with pytest.raises(InputError, match=r"^nothing ships under the name '.*'; known: fashion-dit, fashion-cl") as said:
        shipped_folder(name)
    assert str(said.value).isprintable()


def test_what_is_not_installed_says_what_makes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "BUILTIN_FOLDER", tmp_path)
    for name, left in {"emoji-sd": "emoji-sd", "emoji-sd-food": "emoji-sd-food-stock"}.items():
        remedy = f"`agd pretrain {name} --size gpu --output DIR` makes it: then set base_model.source=DIR/{left}"
        with pytest.raises(InputError, match=f"^builtin:{name} is not in this installation; {remedy}$"):
            resolve_source(f"builtin:{name}")
    (tmp_path / "emoji-sd").mkdir()
    assert resolve_source("builtin:emoji-sd") == tmp_path / "emoji-sd"


@pytest.mark.parametrize("row", SHIPPED, ids=lambda row: row.name)
def test_the_command_that_makes_it_is_one(row):
    world, *size = (row.recipe or row.name).split(" --size ")
    assert world_of(world).asked(size=size[0] if size else None)
    assert f"`agd pretrain {row.recipe or row.name} --output DIR` makes" in row.remedy


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A base and a sibling of it that ships as its difference, in place of those of this installation."""
    monkeypatch.setattr(table, "BUILTIN_FOLDER", tmp_path / "builtin")
    base = shutil.copytree(miniature_folder("tiny-sd"), tmp_path / "builtin" / "emoji-sd")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tensors, _ = load_tensors(base / "unet" / "diffusion_pytorch_model.safetensors")
    changed = {"conv_in.bias": tensors["conv_in.bias"] + 1}
    write_difference(changed, base, {}, tmp_path / "builtin" / "emoji-sd-style")
    return tmp_path


def test_a_fine_tuned_model_is_a_stock_folder_with_its_own_tensors(installed):
    folder = resolve_source("builtin:emoji-sd-style")
    base, tuned = (BaseModelConfig(source=f"builtin:{name}").build(CPU) for name in ("emoji-sd", "emoji-sd-style"))
    assert tuned.fingerprint != base.fingerprint
    assert torch.equal(tuned.network.conv_in.bias, (base.network.conv_in.bias + 1).half().float())
    assert torch.equal(tuned.network.conv_in.weight, base.network.conv_in.weight)
    written = (folder / "model_index.json").stat().st_mtime_ns
    assert agd_core.builtin_folder("emoji-sd-style") == agd_core.builtin_folder("builtin:emoji-sd-style") == folder
    assert (folder / "model_index.json").stat().st_mtime_ns == written


def test_another_difference_or_base_is_another_folder(installed):
    first, ours = resolve_source("builtin:emoji-sd-style"), installed / "builtin"
    (ours / "emoji-sd-style" / "NOTE.md").write_text("retrained")
    second = resolve_source("builtin:emoji-sd-style")
    (ours / "emoji-sd" / "NOTE.md").write_text("retrained")
    assert len({first, second, resolve_source("builtin:emoji-sd-style")}) == 3


def test_a_difference_from_another_base_is_refused(installed):
    path = installed / "builtin" / "emoji-sd-style" / "difference.json"
    path.write_text(path.read_text().replace('"base_fingerprint": "', '"base_fingerprint": "0'))
    with pytest.raises(InputError, match="emoji-sd-style belongs to base 0"):
        resolve_source("builtin:emoji-sd-style")
    assert not list((installed / "cache").rglob("model_index.json"))


def test_relatives_are_found_by_name_for_stock_calls(installed):
    (installed / "builtin" / "emoji-sd-lora").mkdir()
    assert agd_core.builtin_folder("emoji-sd-lora") == installed / "builtin" / "emoji-sd-lora"
    with pytest.raises(InputError, match=r"known: .*emoji-sd-lora, emoji-sd-controlnet, emoji-sd-ip-adapter"):
        agd_core.builtin_folder("emoji-sd-ink")


def test_a_network_that_is_no_whole_model_is_no_base_model():
    with pytest.raises(
        InputError,
        match="unknown built-in model 'emoji-judge'; known: fashion-dit, emoji-sd, emoji-sd-style, emoji-sd-food",
    ):
        resolve_source("builtin:emoji-judge")
