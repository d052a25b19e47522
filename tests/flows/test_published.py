"""What a run publishes: every changed or missing file is named, and nobody else's file is replaced."""

import json
import random
import shutil

import pytest

from agd_core.basics.checksums import CHECKSUMS, require_intact
from agd_core.basics.errors import InputError
from flows.presets import load_config
from flows.published import (
    ADAPTER_FILES,
    ADAPTERS,
    METRICS_FILE,
    REPORT_FILES,
    foreign_files,
    note_published,
    publish_file,
    published_folders,
    published_problems,
    refuse_foreign_files,
    seal_adapter,
)
from flows.run import Run
from flows.stages.publish import publish_evaluated, publish_trained
from flows.stages.verify import verify
from flows.workplace import Workplace
from tests.conftest import SMALL
from tests.flows.publishing import NAME, compared, publish_reports, trained

READ_BY_LOADING, MOST = ADAPTER_FILES[:3], 1 << 30


@pytest.fixture(scope="module")
def run(teacher, tmp_path_factory):
    """An output folder as `agd distill` leaves it, with everything that is published."""
    output, config = (
        tmp_path_factory.mktemp("run"),
        load_config("fashion-dit", [*SMALL, "methods=[{kind: agd-offset}]"]),
    )
    place = Workplace(output)
    adapters = trained(config, teacher, place, 1.0)
    rows = compared(adapters[0][1], 0.7)
    with pytest.MonkeyPatch.context() as patch:
        publish_reports(config, teacher, adapters, rows, place, patch)
    publish_evaluated(Run(config, Workplace(output), teacher), adapters, rows, "agd test")
    return output


@pytest.fixture
def output(run, tmp_path):
    return shutil.copytree(run, tmp_path / "o")


def published(output):
    return sorted([*(output / name for name in (*REPORT_FILES, CHECKSUMS)), *(output / ADAPTERS / NAME).iterdir()])


def flip(path, place, bit):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def problems(folder):
    return verify(folder)["problems"]


def test_everything_is_covered_and_whole(output):
    assert {path.name for path in published(output)} == {*REPORT_FILES, *ADAPTER_FILES, CHECKSUMS}
    result = verify(output)
    assert (result["ok"], result["problems"], result["published"]) == (True, [], 2)
    alone = verify(output / ADAPTERS / NAME)
    assert (alone["ok"], alone["published"]) == (True, 1)


def test_every_flipped_bit_is_named_and_none_that_is_read_is_loaded(output):
    chance = random.Random(13)  # noqa: S311 seeded, so that a failure can be seen again
    for _ in range(40):
        path = chance.choice(published(output))
        whole = path.read_bytes()
        flip(path, chance.randrange(len(whole)), chance.randrange(8))
        assert any(str(path) in problem for problem in problems(output)), path
        if path.parent.name == NAME:
            assert any(str(path) in problem for problem in problems(path.parent)), path
        if path.name in READ_BY_LOADING or path == output / ADAPTERS / NAME / CHECKSUMS:
            with pytest.raises(InputError, match=path.name) as caught:
                require_intact(path.parent, READ_BY_LOADING, MOST)
            assert "\n" not in str(caught.value)
        path.write_bytes(whole)
    assert problems(output) == []


def test_every_bit_of_the_list_counts_its_spaces_and_line_ends_too(output):
    path = output / CHECKSUMS
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        flip(path, place, place % 8)
        assert any(str(path) in problem for problem in published_problems(output)), place
        path.write_bytes(whole)


def test_every_missing_file_is_named(output):
    for path in published(output):
        whole = path.read_bytes()
        path.unlink()
        found = problems(output)
        assert any(str(path) in problem or "no checksums" in problem for problem in found), path
        path.write_bytes(whole)
    shutil.rmtree(output / ADAPTERS / NAME)
    assert problems(output) == [f"{output / ADAPTERS / NAME / CHECKSUMS}: missing"]


def test_a_folder_that_was_copied_away_is_checked_by_itself(output, tmp_path):
    away = shutil.copytree(output / ADAPTERS / NAME, tmp_path / "away")
    assert verify(away)["ok"]
    flip(away / "README.md", 10, 0)
    assert problems(away) == [f"{away / 'README.md'}: checksum differs"]


