"""`agd compare` as a person uses it."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from agd_core.basics.checksums import as_text, seal, sums_of
from agd_core.methods.adapter_files import WEIGHTS
from flows.cli.app import app
from flows.results import read_results
from tests.result_rows import row, score, scores, write

AGD = [sys.executable, "-m", "flows.cli"]


def compare(*arguments):
    result = CliRunner().invoke(app, ["compare", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def as_json(*arguments):
    result = compare(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def a(tmp_path):
    return write(tmp_path / "a", row("CFG"), row(measured=scores(fd=0.7, accuracy=0.95)))


@pytest.fixture
def b(tmp_path):
    return write(tmp_path / "b", row("CFG"), row(measured=scores(fd=0.5, accuracy=0.955)))


def test_the_table_shows_intervals_differences_and_verdicts(a, b):
    result = compare(a, b)
    assert result.exit_code == 0, result.stderr
    for part in (
        "adapter parameters",
        f"A: {a}",
        f"B: {b}",
        "scale 2, ddim, 20 steps",
        "0.7 (0.6608 to 0.7392)",
        "-0.2 ± 0.055: better",
        "+0.005 ± 0.014: same",
        "note: same noise on both sides",
        "note: 3 differences were tested, each at 95 %",
        "B agd-offset against A agd-offset: BETTER (1 better, 2 same)",
    ):
        assert part in result.stdout


def test_metrics_stand_in_the_order_of_the_report(tmp_path):
    measured = {name: score(1.0) for name in ("tomorrow", "accuracy", "fd")}
    places = [write(tmp_path / name, row(measured=measured)) for name in "ab"]
    text = compare(*places).stdout
    assert text.index("fd ") < text.index("accuracy ") < text.index("tomorrow ") < text.index("NFE ")


def test_json_holds_the_same_numbers(a, b):
    found = as_json(a, b)
    assert found["sources"] == {"A": str(a), "B": str(b)}
    [comparison] = found["comparisons"]
    assert comparison["verdict"] == "better"
    assert comparison["same_noise"]
    fd = comparison["metrics"]["fd"]
    assert (fd["verdict"], fd["baseline"]["value"], fd["other"]["value"]) == ("better", 0.7, 0.5)
    assert fd["difference"] == pytest.approx(-0.2)
    assert fd["standard_error"] == pytest.approx(0.02 * 2**0.5)
    assert fd["high"] - fd["low"] == pytest.approx(2 * 1.96 * fd["standard_error"])
    assert found["overall"] == [
        {"baseline": "A agd-offset", "other": "B agd-offset", "verdict": "better", "counts": {"better": 1, "same": 2}}
    ]


def test_three_sources_stand_in_one_table(a, b, tmp_path):
    c = write(tmp_path / "c", row("agd-mine", measured=scores(fd=0.9, accuracy=0.8)))
    result = compare(a, b, c)
    assert result.stdout.count("scale 2, ddim, 20 steps") == 1
    assert "C agd-mine against A agd-offset: WORSE (2 worse, 1 same)" in result.stdout


def test_metric_and_method_narrow_it_down(a, b):
    [comparison] = as_json(a, b, "--metric", "accuracy", "--method", "CFG")["comparisons"]
    assert list(comparison["metrics"]) == ["accuracy"]
    assert (comparison["baseline"]["name"], comparison["other"]["nfe"]) == ("CFG", 40)


def test_every_place_where_results_lie_is_read(a, b):
    (b / "adapter.json").write_text("{}")
    (a / "report.html").write_text("")
    assert as_json(a, b)["comparisons"] == as_json(a / "metrics.json", b / "metrics.json")["comparisons"]


def test_rows_of_the_step_curve_are_compared_too_and_once(tmp_path):
    rows = [row(steps=20), row(steps=10)]
    places = [write(tmp_path / name, rows[0], curve=rows) for name in "ab"]
    assert [item["other"]["steps"] for item in as_json(*places)["comparisons"]] == [20, 10]


def test_every_point_of_a_sweep_is_compared_and_once(tmp_path):
    rows = [row(), row(scale=3.0), row(scheduler="euler"), row(scheduler="euler", steps=10)]
    places = []
    for name in "ab":
        folder = write(tmp_path / name, rows[0], curve=rows[:1])
        metrics = json.loads((folder / "metrics.json").read_text())
        places.append(folder / "sweep.json")
        places[-1].write_text(json.dumps(metrics | {"all_rows": rows}))
        assert [item.name for item in read_results(places[-1]).rows] == ["agd-offset"] * 4
    found = [
        (item["other"]["scheduler"], item["other"]["steps"], item["other"]["teacher_scale"])
        for item in as_json(*places)["comparisons"]
    ]
    assert found == [("ddim", 20, 2.0), ("ddim", 20, 3.0), ("euler", 20, 2.0), ("euler", 10, 2.0)]


@pytest.mark.parametrize("recorded", ["0" * 64, None])
def test_numbers_of_other_weights_than_lie_there_are_refused(a, b, recorded):
    (b / WEIGHTS).write_bytes(b"new weights")
    metrics = json.loads((b / "metrics.json").read_text())
    (b / "metrics.json").write_text(json.dumps(metrics | ({"weights_sha256": recorded} if recorded else {})))
    for place in (b, b / "metrics.json"):
        result = compare(a, place)
        message = f"{b / 'metrics.json'} was not measured with the {WEIGHTS} beside it; evaluate again"
        assert (result.exit_code, result.stderr) == (2, f"agd: {message}\n")
    digest = hashlib.sha256(b"new weights").hexdigest()
    (b / "metrics.json").write_text(json.dumps(metrics | {"weights_sha256": digest}))
    assert compare(a, b).exit_code == 0


def test_unlike_protocols_are_refused_in_one_line_and_compared_when_allowed(a, tmp_path):
    unlike = write(tmp_path / "unlike", row(images=5000, libraries={"torch": "2.14.0"}))
    refused = compare(a, unlike)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == (
        "agd: not comparable: images: 1000 in A, 5000 in B; libraries.torch: 2.15.0 in A, 2.14.0 in B "
        "(--allow images --allow libraries to compare nevertheless)\n"
    )
    assert compare(a, unlike, "--allow", "images").exit_code == 2
    allowed = compare(a, unlike, "--allow", "images", "--allow", "libraries")
    assert allowed.exit_code == 0
    assert "compared nevertheless, as asked (--allow): images: 1000 in A, 5000 in B" in allowed.stdout
    assert as_json(a, unlike, "--allow", "images", "--allow", "libraries.torch")["allowed"] == [
        "images: 1000 in A, 5000 in B",
        "libraries.torch: 2.15.0 in A, 2.14.0 in B",
    ]


def test_one_source_that_is_comparable_is_enough(a, b, tmp_path):
    unlike = write(tmp_path / "unlike", row(quantisation="truncation"))
    result = compare(a, b, unlike)
    assert result.exit_code == 0
    assert "not comparable: quantisation: uint8 by rounding in A, truncation in C" in result.stdout
    assert "C agd-offset against A agd-offset: NOT COMPARABLE (3 not comparable)" in result.stdout


def test_warnings_and_missing_numbers_are_shown_and_stay_json(a, tmp_path):
    few = {
        "fd": score(0.7, 0.1, warnings=["1,000 images for 2,048 features"]),
        "accuracy": score(float("nan"), None, "higher"),
    }
    place = write(tmp_path / "few", row(measured=few), row(scale=3.0))
    found = as_json(a, place)
    assert found["comparisons"][0]["metrics"]["accuracy"]["other"]["value"] is None
    assert found["lacking"] == ["A has no agd-offset at scale 3, ddim, 20 steps, B has"]
    text = compare(a, place).stdout
    assert "(!) 1,000 images for 2,048 features" in text
    assert "no number" in text
    assert "A has no agd-offset at scale 3" in text
    assert "UNKNOWN (NO NUMBER)" in text


OLD = {"name": "agd-offset", "method": "agd-offset", "guidance_scale": 2, "steps": 20, "fd": 0.7}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no metrics.json; `agd evaluate` writes one"),
        ("{", "metrics.json is no JSON: "),
        ("[]", "metrics.json holds no readable results: no object with lists of rows"),
        ("{}", "metrics.json holds no readable results: no object with lists of rows"),
        (json.dumps({"rows": []}), "metrics.json has no evaluated rows"),
        (json.dumps({"rows": [row(measured={})]}), "metrics.json has no evaluated rows"),
        (json.dumps({"rows": [OLD]}), "metrics.json was made before protocols were recorded; evaluate again"),
        (
            json.dumps({"rows": [3]}),
            "metrics.json holds no readable results: rows.0: must be a section of settings, got 3",
        ),
        (
            json.dumps({"rows": [row(measured={"fd": {**score(1.0), "value": "x"}})]}),
            "metrics.json holds no readable results: rows.0.scores.fd.value: Input should be a valid number",
        ),
        (json.dumps({"rows": [row("CFG")]}), "no row of an adapter; --method takes CFG"),
    ],
)
def test_bad_input_is_one_clear_line(a, tmp_path, content, message):
    bad = tmp_path / "bad"
    bad.mkdir()
    if content is not None:
        (bad / "metrics.json").write_text(content)
    for places in ((a, bad), (bad, a)):
        result = compare(*places)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.count("\n") == 1
        assert str(bad) in result.stderr
        assert message in result.stderr


def changed(metric="fd", **values):
    return {"measured": scores() | {metric: score(0.5) | values}}


ABSURD = {
    "rows.0.scores.fd.value: ": [changed(value=value) for value in (True, "1", [], 1e300, 10**30)],
    "rows.0.scores.fd.standard_error: ": [changed(standard_error=value) for value in (-0.1, 1e300, "0")],
    "rows.0.scores.fd.better: ": [changed(better="sideways")],
    "rows.0.scores.fd.warnings": [changed(warnings=value) for value in (None, [1], "w")],
    "scores.fd: low 2 is above high 1": [changed(low=2.0, high=1.0)],
    "scores.fd.value is -5, which no fd can be": [changed(value=-5.0)],
    "scores.accuracy.value is 250,": [changed("accuracy", value=250.0, better="higher")],
    "scores.recall.value is -0.1,": [changed("recall", value=-0.1, better="higher")],
    "scores.ssim.value is 3,": [changed("ssim", value=3.0, better="higher")],
    "rows.0.protocol.images: ": [{"images": value} for value in (0, -1, True, "1000", 1000.0, 10**20)],
    "rows.0.protocol.reference.images: ": [{"reference": {"images": 0}}],
    "rows.0.protocol.libraries": [{"libraries": {"torch": 2}}],
    "rows.0.protocol.settings: ": [{"settings": 3}],
    "rows.0.protocol.seed: ": [{"seed": None}],
    "rows.0.steps: ": [{"steps": value} for value in (0, True, 10**30)],
    "rows.0.guidance_scale: ": [{"scale": value} for value in (True, 1e300)],
}


@pytest.mark.parametrize(("message", "change"), [(key, value) for key, values in ABSURD.items() for value in values])
def test_numbers_that_no_run_writes_are_refused_by_row_and_field(a, tmp_path, message, change):
    result = compare(a, write(tmp_path / "absurd", row(**change)))
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert message in result.stderr


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("nfe", "NaN", "rows.0.nfe: "),
        ("nfe", "-Infinity", "rows.0.nfe: "),
        ("nfe", "0", "rows.0.nfe: "),
        ("nfe", "9" * 5000, "no JSON"),
        ("nfe", "9" * 400, "rows.0.nfe: "),
        ("steps", "21", "rows.0 (agd-offset): protocol.steps is 20, the row has 21"),
        ("scheduler", '"euler"', "protocol.scheduler is 'ddim', the row has 'euler'"),
        ("teacher_scale", "3.0", "protocol.guidance_scale is 2.0, the row has 3.0"),
        ("adapter_parameters", "-1", "rows.0.adapter_parameters: "),
        ("name", "3", "rows.0.name: "),
        ("name", '"a", "name": "b"', "stands twice"),
        ("name", "[" * 100_000, "deeper"),
        ("protocol", "[1]", "rows.0.protocol: "),
        ("scores", "[1]", "rows.0.scores: "),
    ],
)
def test_texts_that_no_run_writes_are_refused(a, tmp_path, field, text, message):
    place = write(tmp_path / "absurd", row())
    found = json.loads((place / "metrics.json").read_text())
    found["rows"][0][field] = "PLACE"
    (place / "metrics.json").write_text(json.dumps(found).replace('"PLACE"', text))
    result = compare(a, place)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.stderr
    assert message in result.stderr


def sealed(place, fd=None):
    """Seal a folder's numbers as a run does, then change one if asked to."""
    path = place / "metrics.json"
    metrics = seal(json.loads(path.read_text()))
    if fd is not None:
        metrics["rows"][-1]["scores"]["fd"]["value"] = fd
    path.write_text(json.dumps(metrics))
    return place


