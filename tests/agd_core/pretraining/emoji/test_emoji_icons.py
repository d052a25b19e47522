"""Reading Iconify's JSON: boxes, aliases, categories, and files that are none."""

import json

import pytest

from agd_core.basics.errors import InputError
from agd_core.pretraining.emoji.icons import read_icons


def written(folder, icons, **others):
    (folder / "icons.json").write_text(json.dumps({"prefix": "p", "icons": icons} | others))
    return folder


def test_boxes_are_the_icons_or_the_sets_or_iconifys(tmp_path):
    icons = {"own": {"body": "<g/>", "width": 8, "left": -2}, "sets": {"body": "<g/>"}}
    found = read_icons(written(tmp_path, icons, height=24)).icons
    assert [(i.left, i.top, i.width, i.height) for i in found.values()] == [(-2, 0, 8, 24), (0, 0, 16, 24)]


def test_hidden_icons_and_mirrored_aliases_are_left_out(tmp_path):
    icons = {"shown": {"body": "<g/>"}, "old": {"body": "<g/>", "hidden": True}}
    aliases = {"same": {"parent": "shown"}, "mirrored": {"parent": "shown", "hFlip": True}}
    found = read_icons(written(tmp_path, icons, aliases=aliases))
    assert list(found.icons) == ["shown"]
    assert found.aliases == {"same": "shown"}


def test_categories_are_read_where_they_are(tmp_path):
    written(tmp_path, {"apple": {"body": "<g/>"}})
    assert read_icons(tmp_path).categories == {}
    (tmp_path / "metadata.json").write_text(json.dumps({"categories": {"Food": ["apple"]}, "aliases": {}}))
    assert read_icons(tmp_path).categories == {"apple": "Food"}


@pytest.mark.parametrize(
    ("icons", "said"),
    [
        ({"Apple": {"body": ""}}, "Apple"),
        ({"../apple": {"body": ""}}, "apple"),
        ({"apple": {}}, r"apple\.body: Field required"),
        ({"apple": {"body": "<g/>", "width": 0}}, r"width: Input should be greater than 0"),
        ({"apple": {"body": "x" * 1_048_577}}, "at most 1048576"),
        ([], "icons: Input should be"),
    ],
)
def test_what_is_no_icon_set_is_refused_in_one_line(tmp_path, icons, said):
    with pytest.raises(InputError, match=said) as problem:
        read_icons(written(tmp_path, icons))
    assert "is no icon set" in str(problem.value)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("metadata", ["[]", '{"categories": [1]}', '{"categories": {"Food": [1]}}'])
def test_metadata_that_are_none_are_refused(tmp_path, metadata):
    written(tmp_path, {"apple": {"body": "<g/>"}})
    (tmp_path / "metadata.json").write_text(metadata)
    with pytest.raises(InputError, match="is no icon set"):
        read_icons(tmp_path)
