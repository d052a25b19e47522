"""Collecting at noised images, through all stages: real ones with their classes or captions, or the teacher's own."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from agd_core.basics.errors import InputError
from agd_core.basics.progress import Stopped
from agd_core.builtin import fashion_mnist
from agd_core.builtin.fashion_mnist import CLASS_NAMES
from agd_core.data.records import INPUT
from agd_core.models.autoencoder import Autoencoder
from flows import builtin_images
from flows import real_images as real_images_of_flows
from flows.cli.app import app
from flows.config import PipelineConfig
from flows.jobs import JOBS
from flows.lab.fan_out import Elsewhere, collect_there
from flows.lab.parameters import form_of
from flows.presets import load_config
from flows.real_images import STAGE as LATENTS_STAGE
from flows.real_images import count_captions
from flows.run import Run
from flows.stages.collect import collect, collection_plan
from flows.stages.distill import train_all
from flows.stages.plan import plan_costs, plan_lines
from flows.stages.repetitions import repetitions
from flows.stages.trajectories import open_trajectories
from flows.stages.verify import verify
from flows.workplace import Workplace
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.real_images import FOLDER, real_images, write_pictures
from tests.storage.sources.image_files import encoded

SETTINGS = (
    "collect.states=noised",
    "collect.trajectories=20",
    "collect.steps=4",
    "collect.kept_steps=2",
    "collect.shard_trajectories=4",
    "collect.batch_size=4",
    "train.steps=3",
    "train.batch_size=4",
)
WORDS = ("a red bus on a wet street", "two dogs asleep", "a tall tree")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two real images of every class, in folders named as the classes."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """Colour images with captions, one of which comes twice."""
    path = tmp_path_factory.mktemp("captioned") / "a.parquet"
    drawn = np.random.default_rng(0).integers(0, 256, (4, 40, 24, 3), dtype=np.uint8)
    cells = [{"bytes": encoded(picture)} for picture in drawn]
    pq.write_table(pa.table({"image": cells, "caption": [*WORDS, WORDS[1]]}), path)
    return path


def config(*changes, preset="fashion-dit"):
    return load_config(preset, (*SETTINGS, *changes))


def of_captions(captioned, preset, *changes):
    return config(f"collect.images={captioned}", "collect.prompts=null", "collect.prompt_count=null", *changes,
                  preset=preset)  # fmt: skip


def inputs(store):
    """What the network was handed, `[trajectories, kept, C, H, W]`."""
    plan = store.plan
    pairs = store.read(np.arange(plan.pairs)).latents.reshape(-1, plan.stored_steps, *plan.pair_shape)
    return torch.from_numpy(pairs[:, :, INPUT].astype(np.float32))


def test_real_images_are_those_of_the_class_that_is_asked_for(teacher, pictures, tmp_path):
    run = Run(config(f"collect.images={pictures}"), Workplace(tmp_path), teacher).check()
    store, shown = open_trajectories(collect(run)), np.asarray(run.real_images.subjects)
    names = [image.name.split("/")[-2] for image in run.real_images.source.images()]
    assert [CLASS_NAMES[subject] for subject in shown] == names
    choice = run.real_images.choice(run.collect.seed)
    for trajectory in store.plan.trajectories:
        assert trajectory.class_label == shown[choice.image(trajectory.index)]
    assert {choice.image(trajectory.index) for trajectory in store.plan.trajectories} == set(range(20))
    assert verify(tmp_path)["ok"]


def test_at_the_last_timestep_the_state_is_the_image(teacher, pictures, tmp_path):
    """Of 1000 steps the last is at timestep 0 or 1, with next to no noise: the VAE's latents are seen through it."""
    changes = "collect.steps=200", "collect.kept_steps=200", "collect.trajectories=10"
    run = Run(config(f"collect.images={pictures}", *changes), Workplace(tmp_path), teacher)
    last = inputs(open_trajectories(collect(run)))[:, -1]
    choice, images = run.real_images.choice(0), list(run.real_images.source.images())
    pixels = torch.stack([torch.from_numpy(images[choice.image(row)].pixels(None).copy()) for row in range(10)])
    encoded_images = teacher.encode(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert (last - encoded_images).abs().mean() < 0.15 * encoded_images.abs().mean()


def test_encoding_and_decoding_undo_each_other_but_for_what_the_vae_loses(teacher):
    images = real_images("train")[0][:8].permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = teacher.encode(images)
    assert latents.shape == (8, *teacher.latent_shape)
    assert (teacher.decode(latents) - images).square().mean() < 0.02
    assert torch.equal(teacher.encode(images[3:4]), latents[3:4])


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("tiny-sd", ("collect.scheduler=ddim",)),
        ("tiny-sd", ("collect.scheduler=dpm-solver++", "base_model.source=builtin:tiny-sd-v")),
        ("tiny-sdxl", ("collect.scheduler=euler",)),
        ("tiny-sd3", ("collect.scheduler=flow-euler",)),
        ("tiny-pixart", ()),
    ],
)
def test_every_family_is_trained_on_noised_images_of_its_captions(preset, changes, captioned, tmp_path):
    methods = "methods=[{kind: agd-cross-attention, hidden_width: 8}]"
    run = Run(of_captions(captioned, preset, methods, *changes), Workplace(tmp_path)).check()
    trajectories = collect(run)
    store = open_trajectories(trajectories)
    assert [row.prompt for row in store.plan.trajectories[:4]] == [*WORDS, WORDS[0]]
    assert run.teacher.network_evaluations == 20 * 2 * 2 == trajectories.json("store.json", dict)["network_evaluations"]
    ((_, adapter),) = train_all(run, trajectories)
    assert np.isfinite(adapter.json("losses.json", list)).all()