def listed(place, fd=None):
    """The same for numbers without a seal that checksums beside them vouch for."""
    path = place / "metrics.json"
    (place / "checksums.json").write_bytes(as_text(sums_of(place, ["metrics.json"])))
    if fd is not None:
        metrics = json.loads(path.read_text())
        metrics["rows"][-1]["scores"]["fd"]["value"] = fd
        path.write_text(json.dumps(metrics))
    return place


@pytest.mark.parametrize("prove", [sealed, listed])
def test_edited_numbers_are_refused_until_that_is_allowed(a, b, prove):
    prove(a)
    assert not any("seal" in note or "edited" in note for note in as_json(a, prove(b))["notes"])
    prove(b, fd=0.1)
    refused = compare(a, b)
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert f"{b / 'metrics.json'} was edited or damaged since a run wrote it" in refused.stderr
    found = as_json(a, b, "--allow", "edited")
    assert found["comparisons"][0]["metrics"]["fd"]["other"]["value"] == 0.1
    assert [note for note in found["notes"] if "was edited or damaged since a run wrote it" in note]
    assert "note: " + str(b / "metrics.json") + " was edited" in compare(a, b, "--allow", "edited").stdout


def test_rows_of_other_guidance_rules_are_compared_with_a_note(a, tmp_path):
    other = write(tmp_path / "other", row(measured=scores(), guidance={"guided_channels": 3}))
    found = as_json(a, other)
    assert found["comparisons"][0]["metrics"]["paired_mse"]["verdict"] == "not comparable"
    note = "another guidance rule, guidance.guided_channels: none in A, 3 in B"
    assert note in found["notes"]
    assert f"note: {note}" in compare(a, other).stdout
    assert not any("another guidance rule" in note for note in as_json(a, a)["notes"])


