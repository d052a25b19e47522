import pytest
from typer.testing import CliRunner

from agd_core.basics.errors import InputError
from agd_core.basics.home import cache_folder, expand
from agd_core.builtin.miniatures import miniature_folder
from flows.cli.app import app
from flows.presets import load_config
from flows.workplace import output_folder


@pytest.fixture
def homeless(monkeypatch):
    """A user id without an entry in the user database, and an environment without HOME: a hardened container."""

    def no_such_user(user):
        raise KeyError(user)

    for name in ("HOME", "XDG_CACHE_HOME", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    for question in ("pwd.getpwuid", "pwd.getpwnam"):
        monkeypatch.setattr(question, no_such_user)


@pytest.mark.parametrize(
    "use",
    [
        lambda: expand("~/x"),
        cache_folder,
        lambda: miniature_folder("tiny-sd"),
        lambda: load_config("tiny-sd", ["collect.prompts=~/prompts.txt"]),
        lambda: load_config("tiny-sd", ["store.url=~/store"]),
        lambda: output_folder(expand("~/out")),
    ],
)
def test_a_user_without_a_home_gets_one_line_that_says_what_to_set(homeless, use):
    with pytest.raises(InputError, match="set HOME or") as raised:
        use()
    assert "\n" not in str(raised.value)


def test_the_lab_says_so_before_it_starts_anything(homeless):
    answer = CliRunner().invoke(app, ["up"])
    assert (answer.exit_code, answer.stderr.count("\n")) == (2, 1)
    assert "set HOME or use --home" in answer.stderr


def test_what_needs_no_home_works_without_one(homeless, tmp_path, monkeypatch):
    assert expand(tmp_path / "x") == tmp_path / "x"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path
    assert load_config("tiny-sd").train.steps


def test_an_unknown_users_home_is_named():
    with pytest.raises(InputError, match="~nobody-of-this-name/x: "):
        expand("~nobody-of-this-name/x")
