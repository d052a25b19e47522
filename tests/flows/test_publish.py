"""A published adapter's folder never holds numbers of other weights, however a run ends."""

import json

import pytest

from agd_core.adapter_files import WEIGHTS, AdapterCard, save_adapter
from agd_core.adapters import Adapter, OffsetConfig
from agd_core.digest import file_digest
from agd_core.report.page import Picture
from flows.presets import load_config
from flows.results import read_rows
from flows.stages import publish
from flows.stages import report as stage
from flows.stages.comparison import CFG, UNGUIDED, Compared, Method
from flows.stages.extras import Extras
from flows.workplace import Workplace
from tests.conftest import SMALL
from tests.result_rows import row, score

NAME = "agd-offset"


@pytest.fixture(scope="module")
def config():
    return load_config("fashion-dit", [*SMALL, "adapters=[{kind: agd-offset}]"])


def trained(config, teacher, place, value):
    """An adapter as an artefact, told apart by one number in its weights."""

    def work(artefact):
        adapter = Adapter(OffsetConfig(), teacher.backbone.sites, teacher.backbone.embedding_widths)
        next(adapter.parameters()).data.fill_(value)
        source = config.base_model.source
        files = AdapterCard.of(teacher, adapter, source, (1.0, 5.0), "d" * 64)
        save_adapter(adapter, files, teacher.network, artefact.path)

    return [(config.adapters[0], place.produce("adapter", {"value": value}, work, title="adapter"))]


def compared(artefact, fd):
    scores = {"fd": score(fd), "accuracy": score(float("nan"), None, "higher")}
    methods = (UNGUIDED, CFG, Method(NAME, NAME, artefact))
    return [Compared(row(method.name, scores), method, "cpu", artefact, artefact) for method in methods]


@pytest.fixture
def published(config, teacher, tmp_path):
    """The adapter's folder with old weights and their numbers; writes it again with others."""
    place = Workplace(tmp_path)

    def evaluate(value, fd):
        adapters = trained(config, teacher, place, value)
        publish.publish_evaluated(config, adapters, compared(adapters[0][1], fd), "agd test", teacher, tmp_path)

    def train(value):
        adapters = trained(config, teacher, place, value)
        return publish.publish_trained(config, adapters, "agd test", teacher, tmp_path)[NAME]

    evaluate(1.0, 0.7)
    return tmp_path / publish.FOLDER / NAME, evaluate, train


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
    assert len(read_rows(folder)) == 3


@pytest.mark.parametrize("torn", ["write_json", "write_bytes"])
def test_an_interrupted_publishing_leaves_no_numbers_of_other_weights(published, monkeypatch, torn):
    folder, evaluate, _ = published
    old = file_digest(folder / WEIGHTS)
    with monkeypatch.context() as patch:
        patch.setattr(publish, torn, refuse)
        with pytest.raises(OSError, match="disk full"):
            evaluate(2.0, 0.5)
    assert (file_digest(folder / WEIGHTS) == old) == (torn == "write_bytes")
    assert not (folder / "metrics.json").exists()
    evaluate(2.0, 0.5)
    assert {item["scores"]["fd"]["value"] for item in numbers(folder)["rows"]} == {0.5}
    assert numbers(folder)["weights_sha256"] == file_digest(folder / WEIGHTS) != old


def test_the_same_weights_keep_their_numbers_until_new_ones_are_there(published, monkeypatch):
    folder, evaluate, train = published
    card = (folder / "README.md").read_text()
    assert train(1.0) == folder
    assert (folder / "README.md").read_text() == card
    monkeypatch.setattr(publish, "write_json", refuse)
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
    monkeypatch.setattr(stage, "_grid", lambda item, base_model: Picture("", "", b""))
    monkeypatch.setattr(stage, "plots", lambda *arguments: [])
    made = compared(adapters[0][1], lost)
    values = {"fd": lost, "fd_low": lost, "fd_high": lost, "accuracy": lost, "paired_mse": lost}
    sampled = {"images_per_second": 1.0, "adapter_percent": 4.7, "steps": config.sample.steps}
    for item in made:
        item.row.update(values | sampled)
    whole = stage.Made(config, "agd test", teacher, adapters[0][1], adapters, made, Extras())
    stage.report(whole, stage.REPORT, place)
    for found in numbers(tmp_path)["all_rows"]:
        assert (found["fd"], found["scores"]["fd"]["value"], found["scores"]["fd"]["low"]) == (None, None, None)
    page = (tmp_path / "report.html").read_text()
    assert "no number with the adapter, no number with CFG: no number, so no verdict" in page
    assert "<td>no number</td>" in page
    assert "nan" not in page.partition("<h2>All metrics</h2>")[2].partition("</table>")[0]