def test_numbers_that_nothing_proves_are_compared_with_a_note(a, b):
    notes = as_json(sealed(a), b)["notes"]
    assert (
        notes[-1] == f"{b / 'metrics.json'} has no seal and no checksums: of an older version, or not written by a run"
    )


def test_a_pipe_instead_of_numbers_is_not_waited_for(a, tmp_path):
    os.mkfifo(tmp_path / "metrics.json")
    for place in (tmp_path, tmp_path / "metrics.json"):
        result = compare(a, place)
        assert (result.exit_code, "is no regular file but a named pipe" in result.stderr) == (2, True)


def test_too_few_places_and_places_that_are_not_there(a, tmp_path):
    assert "compare takes two results or more" in compare(a).stderr
    missing = compare(a, tmp_path / "nowhere")
    assert (missing.exit_code, missing.stderr) == (2, f"agd: {tmp_path / 'nowhere'}: no such file or folder\n")
    misspelt = compare(a, a, "--allow", "sead")
    assert (misspelt.exit_code, misspelt.stderr.count("\n")) == (2, 1)


def test_as_a_process(a, b):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*AGD, "compare", str(a), str(b), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["comparisons"][0]["verdict"] == "better"


def test_a_link_out_of_a_folder_from_others_is_not_read(a, b, tmp_path):
    (tmp_path / "gift").mkdir()
    (tmp_path / "gift" / "metrics.json").symlink_to(b / "metrics.json")
    result = compare(a, tmp_path / "gift")
    assert result.exit_code == 2
    assert "is a link that leads out of" in result.stderr