@pytest.mark.parametrize("preset", ["tiny-dit", "tiny-sd", "tiny-sd3"])
def test_images_of_the_teachers_own_cost_a_whole_trajectory_and_say_so(preset, tmp_path):
    said = []
    run = Run(config(preset=preset), Workplace(tmp_path, announce=said.append)).check()
    costs = plan_costs(run)
    before = run.teacher.network_evaluations
    summary = collect(run).json("store.json", dict)
    assert run.teacher.network_evaluations - before == 20 * (4 + 2) * 2
    assert summary["network_evaluations"] == costs["network_evaluations"] == 240
    assert "each of which costs a whole guided trajectory" in summary["states"]
    for lines in (said, plan_lines(costs)):
        assert any("each of which costs a whole guided trajectory" in line for line in lines)


def test_real_images_are_counted_as_they_cost(teacher, pictures, tmp_path):
    run = Run(config(f"collect.images={pictures}"), Workplace(tmp_path), teacher)
    assert plan_costs(run)["network_evaluations"] == 20 * 2 * 2
    units = {part.stage: part.units for part in repetitions(run)}
    assert units["encode images"] == 20
    assert units["collect"] == 20 * 2 * 2
    before = run.teacher.network_evaluations
    collect(run)
    assert run.teacher.network_evaluations - before == 20 * 2 * 2


def test_a_second_run_computes_nothing_and_images_that_moved_are_the_same(teacher, pictures, tmp_path):
    place = shutil.copytree(pictures, tmp_path / "images")
    first = collect(Run(config(f"collect.images={place}"), Workplace(tmp_path / "out"), teacher))
    moved, before = place.rename(tmp_path / "moved"), teacher.network_evaluations
    again = collect(Run(config(f"collect.images={moved}"), Workplace(tmp_path / "out"), teacher))
    assert again.path == first.path
    assert teacher.network_evaluations == before


def test_other_images_or_other_labels_are_another_collection(teacher, pictures, tmp_path):
    def dataset(place):
        return collection_plan(Run(config(f"collect.images={place}"), Workplace(tmp_path), teacher)).dataset_id

    other = shutil.copytree(pictures, tmp_path / "other")
    assert dataset(other) == dataset(pictures)
    (coat, shirt) = (next((other / name).iterdir()) for name in ("Coat", "Shirt"))
    coat.rename(other / "Shirt" / coat.name)
    shirt.rename(other / "Coat" / shirt.name)
    assert dataset(other) != dataset(pictures)
    ours = Run(config(), Workplace(tmp_path), teacher)
    assert len({dataset(pictures), collection_plan(ours).dataset_id}) == 2


def test_a_longer_collection_takes_over_what_the_shorter_one_has(teacher, pictures, tmp_path):
    """Every image is encoded by itself, so its latents are the same bits beside others."""

    def made(output, count):
        run = Run(config(f"collect.images={pictures}", f"collect.trajectories={count}"), Workplace(output), teacher)
        before = teacher.network_evaluations
        return open_trajectories(collect(run)).content_digest(), (teacher.network_evaluations - before) / (4 * 2 * 2)

    assert made(tmp_path / "grown", 8)[1] == 2
    grown, fresh = made(tmp_path / "grown", 16), made(tmp_path / "fresh", 16)
    assert (grown[1], fresh[1]) == (2, 4)
    assert grown[0] == fresh[0]


