import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
import transformers

from agd_core.basics.digest import file_digest
from agd_core.basics.errors import InputError
from agd_core.builtin.cache import write_at_once
from agd_core.builtin.miniatures import MINIATURES, cache, miniature_folder, write_miniature
from agd_core.builtin.miniatures.parts import clip_tokenizer, t5_tokenizer
from agd_core.models.reading import pipeline_class
from agd_core.models.sources import resolve_source
from tests.composition_parts import PROMPT, draw, load_stock, network, share

PIPELINES = {
    "tiny-dit": "DiTPipeline",
    "tiny-pixart": "PixArtSigmaPipeline",
    "tiny-sd": "StableDiffusionPipeline",
    "tiny-sd-v": "StableDiffusionPipeline",
    "tiny-sd3": "StableDiffusion3Pipeline",
    "tiny-sdxl": "StableDiffusionXLPipeline",
}
LATENTS = {
    "tiny-dit": (4, 8, 8),
    "tiny-pixart": (4, 32, 32),
    "tiny-sd": (4, 16, 16),
    "tiny-sd-v": (4, 16, 16),
    "tiny-sd3": (16, 8, 8),
    "tiny-sdxl": (4, 16, 16),
}
SCHEDULERS = {
    "tiny-dit": "DDIMScheduler",
    "tiny-pixart": "DPMSolverMultistepScheduler",
    "tiny-sd": "PNDMScheduler",
    "tiny-sd-v": "DDIMScheduler",
    "tiny-sd3": "FlowMatchEulerDiscreteScheduler",
    "tiny-sdxl": "EulerDiscreteScheduler",
}
LEARNED_VARIANCE = ("tiny-dit", "tiny-pixart")
UNETS = ("tiny-sd", "tiny-sd-v", "tiny-sdxl")
WARNINGS_OF_THE_REAL_ONE = (
    "Expected types for id2label: (dict[int, str], <class 'NoneType'>), got typing.Dict[str, str].",
)
"""diffusers says so of every DiT whose folder names its classes: JSON has no numbers as keys."""
NO_SOUP = "clean_caption"
"""What its warnings of every PixArt pipeline name, where Beautiful Soup is not installed."""
MAX_BYTES = 10 << 20
every_name = pytest.mark.parametrize("name", PIPELINES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("miniatures")
    for name in PIPELINES:
        write_miniature(name, root / name)
    return {name: root / name for name in PIPELINES}


def recorded(pipe, scale: float) -> list[torch.Tensor]:
    """What the network answered in every pass of one image."""
    answers: list[torch.Tensor] = []
    hook = network(pipe).register_forward_hook(lambda _module, _inputs, output: answers.append(output[0]))
    draw(pipe, scale=scale)
    hook.remove()
    return answers


def file_digests(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): file_digest(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_miniature_is_tested():
    assert set(MINIATURES) == set(PIPELINES)


@pytest.fixture
def library_warnings(caplog, monkeypatch):
    """What diffusers and transformers log from warnings upwards; proven to listen."""
    loggers = [diffusers.utils.logging.get_logger(), transformers.utils.logging.get_logger()]
    for logger in loggers:
        monkeypatch.setattr(logger, "propagate", True)
        logger.warning("heard")
    assert set(caplog.messages) == {"heard"}
    caplog.clear()
    return caplog


@every_name
def test_the_stock_pipeline_loads_it_offline_without_a_warning(name, folders, library_warnings):
    pipe = load_stock(folders[name])
    draw(pipe, scale=5.0)
    assert [
        text for text in library_warnings.messages if text not in WARNINGS_OF_THE_REAL_ONE and NO_SOUP not in text
    ] == []
    assert type(pipe).__name__ == PIPELINES[name] == pipeline_class(folders[name])
    assert type(pipe.scheduler).__name__ == SCHEDULERS[name]


@every_name
def test_it_draws_finite_images_of_its_own_size_with_guidance(name, folders):
    images = draw(load_stock(folders[name]), scale=5.0)
    pixels = LATENTS[name][-1] * 8
    assert images.shape == (1, pixels, pixels, 3)
    assert np.isfinite(images).all()
    assert 0.05 < images.std() < 0.4


@every_name
def test_predictions_are_of_order_one_and_feel_their_condition(name, folders):
    pipe = load_stock(folders[name])
    channels = LATENTS[name][0]
    for answer in recorded(pipe, scale=5.0):
        halves = answer[:, :channels].chunk(2)
        assert answer.shape == (2, channels * (2 if name in LEARNED_VARIANCE else 1), *LATENTS[name][1:])
        assert 0.5 < float(answer.std()) < 2
        assert share(halves[0] - halves[1], halves[1]) > 0.05


@every_name
def test_guidance_and_condition_change_the_image(name, folders):
    pipe = load_stock(folders[name])
    unguided = draw(pipe)
    assert share(draw(pipe, scale=5.0) - unguided, unguided) > 0.05
    assert share(draw(pipe, 7 if name == "tiny-dit" else "blue tea") - unguided, unguided) > 0.01


@every_name
def test_it_is_small_and_holds_safetensors_only(name, folders):
    files = [path for path in folders[name].rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja"}
    assert sum(p.numel() for p in network(load_stock(folders[name])).parameters()) < 1_000_000


@every_name
def test_equal_calls_give_equal_bytes_and_leave_the_random_state(name, folders, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    write_miniature(name, tmp_path / name)
    assert file_digests(tmp_path / name) == file_digests(folders[name])
    assert torch.equal(torch.get_rng_state(), before)


@every_name
def test_no_parameter_is_left_at_a_constant(name, folders):
    pipe = load_stock(folders[name])
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert len(parts) >= 2
    flat = [n for part in parts for n, p in part.named_parameters() if p.numel() > 1 and len(p.unique()) == 1]
    assert flat == []


def test_dit_has_learned_variance_and_the_null_class_of_the_pipeline(folders):
    pipe = load_stock(folders["tiny-dit"])
    config = pipe.transformer.config
    assert config.out_channels == 2 * config.in_channels
    assert config.num_embeds_ada_norm == 1000
    assert pipe.get_label_ids(["class 999"]) == [999]


@pytest.mark.parametrize(("name", "attentions"), [("tiny-sd", 16), ("tiny-sd-v", 16), ("tiny-sdxl", 17)])
def test_unets_have_the_blocks_of_the_real_ones(name, attentions, folders):
    unet = load_stock(folders[name]).unet
    assert sum(path.endswith("attn2") for path, _ in unet.named_modules()) == attentions
    assert {len(block.attentions) for block in unet.up_blocks if hasattr(block, "attentions")} == {3}
    assert unet.config.use_linear_projection == (name != "tiny-sd")
    assert len(unet.mid_block.attentions) == 1


def test_prediction_types_and_schedules_are_those_of_the_real_models(folders):
    configs = {name: json.loads((folders[name] / "scheduler/scheduler_config.json").read_text()) for name in folders}
    assert {name: configs[name].get("prediction_type") for name in ("tiny-dit", *UNETS)} == {
        "tiny-dit": "epsilon",
        "tiny-sd": "epsilon",
        "tiny-sd-v": "v_prediction",
        "tiny-sdxl": "epsilon",
    }
    for name in UNETS:
        ours = [configs[name][key] for key in ("beta_start", "beta_end", "beta_schedule", "steps_offset")]
        assert ours == [0.00085, 0.012, "scaled_linear", 1]
        assert configs[name]["clip_sample"] is False
        assert configs[name]["set_alpha_to_one"] is False
    assert configs["tiny-dit"]["clip_sample"] is False
    assert configs["tiny-sd3"]["shift"] == 3.0


def test_sdxl_takes_zeros_for_an_empty_prompt_and_sizes_as_conditions(folders):
    pipe = load_stock(folders["tiny-sdxl"])
    _, negative, pooled, negative_pooled = pipe.encode_prompt(PROMPT)
    assert pooled.abs().sum() > 0 == negative.abs().sum() == negative_pooled.abs().sum()
    assert pipe.unet.config.addition_embed_type == "text_time"
    square = draw(pipe)
    assert share(draw(pipe, original_size=(64, 64)) - square, square) > 0.001


def test_sd3_listens_to_all_three_text_encoders(folders):
    pipe = load_stock(folders["tiny-sd3"])
    plain = draw(pipe)
    for argument in ("prompt", "prompt_2", "prompt_3"):
        prompts = {"prompt": PROMPT, "prompt_2": PROMPT, "prompt_3": PROMPT, argument: "blue tea"}
        other = draw(pipe, prompts.pop("prompt"), **prompts)
        assert share(other - plain, plain) > 0.001
    assert pipe.vae.config.shift_factor == 0.0609


@pytest.mark.parametrize("pad_token", ["<|endoftext|>", "!"])
def test_the_clip_tokenizer_tells_prompts_apart_and_reads_them_back(pad_token, tmp_path):
    clip_tokenizer(pad_token).save_pretrained(tmp_path)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    rows = tokenizer([PROMPT, "a red cat", "a cat red", ""], padding="max_length").input_ids
    assert {len(row) for row in rows} == {77}
    assert len({tuple(row) for row in rows}) == 4
    assert tokenizer.decode(rows[0], skip_special_tokens=True).rstrip("! ") == PROMPT
    assert rows[3][:2] == [tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert set(rows[3][2:]) == {tokenizer.convert_tokens_to_ids(pad_token)}
    assert max(map(max, rows)) < len(tokenizer)


def test_the_t5_tokenizer_knows_every_printable_character(tmp_path):
    t5_tokenizer().save_pretrained(tmp_path)
    tokenizer = transformers.T5TokenizerFast.from_pretrained(tmp_path)
    row = tokenizer("A photo, of 2 cats!").input_ids
    assert tokenizer.unk_token_id not in row
    assert row[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(row, skip_special_tokens=True) == "A photo, of 2 cats!"


def test_a_builtin_source_is_the_cached_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = resolve_source("builtin:tiny-dit")
    assert folder == miniature_folder("tiny-dit")
    assert folder.parent == tmp_path / "agd-pipeline" / "miniatures"
    written = (folder / "model_index.json").stat().st_mtime_ns
    assert resolve_source("builtin:tiny-dit") == folder
    assert (folder / "model_index.json").stat().st_mtime_ns == written
    assert os.listdir(folder.parent) == [folder.name]


def test_the_cache_is_in_the_home_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert miniature_folder("tiny-dit").is_relative_to(tmp_path / ".cache" / "agd-pipeline" / "miniatures")


def test_other_library_versions_have_another_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = miniature_folder("tiny-dit")
    monkeypatch.setattr(cache, "version", lambda package: f"{package} 99")
    assert miniature_folder("tiny-dit") != first


def test_two_writers_at_once_make_one_whole_folder(tmp_path, monkeypatch, folders):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    both_are_writing = threading.Barrier(2)
    real = MINIATURES["tiny-dit"]

    def write(folder: Path) -> None:
        both_are_writing.wait()
        real(folder)

    monkeypatch.setitem(MINIATURES, "tiny-dit", write)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(miniature_folder, ["tiny-dit"] * 2)
    assert first == second
    assert file_digests(first) == file_digests(folders["tiny-dit"])
    assert os.listdir(first.parent) == [first.name]


def test_whoever_is_second_takes_the_first_ones_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = file_digests(miniature_folder("tiny-dit"))
    write_at_once(miniature_folder("tiny-dit"), MINIATURES["tiny-dit"])
    assert file_digests(miniature_folder("tiny-dit")) == first


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def half(folder: Path) -> None:
        folder.mkdir()
        (folder / "model_index.json").write_text("{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(MINIATURES, "tiny-dit", half)
    with pytest.raises(InputError, match=r"cannot write miniature tiny-dit .* No space left .* set XDG_CACHE_HOME"):
        miniature_folder("tiny-dit")
    assert os.listdir(tmp_path / "agd-pipeline" / "miniatures") == []


def test_unknown_names_list_the_known_ones(tmp_path):
    known = "tiny-dit, tiny-pixart, tiny-sd, tiny-sd-v, tiny-sd3, tiny-sdxl"
    with pytest.raises(
        InputError,
        match=f"unknown built-in model 'tiny'; known: fashion-dit, emoji-sd, emoji-sd-style, emoji-sd-food, {known}",
    ):
        resolve_source("builtin:tiny")
    with pytest.raises(InputError, match=f"unknown miniature 'tiny'; known: {known}"):
        write_miniature("tiny", tmp_path / "tiny")
