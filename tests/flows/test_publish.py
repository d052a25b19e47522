"""A published adapter's folder never holds numbers of other weights, however a run ends."""

import json

import pytest

from agd_core.basics.checksums import require_intact
from agd_core.basics.digest import file_digest
from agd_core.basics.errors import InputError
from agd_core.methods.adapter_files import WEIGHTS
from flows.presets import load_config
from flows.published import ADAPTER_FILES, ADAPTERS, publish_file
from flows.results import read_results
from flows.run import Run
from flows.stages import publish
from flows.stages import report as stage
from flows.workplace import Workplace
from tests.conftest import SMALL
from tests.flows.publishing import NAME, compared, publish_reports, trained


@pytest.fixture(scope="module")
def config():
    return load_config("fashion-dit", [*SMALL, "methods=[{kind: agd-offset}]"])


@pytest.fixture
def published(config, teacher, tmp_path):
    """The adapter's folder with old weights and their numbers; writes it again with others."""
    place = Workplace(tmp_path)

    def evaluate(value, fd):
        adapters = trained(config, teacher, place, value)
        publish.publish_evaluated(Run(config, place, teacher), adapters, compared(adapters[0][1], fd), "agd test")

    def train(value):
        adapters = trained(config, teacher, place, value)
        return publish.publish_trained(Run(config, place, teacher), adapters, "agd test")[NAME]

    evaluate(1.0, 0.7)
    return tmp_path / ADAPTERS / NAME, evaluate, train


def numbers(folder):
    return json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail)


def refuse(*arguments):
    raise OSError("disk full")


def test_numbers_lie_beside_their_weights_without_nan(published):
    folder, _, _ = published
    metrics = numbers(folder)
    assert metrics["weights_sha256"] == file_digest(folder / WEIGHTS)
    assert [item["scores"]["accuracy"]["value"] for item in metrics["rows"]] == [None] * 3
    assert "no number" in (folder / "README.md").read_text()
    assert len(read_results(folder).rows) == 3


@pytest.mark.parametrize("torn", [0, 1, 2, 3, 4])
def test_an_interrupted_publishing_leaves_no_numbers_of_other_weights(published, monkeypatch, torn):
    folder, evaluate, _ = published
    old, written = file_digest(folder / WEIGHTS), []

    def publish_some(data, path):
        if len(written) == torn:
            raise OSError("disk full")
        written.append(path.name)
        publish_file(data, path)

    with monkeypatch.context() as patch:
        patch.setattr(publish, "publish_file", publish_some)
        with pytest.raises(OSError, match="disk full"):
            evaluate(2.0, 0.5)
    assert (file_digest(folder / WEIGHTS) == old) == (torn == 0)
    assert not (folder / "metrics.json").exists()
    with pytest.raises(InputError, match=r"checksum|publish it again"):
        require_intact(folder, ADAPTER_FILES, 1 << 30)
    evaluate(2.0, 0.5)
    assert {item["scores"]["fd"]["value"] for item in numbers(folder)["rows"]} == {0.5}
    assert numbers(folder)["weights_sha256"] == file_digest(folder / WEIGHTS) != old


def test_the_same_weights_keep_their_numbers_until_new_ones_are_there(published, monkeypatch):
    folder, evaluate, train = published
    card = (folder / "README.md").read_text()
    assert train(1.0) == folder
    assert (folder / "README.md").read_text() == card
    monkeypatch.setattr(publish, "publish_file", refuse)
    with pytest.raises(OSError, match="disk full"):
        evaluate(1.0, 0.7)
    assert len(numbers(folder)["rows"]) == 3


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps({"weights_sha256": "0" * 64, "rows": []})])
def test_numbers_that_are_not_of_these_weights_do_not_survive_training(published, content):
    folder, _, train = published
    (folder / "metrics.json").write_text(content)
    train(1.0)
    assert not (folder / "metrics.json").exists()
    assert "Not evaluated yet" in (folder / "README.md").read_text()


def test_a_digest_is_named_once_in_the_card(published):
    assert (published[0] / "README.md").read_text().count("d" * 64) == 1


def test_a_report_without_a_number_is_json_and_says_so(config, teacher, tmp_path, monkeypatch):
    place, lost = Workplace(tmp_path), float("nan")
    adapters = trained(config, teacher, place, 1.0)
    publish_reports(config, teacher, adapters, compared(adapters[0][1], lost), place, monkeypatch, [stage.REPORT])
    for found in numbers(tmp_path)["all_rows"]:
        assert (found["fd"], found["scores"]["fd"]["value"], found["scores"]["fd"]["low"]) == (None, None, None)
    page = (tmp_path / "report.html").read_text()
    assert "no number with the adapter, no number with CFG: no number, so no verdict" in page
    assert "<td>no number</td>" in page
    assert "nan" not in page.partition("<h2>All metrics</h2>")[2].partition("</table>")[0]
