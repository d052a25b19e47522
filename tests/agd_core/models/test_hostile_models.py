"""Base-model folders from strangers: one line, at once, in little memory; no code is run, nothing outside is read."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

from agd_core.basics.errors import InputError
from agd_core.basics.weights import read_state
from agd_core.builtin.miniatures import miniature_folder
from agd_core.memory.full_size import FullSizeModel
from agd_core.models.config import BaseModelConfig
from agd_core.models.folder import require_safe_folder

CPU = torch.device("cpu")
UNET, VAE, TEXT = "unet/config.json", "vae/config.json", "text_encoder/config.json"
TOKENIZER, SCHEDULER = "tokenizer/tokenizer_config.json", "scheduler/scheduler_config.json"
INDEX = "model_index.json"


@pytest.fixture
def folder(tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(miniature_folder("tiny-sd"), copy)
    return copy


def build(folder):
    return BaseModelConfig(source=str(folder)).build(CPU)


def changed(file, **settings):
    def change(folder):
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**content, **settings}))

    return change


def replaced(file, make):
    def change(folder):
        (folder / file).unlink(missing_ok=True)
        make(folder / file)

    return change


def pipe(file):
    return replaced(file, os.mkfifo)


def endless(file):
    return replaced(file, lambda path: path.symlink_to("/dev/zero"))


def text(file, content):
    return replaced(file, lambda path: path.write_text(content))


def sharded(name):
    return text("unet/diffusion_pytorch_model.safetensors.index.json", json.dumps({"weight_map": {"a": name}}))


def linked(file):
    """It lies outside of the folder, with the same content."""

    def change(folder):
        outside = folder.parent / "outside"
        outside.mkdir()
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).touch()
        shutil.move(folder / file, outside)
        (folder / file).symlink_to(outside / file.split("/")[-1])

    return change


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
HOSTILE = {
    "pipe as index": (pipe(INDEX), "model_index.json is no regular file but a named pipe"),
    "pipe as settings": (pipe(UNET), "unet/config.json is no regular file but a named pipe"),
    "pipe as weights": (pipe(WEIGHTS), "model.safetensors is no regular file but a named pipe"),
    "endless weights": (endless(WEIGHTS), "model.safetensors is no regular file but a device"),
    "pipe as vocabulary": (pipe("tokenizer/merges.txt"), "merges.txt is no regular file but a named pipe"),
    "endless tokenizer": (endless("tokenizer/tokenizer.json"), "tokenizer.json is no regular file but a device"),
    "pipe that nobody named": (pipe("vae/more.json"), "more.json is no regular file but a named pipe"),
    "settings by a link": (linked(VAE), "vae/config.json is a link that leads out of"),
    "weights by a link": (linked(WEIGHTS), "model.safetensors is a link that leads out of"),
    "a template by a link": (linked("tokenizer/templates/a.jinja"), "a.jinja is a link that leads out of"),
    "deep settings": (text(UNET, "[" * 100_000), "unet/config.json is nested deeper than 64 levels"),
    "torn settings": (text(VAE, "{"), "vae/config.json is no JSON"),
    "a list as settings": (text(VAE, "[]"), "vae/config.json holds no JSON object"),
    "a key twice": (text(VAE, '{"a": 1, "a": 2}'), "the key 'a' stands twice"),
    "a part outside": (changed(INDEX, **{"../x": ["diffusers", "UNet2DConditionModel"]}), "allowed are plain names"),
    "weights outside": (sharded("../../secret.safetensors"), "names a file 'unet/../../secret.safetensors'"),
    "weights at the root": (sharded("/etc/passwd"), "names the file /etc/passwd; allowed are files beside it"),
    "vocabulary outside": (changed(TOKENIZER, vocab_file="/etc/passwd"), "names the file /etc/passwd"),
    "vocabulary above": (changed(TOKENIZER, merges_file="../../x"), "names a file 'tokenizer/../../x'"),
    "code of a part": (changed(TEXT, auto_map={"AutoModel": "x.Y"}), r"names code of its own \(auto_map\)"),
    "code of a tokenizer": (changed(TOKENIZER, auto_map={"AutoTokenizer": ["x.Y", None]}), "names code of its own"),
    "code of the pipeline": (changed(INDEX, _class_name=["my", "Pipeline"]), "names a pipeline of its own"),
    "another library": (changed(INDEX, text_encoder=["os", "system"]), "text_encoder is of os; allowed are diffusers"),
    "no library": (changed(INDEX, text_encoder=["transformers"]), "text_encoder must be a list of a library and"),
    "another model": (text("text_encoder/adapter_config.json", "{}"), "names another model, which is never loaded"),
    "absurd depth": (changed(UNET, layers_per_block=10**9), r"layers_per_block is 1e\+09; allowed are"),
    "great depth": (changed(UNET, layers_per_block=10**6), "far larger than its weights"),
    "great width": (changed(UNET, block_out_channels=[1 << 20] * 4), "far larger than its weights"),
    "absurd side": (changed(UNET, sample_size=10**6), "sample_size is 1000000; allowed are 1 to 1024"),
    "negative channels": (changed(UNET, in_channels=-1), "cannot load UNet2DConditionModel"),
    "a text for a number": (changed(UNET, in_channels="4"), "cannot load UNet2DConditionModel"),
    "infinity": (text(UNET, '{"in_channels": 1e400}'), "in_channels is inf; allowed are"),
    "no channels of the VAE": (changed(VAE, block_out_channels=None), "cannot be used: TypeError"),
    "no scheduler settings": (text(SCHEDULER, "3"), "scheduler_config.json holds no JSON object"),
    "torn weights": (
        replaced(WEIGHTS, lambda path: path.write_bytes(b"\xff" * 64)),
        "cannot load UNet2DConditionModel",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_it_is_one_line(case, folder):
    change, message = HOSTILE[case]
    change(folder)
    with pytest.raises(InputError, match=message) as problem:
        build(folder)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    "change",
    [
        changed(TEXT, num_hidden_layers=10**6),
        changed(TEXT, vocab_size=9_000_000, hidden_size=1 << 16),
        changed(TEXT, hidden_size="wide"),
        text("tokenizer/tokenizer.json", "{"),
        text("text_encoder/model.safetensors", "torn"),
    ],
)
def test_so_are_text_encoders_when_they_are_first_needed(change, folder):
    change(folder)
    with pytest.raises(InputError) as problem:
        build(folder).prompt_condition(["a cat"])
    assert "\n" not in str(problem.value)
    assert str(folder) in str(problem.value)


def test_names_in_published_tokenizers_that_nobody_opens_are_no_fault(folder):
    changed(TOKENIZER, special_tokens_map_file="/home/me/map.json", name_or_path="openai/clip")(folder)
    assert build(folder).prompt_condition(["a cat"])["encoder_hidden_states"].isfinite().all()


def test_a_snapshot_of_the_hubs_cache_is_read(folder, tmp_path):
    """There every file is a link to a blob above the snapshot."""
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blobs / str(number))
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    split = {"weight_map": {"a": "diffusion_pytorch_model.safetensors"}}
    (snapshot / "unet" / "more.safetensors.index.json").write_text(json.dumps(split))
    require_safe_folder(snapshot)
    assert build(snapshot).fingerprint == build(folder).fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(UNET, sample_size=None), "do not hold the sizes of a model"),
        (changed(UNET, sample_size=10**7), "sample_size is 10000000; allowed are 1 to 1024"),
        (changed(VAE, block_out_channels=3), "do not hold the sizes of a model"),
        (pipe(UNET), "is no regular file but a named pipe"),
    ],
)
def test_the_doctor_says_so_too(change, message, folder):
    change(folder)
    with pytest.raises(InputError, match=message):
        FullSizeModel.of_folder(folder, "mine")


def test_the_doctor_makes_no_network_without_end(folder):
    changed(UNET, layers_per_block=10**6)(folder)
    with pytest.raises(InputError, match="describes a network far larger"):
        FullSizeModel.of_folder(folder, "mine").network()


def test_weights_that_are_no_regular_file_are_never_opened(tmp_path):
    os.mkfifo(tmp_path / "a.pth")
    (tmp_path / "b.safetensors").symlink_to("/dev/zero")
    for name in ("a.pth", "b.safetensors"):
        with pytest.raises(InputError, match="is no regular file but a"):
            read_state(tmp_path / name)


def test_a_packed_archive_of_weights_is_refused(tmp_path):
    import zipfile

    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "a.pth")
    assert list(read_state(tmp_path / "a.pth")[0]) == ["a"]
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as plain,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for part in plain.namelist():
            packed.writestr(part, plain.read(part))
    with pytest.raises(InputError, match="holds no plain tensors by name"):
        read_state(tmp_path / "b.pth")


def test_a_file_that_says_it_is_safetensors_and_is_not_is_one_line(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    os.truncate(tmp_path / "a.safetensors", 40)
    with pytest.raises(InputError, match="holds no plain tensors by name"):
        read_state(tmp_path / "a.safetensors")
