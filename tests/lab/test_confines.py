"""What a run of the lab may name, and what it is refused in one line."""

import os

import pytest

from agd_core.basics.errors import InputError
from flows.config import PipelineConfig
from flows.lab.confines import check_cluster, check_places, own_folder
from flows.lab.parameters import Settings


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A lab's work folder, which is where flows run, with one further folder."""
    for name in ("work", "further", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "work" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "work" / "circle").symlink_to("circle")
    monkeypatch.setenv("AGD_FOLDERS", os.pathsep.join([str(tmp_path / "work"), str(tmp_path / "further")]))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def store(url) -> PipelineConfig:
    return PipelineConfig.model_validate({"store": {"url": str(url)}})


def test_outputs_below_the_labs_folders_are_taken(lab):
    for name in ("outputs", "a/b/../c", ".", str(lab / "further" / "x"), str(lab / "work")):
        own_folder(name, "output")


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../elsewhere",
        "a/../../elsewhere",
        "link",
        "link/x",
        "circle/x",
        "/",
        "/etc",
        "~",
        "a\0b",
        "n" * 300 + "/../../x",
    ],
)
def test_outputs_elsewhere_are_refused(lab, name):
    with pytest.raises(InputError, match=r"^output ") as refused:
        own_folder(name, "output")
    assert "\n" not in str(refused.value)
    assert "\0" not in str(refused.value)


def test_a_store_is_below_them_or_in_an_object_store(lab):
    for url in ("store", lab / "further" / "store", "s3://bucket/prefix"):
        check_places(store(url))
    for url in (
        lab / "elsewhere",
        "../elsewhere",
        "file:///etc",
        "ssh://host/x",
        "local:///etc",
        "simplecache::s3://b/p",
    ):
        with pytest.raises(InputError, match=r"^store\.url "):
            check_places(store(url))


def test_a_configuration_file_is_below_them(lab):
    (lab / "elsewhere" / "secret.yaml").write_text("password: x")
    with pytest.raises(InputError, match=r"^config_file ") as refused:
        Settings(config_file=str(lab / "elsewhere" / "secret.yaml")).config()
    assert "password" not in str(refused.value)
    (lab / "work" / "own.yaml").write_text("collect: {steps: 7}")
    assert Settings(config_file="own.yaml").config().collect.steps == 7


def test_a_cluster_is_one_that_the_lab_was_started_with(lab, monkeypatch):
    check_cluster("")
    with pytest.raises(InputError, match="AGD_CLUSTERS"):
        check_cluster("tcp://evil.example:8786")
    monkeypatch.setenv("AGD_CLUSTERS", "tcp://10.0.0.1:8786, 10.0.0.1:6379")
    check_cluster("10.0.0.1:6379")


def test_outside_of_a_lab_a_person_may_name_what_they_like(lab, monkeypatch):
    monkeypatch.delenv("AGD_FOLDERS")
    monkeypatch.delenv("AGD_HOME", raising=False)
    own_folder("../elsewhere", "output")
    check_places(store("memory://x"))
    check_cluster("tcp://10.0.0.2:8786")


def test_a_worker_that_was_started_by_hand_keeps_to_its_work_folder(lab, monkeypatch):
    monkeypatch.delenv("AGD_FOLDERS")
    monkeypatch.setenv("AGD_HOME", str(lab / "work"))
    with pytest.raises(InputError):
        own_folder(str(lab / "further"), "output")
