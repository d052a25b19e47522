"""The table of what ships: names, folders, and one clear line for what is not there."""

import pytest

from agd_core.basics.errors import InputError
from agd_core.builtin import shipped
from agd_core.builtin.shipped import BUILTIN_FOLDER, MODEL, SHIPPED, names, shipped_folder
from agd_core.models.sources import resolve_source
from flows.worlds import WORLDS

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
    monkeypatch.setattr(shipped, "BUILTIN_FOLDER", tmp_path)
    with pytest.raises(InputError, match="builtin:emoji-sd is not in this installation; `agd pretrain emoji-sd` makes"):
        resolve_source("builtin:emoji-sd")
    (tmp_path / "emoji-sd").mkdir()
    assert resolve_source("builtin:emoji-sd") == tmp_path / "emoji-sd"


def test_a_network_that_is_no_whole_model_is_no_base_model():
    with pytest.raises(InputError, match="unknown built-in model 'emoji-judge'; known: fashion-dit, emoji-sd"):
        resolve_source("builtin:emoji-judge")