@pytest.mark.parametrize("images", ["", "real"])
def test_a_stopped_collection_ends_like_an_unbroken_one(teacher, pictures, tmp_path, images):
    settings = config(*([f"collect.images={pictures}"] if images else []))
    whole = open_trajectories(collect(Run(settings, Workplace(tmp_path / "whole"), teacher))).content_digest()
    polls = 0

    def now():
        nonlocal polls
        polls += 1
        return polls % 13 == 0

    for _ in range(100):
        try:
            found = collect(Run(settings, Workplace(tmp_path / "stopped", should_stop=now), teacher))
            break
        except Stopped:
            pass
    assert polls > 26
    assert open_trajectories(found).content_digest() == whole


def test_stopping_while_images_are_encoded_leaves_nothing_half_done(teacher, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(real_images_of_flows, "_IMAGES_TOGETHER", 8)
    told = []
    place = Workplace(
        tmp_path,
        progress=lambda job: lambda done, *_: told.append(done) if job == "encode images" else None,
        should_stop=lambda: bool(told),
    )
    with pytest.raises(Stopped, match="stopped with 8 of 20 real images encoded"):
        collect(Run(config(f"collect.images={pictures}"), place, teacher))
    assert told == [8]
    assert not list(tmp_path.glob(f"artefacts/{LATENTS_STAGE}-*/*.safetensors"))


def test_images_that_change_while_they_are_read_are_refused(teacher, pictures, tmp_path):
    place = shutil.copytree(pictures, tmp_path / "images")

    bag = next(place.glob("Bag/*.png"))

    def change(job):
        return lambda *_: bag.write_bytes(bag.read_bytes() + b"x") if job == "encode images" else None

    run = Run(config(f"collect.images={place}"), Workplace(tmp_path / "out", progress=change), teacher)
    with pytest.raises(InputError, match=r"collect\.images: .* has changed while it was read"):
        collect(run)


def test_another_process_finds_the_images_encoded(pictures, tmp_path, monkeypatch):
    settings = config(f"collect.images={pictures}", f"store.url={tmp_path}/kept")
    artefact = collect(Run(settings, Workplace(tmp_path / "out")))
    store = open_trajectories(artefact, settings.store.url)
    digest = store.content_digest()
    for unit in (1, 3):
        store.objects.delete(f"index/u-{unit:06d}.parquet")
        store.objects.delete(f"latents/c.{unit}.0.0.0.0.0")
    elsewhere = Elsewhere(settings, "cpu", str(tmp_path / "out"))
    monkeypatch.setattr(Autoencoder, "encode", None)
    for unit in (1, 3):
        collect_there(unit, store.objects.url, elsewhere)
    assert ZarrTrajectoryStore.open(store.objects).content_digest() == digest


def test_the_built_in_images_are_fashion_mnist(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(builtin_images, "idx_files", lambda split: fashion_mnist.idx_files(split, FOLDER))
    monkeypatch.setattr(
        builtin_images, "load_fashion_mnist", lambda split: fashion_mnist.load_fashion_mnist(split, FOLDER)
    )
    run = Run(config(preset="fashion-dit-noised"), Workplace(tmp_path), teacher).check()
    images, labels = real_images("train")
    assert run.real_images.subjects == tuple(labels.tolist())
    first = next(iter(run.real_images.source.images())).pixels(None)
    np.testing.assert_array_equal(first, images[0].numpy())
    assert open_trajectories(collect(run)).plan.pairs == 40


def grey_but_coloured(pictures, tmp_path):
    place = shutil.copytree(pictures, tmp_path / "coloured")
    (place / "Ankle boot" / "0.png").write_bytes(encoded(np.zeros((32, 32, 3), np.uint8)))
    return f"collect.images={place}"


def one_class_missing(pictures, tmp_path):
    return f"collect.images={shutil.copytree(pictures, tmp_path / 'fewer', ignore=shutil.ignore_patterns('Dress'))}"


def another_class(pictures, tmp_path):
    place = shutil.copytree(pictures, tmp_path / "hats")
    (place / "Dress").rename(place / "Hat")
    return f"collect.images={place}"


def flat(pictures, tmp_path):
    place = tmp_path / "flat"
    place.mkdir()
    shutil.copy(next(pictures.glob("Coat/*.png")), place / "0.png")
    return f"collect.images={place}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flat, r"collect\.images: .*0\.png has no label: it lies in no folder"),
        (one_class_missing, r"collect\.images: .* holds no image of the class 'Dress'"),
        (another_class, r"collect\.images: 'Hat' is no class of this base model; allowed are its 10 names \(T-shirt, "),
        (grey_but_coloured, r"collect\.images: .*0\.png has colours; this base model makes grey images"),
        (lambda *_: "collect.images=/no/where", r"collect\.images: /no/where does not exist"),
        (
            lambda *_: "collect.images=builtin:cats",
            r"unknown built-in images builtin:cats; known: builtin:fashion-mnist",
        ),
    ],
)
def test_images_that_cannot_serve_are_one_line_before_any_work(change, message, teacher, pictures, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(InputError, match=message) as caught:
        Run(config(change(pictures, tmp_path)), Workplace(output), teacher).check()
    assert "\n" not in str(caught.value)
    assert not output.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ("collect.images=builtin:fashion-mnist", "collect.prompts=null"),
            "tells no captions of its images; it has lab",
        ),
        (("collect.images={captioned}",), r"collect\.prompts: the captions of collect\.images are the prompts"),
        (
            ("collect.images={captioned}", "collect.prompts=null", "collect.prompt_count=9"),
            r"collect\.prompt_count: .* holds 3 different captions, 9 are asked for",
        ),
        (("collect.images={pictures}", "collect.prompts=null"), r"has no caption: .*\.txt is not beside it"),
        (("collect.states=guided", "collect.images={captioned}"), "they need states noised"),
    ],
)
def test_a_model_that_takes_prompts_needs_captions(changes, message, captioned, pictures, tmp_path):
    places = {"captioned": captioned, "pictures": pictures}
    with pytest.raises(InputError, match=message):
        Run(config(*(change.format(**places) for change in changes), preset="tiny-sd"), Workplace(tmp_path)).check()


