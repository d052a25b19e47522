"""The whole chain in process on the real teacher: results, caching, resuming, determinism."""

import fcntl
import hashlib
import json

import pytest
import torch

from agd_core.basics.errors import InputError
from agd_core.basics.progress import Stopped
from agd_core.methods import CrossAttentionConfig, OffsetConfig
from agd_core.models.config import BaseModelConfig
from flows.instruments import check_evaluation
from flows.presets import load_config
from flows.run import Run
from flows.stages import evaluate as evaluation
from flows.stages import sample as sampling
from flows.stages.collect import collect
from flows.stages.distill import distill, train_all
from flows.stages.sample import SAMPLES, Cell, read_images, read_labels, read_samples, sample
from flows.stages.verify import verify
from flows.tensors import read_tensors
from flows.workplace import Workplace
from storage.artefacts import Artefact
from tests.conftest import SMALL


class Recorded(list):
    """Lines that a stage announced."""

    def work(self):
        return [line for line in self if "cached" not in line]


@pytest.fixture(scope="module")
def first_run(small_config, tmp_path_factory):
    output = tmp_path_factory.mktemp("distilled")
    return output, distill(Run(small_config, Workplace(output)), "agd distill test")


def recording(output):
    lines = Recorded()
    return Workplace(output, announce=lines.append), lines