def test_an_older_folder_is_named_and_gets_checksums_when_it_is_published_again(output, teacher):
    for path in (output / CHECKSUMS, output / ADAPTERS / NAME / CHECKSUMS):
        path.unlink()
    found = problems(output)
    assert len(found) == len(REPORT_FILES) + len(ADAPTER_FILES)
    assert all("has no checksums (published by an older version" in problem for problem in found)
    require_intact(output / ADAPTERS / NAME, READ_BY_LOADING, MOST)
    config = load_config("fashion-dit", [*SMALL, "methods=[{kind: agd-offset}]"])
    place = Workplace(output)
    publish_trained(Run(config, place, teacher), trained(config, teacher, place, 1.0), "agd test")
    assert problems(output / ADAPTERS / NAME) == []
    assert (output / ADAPTERS / NAME / METRICS_FILE).is_file()


def test_a_file_that_was_added_later_is_named(output):
    adapter = output / ADAPTERS / NAME
    listed = json.loads((adapter / CHECKSUMS).read_text())["files"]
    assert set(listed) == set(ADAPTER_FILES)
    (adapter / METRICS_FILE).unlink()
    shutil.copytree(adapter, output / "trained")
    seal_adapter(output / "trained")
    (output / "trained" / METRICS_FILE).write_text("{}")
    assert f"{output / 'trained' / METRICS_FILE}: is not in {CHECKSUMS}" in problems(output / "trained")


def test_publishing_again_keeps_what_other_runs_published_and_forgets_what_is_gone(output):
    (output / "sweep.html").unlink()
    note_published(output, ["report.html"])
    listed = json.loads((output / CHECKSUMS).read_text())["files"]
    assert set(listed) == {*REPORT_FILES, f"{ADAPTERS}/{NAME}/{CHECKSUMS}"} - {"sweep.html"}
    assert problems(output) == []


def test_publishing_the_same_again_writes_nothing(output):
    before = {path: path.stat().st_mtime_ns for path in published(output)}
    for path in before:
        publish_file(path.read_bytes(), path)
    note_published(output, REPORT_FILES)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_our_own_files_may_be_replaced_damaged_or_of_older_versions(output):
    assert foreign_files(output, adapters=[NAME, "new"]) == []
    flip(output / CHECKSUMS, 40, 1)
    (output / "report.html").write_bytes((output / "report.html").read_bytes()[:2000])
    assert foreign_files(output, adapters=[NAME]) == []
    (output / CHECKSUMS).unlink()
    (output / ADAPTERS / NAME / CHECKSUMS).unlink()
    assert foreign_files(output, adapters=[NAME]) == []
    assert foreign_files(output / "nothing" / "here", adapters=[NAME]) == []


@pytest.mark.parametrize(
    "theirs", [*REPORT_FILES, CHECKSUMS, f"{ADAPTERS}/{NAME}/README.md", f"{ADAPTERS}/{NAME}/adapter.json"]
)
def test_somebody_elses_file_is_not_replaced(tmp_path, theirs):
    path = tmp_path / theirs
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"mine": 1}')
    assert foreign_files(tmp_path, adapters=[NAME]) == [path]
    with pytest.raises(InputError, match=f"{path} was written by no run"):
        refuse_foreign_files(tmp_path, adapters=[NAME])
    assert foreign_files(tmp_path, (), ()) == ([path] if theirs == CHECKSUMS else [])


def test_a_report_that_is_a_link_out_of_the_folder_is_not_read(output, tmp_path, monkeypatch):
    theirs, opened = tmp_path / "theirs.json", []
    (output / METRICS_FILE).rename(theirs)
    (output / METRICS_FILE).symlink_to(theirs)
    (output / CHECKSUMS).unlink()
    monkeypatch.setattr("flows.published.read_bytes", lambda path, most: opened.append(path.resolve()) or b"")
    assert output / METRICS_FILE in foreign_files(output)
    published_folders(output)
    monkeypatch.setattr("flows.published.write_bytes", lambda data, path: None)
    publish_file(b"{}", output / METRICS_FILE)
    assert opened
    assert theirs.resolve() not in opened


def test_verify_reads_no_stranger_and_follows_no_link(output, tmp_path):
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / METRICS_FILE).write_text('{"mine": 1}')
    with pytest.raises(InputError, match="no report and no adapter"):
        verify(tmp_path / "else")
    shutil.move(output / ADAPTERS, tmp_path / "outside")
    (output / ADAPTERS).symlink_to(tmp_path / "outside")
    (line,) = problems(output)
    assert "is a link that leads out of" in line
    with pytest.raises(InputError, match="is a link that leads out of"):
        refuse_foreign_files(output, adapters=[NAME])