def test_fewer_prompts_are_the_first_captions(captioned, tmp_path):
    run = Run(of_captions(captioned, "tiny-sd", "collect.prompt_count=2"), Workplace(tmp_path))
    assert run.collected.prompts == WORDS[:2]
    assert run.real_images.subjects == (0, 1, -1, 1)
    assert count_captions(run.config.collect) == 2
    assert count_captions(of_captions(captioned, "tiny-sd").collect) == 3


def test_the_form_a_preset_and_set_give_the_same_configuration(pictures):
    form = form_of(JOBS[0]).model_validate({"collect": {"states": "noised", "images": str(pictures)}}).config()
    assert form == load_config("fashion-dit", ["collect.states=noised", f"collect.images={pictures}"])
    shown = form_of(JOBS[0]).model_json_schema()["$defs"]["CollectSection"]["properties"]
    assert shown["states"]["enum"] == ["guided", "noised"]
    preset = load_config("fashion-dit-noised")
    assert (preset.collect.states, preset.collect.images) == ("noised", "builtin:fashion-mnist")
    plain = {name: value for name, value in preset.collect if name not in ("states", "images")}
    assert plain.items() <= dict(load_config("fashion-dit").collect).items()
    assert PipelineConfig.model_validate_json(preset.model_dump_json()) == preset


def test_the_command_says_what_it_would_cost_and_refuses_in_one_line(tmp_path):
    overrides = [part for setting in SETTINGS for part in ("--set", setting)]
    command = ["collect", "fashion-dit", *overrides, "--output", str(tmp_path), "--dry-run"]
    assert json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)["network_evaluations"] == 240
    refused = CliRunner().invoke(app, [*command, "--set", "collect.images=/no/where"])
    assert refused.exit_code == 2
    assert refused.stderr.strip().endswith("are a folder of PNG, JPEG or WebP files, WebDataset .tar files, a .zarr "
                                           "array, .parquet files")  # fmt: skip
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("rule", ["cfg-gate", "guidance-cache"])
def test_a_rule_that_follows_the_sampler_cannot_be_asked_at_noised_images(rule, teacher, tmp_path):
    """The others are: that of an interval goes by the noise level alone."""
    guidance = f"guidance={{kind: {rule}, rule: {{kind: cfg}}}}"
    with pytest.raises(InputError, match=f"collect.states noised: the rule '{rule}' depends on a sampler's steps"):
        Run(config(guidance), Workplace(tmp_path), teacher).check()
    Run(config(guidance, "collect.states=guided"), Workplace(tmp_path), teacher).check()
    interval = config("guidance={kind: interval, high: 1, rule: {kind: cfg}}", "collect.kept_steps=3")
    run = Run(interval, Workplace(tmp_path), teacher).check()
    expected, before = plan_costs(run)["network_evaluations"], teacher.network_evaluations
    collect(run)
    assert teacher.network_evaluations - before == expected < 20 * (4 + 3) * 2