def tree_digest(folder, pattern="*"):
    files = sorted(path for path in folder.rglob(pattern) if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_rows_hold_every_method_with_counted_evaluations(first_run):
    rows = first_run[1].metrics["rows"]
    assert [row["method"] for row in rows] == ["none", "cfg", "agd-modulated-mlp", "agd-cross-attention", "agd-offset"]
    assert [row["nfe"] for row in rows] == [4, 8, 4, 4, 4]
    assert [row["guidance_scale"] for row in rows] == [1.0, 2.0, 2.0, 2.0, 2.0]
    assert rows[1]["paired_mse"] == 0.0
    assert all(row["fd_low"] <= row["fd"] <= row["fd_high"] for row in rows)
    assert all(row["images_per_second"] > 0 and 0 <= row["accuracy"] <= 1 for row in rows)
    assert all(0 < row["adapter_percent"] <= 5 for row in rows[2:])
    assert {row["steps"] for row in first_run[1].metrics["curve"]} == {2, 4}


def test_the_report_lies_beside_its_metrics(first_run):
    output, distilled = first_run
    assert json.loads((output / "metrics.json").read_text()) == distilled.metrics
    page = (output / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5 + 4
    assert "agd distill test" in page


def test_running_again_does_nothing(first_run, small_config):
    place, lines = recording(first_run[0])
    again = distill(Run(small_config, place), "agd distill test")
    assert again.metrics == first_run[1].metrics
    assert lines.work() == []
    assert lines


def test_a_finished_folder_that_cannot_be_written_to_is_read(first_run, small_config, monkeypatch):
    output = first_run[0]
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert distill(Run(small_config, Workplace(output)), "agd distill test").metrics == first_run[1].metrics
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


@pytest.mark.parametrize("name", ["report.html", "metrics.json", "adapters/agd-modulated-mlp/adapter.json"])
def test_somebody_elses_file_is_not_replaced_but_named_before_work(small_config, tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name} was written by no run"):
        distill(Run(small_config, Workplace(tmp_path)), "agd distill test")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]
    assert (tmp_path / name).read_text() == "mine"


def test_changing_only_the_evaluation_evaluates_only(first_run, small_config):
    place, lines = recording(first_run[0])
    changed = small_config.evaluate.model_copy(update={"distance_subsets": 7})
    distill(Run(small_config.model_copy(update={"evaluate": changed}), place), "agd distill test")
    assert [line.partition(":")[0] for line in lines.work()] == ["report"]


def test_everything_verifies_and_damage_is_named(first_run, small_config, tmp_path):
    output = first_run[0]
    assert verify(output)["ok"]
    victim = next((output / "artefacts").glob("adapter-*/adapter.safetensors"))
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    result = verify(output)
    assert not result["ok"]
    assert any("adapter.safetensors: checksum differs" in problem for problem in result["problems"])
    place, lines = recording(output)
    distill(Run(small_config, place), "agd distill test")
    assert victim.read_bytes() == whole
    assert any("damaged" in line for line in lines)
    assert verify(output)["ok"]


def test_damaged_metadata_of_a_store_is_written_anew(teacher, small_config, tmp_path):
    trajectories = collect(Run(small_config, Workplace(tmp_path), teacher))
    for name, old, new in (("latents/zarr.json", b"crc32c", b"crc32d"), ("plan.parquet", b"PAR1", b"PAR2")):
        path = trajectories.path / "store" / name
        whole = path.read_bytes()
        path.write_bytes(whole.replace(old, new))
        assert path.read_bytes() != whole
        place, lines = recording(tmp_path)
        assert collect(Run(small_config, place, teacher)).digest == trajectories.digest
        assert path.read_bytes() == whole
        assert f"{path}: " in lines[0]


def test_an_unreadable_manifest_means_not_finished(teacher, small_config, tmp_path):
    trajectories = collect(Run(small_config, Workplace(tmp_path), teacher))
    for content in ("{}", "[]", "not json"):
        (trajectories.path / "manifest.json").write_text(content)
        assert not verify(tmp_path)["ok"]
        assert collect(Run(small_config, Workplace(tmp_path), teacher)).digest == trajectories.digest


def test_the_precision_of_the_base_is_part_of_every_key_but_not_of_its_fingerprint(teacher, small_config, tmp_path):
    halved = BaseModelConfig(dtype="bfloat16").build(torch.device("cpu"))
    assert halved.fingerprint == teacher.fingerprint
    place = Workplace(tmp_path)
    assert collect(Run(small_config, place, halved)).key != collect(Run(small_config, place, teacher)).key
    keys = {sample(Run(small_config, place, model), Cell(1.0, 2, "ddim"), "x").key for model in (halved, teacher)}
    assert len(keys) == 2


def test_a_second_run_waits_for_the_first_and_can_be_stopped(teacher, small_config, tmp_path):
    trajectories = collect(Run(small_config, Workplace(tmp_path), teacher))
    lock = (tmp_path / "artefacts" / f".{trajectories.path.name}.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    lines = []
    with pytest.raises(Stopped, match="while waiting"):
        collect(Run(small_config, Workplace(tmp_path, announce=lines.append, should_stop=lambda: bool(lines)), teacher))
    assert "waiting for another run" in lines[0]
    lock.close()
    assert collect(Run(small_config, Workplace(tmp_path), teacher)).digest == trajectories.digest


def test_training_leaves_the_base_weights_alone(small_config, tmp_path):
    base_model = BaseModelConfig().build(torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in base_model.network.state_dict().items()}
    place = Workplace(tmp_path)
    train_all(Run(small_config, place, base_model), collect(Run(small_config, place, base_model)))
    after = base_model.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_same_seed_gives_the_same_bytes(first_run, small_config, tmp_path):
    distill(Run(small_config, Workplace(tmp_path)), "agd distill test")
    for pattern in ("**/adapter.safetensors", "**/latents/c.*", "**/samples.safetensors", "**/evaluation.json"):
        second = tree_digest(tmp_path, pattern)
        assert second
        assert second.items() <= tree_digest(first_run[0], pattern).items()
    assert verify(tmp_path)["ok"]


def test_another_seed_gives_other_trajectories(first_run, teacher, small_config):
    config = small_config.collect.model_copy(update={"seed": 1})
    first = collect(Run(small_config, Workplace(first_run[0]), teacher))
    changed = small_config.model_copy(update={"collect": config})
    other = collect(Run(changed, Workplace(first_run[0]), teacher))
    assert other.digest != first.digest


@pytest.mark.parametrize(
    ("polls", "stop_after", "message"),
    [
        (0, 0, "0 of 3 units"),
        (7, 1, "1 of 3 units"),
        (14, 2, "2 of 3 units"),
        (4, 0, "0 of 3 units"),
        (20, 2, "2 of 3 units"),
    ],
)
def test_an_interrupted_collection_resumes_to_the_same_content(
    first_run, teacher, small_config, tmp_path, polls, stop_after, message
):
    """It is asked before every unit and at each of its six steps."""
    answers = iter([False] * polls + [True])
    with pytest.raises(Stopped, match=message):
        collect(Run(small_config, Workplace(tmp_path, should_stop=lambda: next(answers)), teacher))
    assert not verify(tmp_path)["ok"]
    committed = tree_digest(tmp_path, "**/index/*.parquet")
    place, lines = recording(tmp_path)
    resumed = collect(Run(small_config, place, teacher))
    assert len(committed) == stop_after
    assert f"{stop_after} of 3 units there already" in lines[0]
    assert committed.items() <= tree_digest(tmp_path, "**/index/*.parquet").items()
    assert resumed.digest == collect(Run(small_config, Workplace(first_run[0]), teacher)).digest


def test_an_interrupted_training_resumes_to_the_same_weights(first_run, teacher, small_config, tmp_path):
    trajectories = collect(Run(small_config, Workplace(first_run[0]), teacher))
    polls = iter([False, False, True])
    one = small_config.model_copy(update={"methods": small_config.methods[:1]})
    with pytest.raises(Stopped, match="after step 3 of 6"):
        train_all(Run(one, Workplace(tmp_path, should_stop=lambda: next(polls)), teacher), trajectories)
    ((_, resumed),) = train_all(Run(one, Workplace(tmp_path), teacher), trajectories)
    ((_, straight),) = train_all(Run(one, Workplace(first_run[0]), teacher), trajectories)
    assert resumed.digest == straight.digest
    assert not list(resumed.path.glob("checkpoint*"))


def test_a_sample_does_not_depend_on_its_batch(first_run, teacher, small_config, tmp_path):
    config = small_config.sample.model_copy(update={"batch_size": 3})
    cell = Cell(3.0, 4, "ddim", guidance=small_config.guidance)
    changed = small_config.model_copy(update={"sample": config})
    in_threes = read_samples(sample(Run(changed, Workplace(tmp_path), teacher), cell, "CFG"))
    at_once = read_samples(sample(Run(small_config, Workplace(first_run[0]), teacher), cell, "CFG"))
    assert torch.allclose(in_threes.latents, at_once.latents, atol=1e-4)  # matrices of other shapes round otherwise
    assert in_threes.nfe == at_once.nfe == 8


def test_a_deleted_output_is_made_again(first_run, teacher, small_config):
    bare = sample(Run(small_config, Workplace(first_run[0]), teacher), Cell(2.0, 4, "ddim"), "no guidance")
    victim = bare.path / SAMPLES
    whole = victim.read_bytes()
    victim.unlink()
    distill(Run(small_config, Workplace(first_run[0])), "agd distill test")
    assert victim.read_bytes() == whole


def test_an_extractor_that_does_not_know_the_classes_is_refused(small_config):
    class Stranger:
        class_names = ("cat", "dog")

    for setting, changes in (("extractor", {}), ("judge", {"extractor": "none", "judge": "fashion-classifier"})):
        with pytest.raises(InputError, match=rf"set evaluate\.{setting}=none"):
            check_evaluation(small_config.evaluate.model_copy(update=changes), Stranger())


def test_without_extractor_the_report_still_comes(small_config, tmp_path):
    config = load_config("fashion-dit", [*SMALL, "evaluate.extractor=none", "sample.guidance_scales=[2,4]"])
    metrics = distill(Run(config, Workplace(tmp_path)), "agd distill test").metrics
    assert len(metrics["rows"]) == 10
    assert all(row["fd"] is None and row["paired_mse"] is not None for row in metrics["rows"])


def test_a_full_disk_is_named_before_work(small_config, teacher, tmp_path):
    huge = small_config.collect.model_copy(update={"trajectories": 10**12, "kept_steps": None})
    with pytest.raises(InputError, match=r"needs .* MB in .* MB are free"):
        collect(Run(small_config.model_copy(update={"collect": huge}), Workplace(tmp_path), teacher))


def test_names_are_no_part_of_an_adapters_identity():
    assert OffsetConfig(name="mine").identity() == OffsetConfig().identity()
    assert CrossAttentionConfig(hidden_width=8).identity() != CrossAttentionConfig(hidden_width=10).identity()


def test_every_sample_set_is_read_once_whatever_is_compared_with_it(first_run, small_config, monkeypatch):
    read = []
    counted = lambda artefact: read.append(artefact.path) or read_samples(artefact)  # noqa: E731
    monkeypatch.setattr(evaluation, "read_samples", counted)
    changed = small_config.model_copy(update={"evaluate": small_config.evaluate.model_copy(update={"seed": 7})})
    rows = distill(Run(changed, Workplace(first_run[0])), "agd distill test").metrics["all_rows"]
    assert len(rows) == 10
    assert len(read) == len(set(read)) > 5


def test_pictures_and_features_read_no_sample_set_as_a_whole(first_run, small_config, monkeypatch):
    """A thousand images of SDXL are 3 GB: a grid reads the images that it shows."""
    asked = []

    def counted(artefact, name, forms, rows=slice(None)):
        asked.append((set(forms), rows))
        return read_tensors(artefact, name, forms, rows)

    monkeypatch.setattr(sampling, "read_tensors", counted)
    distill(Run(small_config, Workplace(first_run[0])), "agd distill another")
    show = [rows for forms, rows in asked if "images" in forms]
    assert show == [slice(40)] * 5
    assert not any("latents" in forms for forms, _ in asked)


def test_a_slice_reads_as_many_rows(first_run):
    samples = next(first_run[0].glob("artefacts/samples-*"))
    artefact = Artefact(samples, "samples", "")
    whole = read_samples(artefact)
    assert torch.equal(read_images(artefact, slice(3, 8)), whole.images[3:8])
    assert torch.equal(read_labels(artefact), whole.labels)
