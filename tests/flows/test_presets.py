"""From a preset, a file, `--set` or the form to a configuration: nothing is taken for something else."""

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from agd_core.basics.config_problems import first_problem
from agd_core.basics.errors import InputError
from agd_core.methods import AnyMethodConfig
from flows.config import PipelineConfig
from flows.jobs import JOBS
from flows.lab.parameters import form_of
from flows.presets import load_config, parse_config
from flows.registry import registered

FORM = form_of(JOBS[0])
OTHER_TYPES = [
    ("train.steps", "true", "train.steps: Input should be a valid integer, got True"),
    ("train.steps", '"5"', "train.steps: Input should be a valid integer, got '5'"),
    ("train.steps", "5.0", "train.steps: Input should be a valid integer, got 5.0"),
    ("train.learning_rate", "true", "train.learning_rate: Input should be a valid number, got True"),
    ("train.learning_rate", '"1e-3"', "train.learning_rate: Input should be a valid number, got '1e-3'"),
    ("evaluate.measure_cost", "1", "evaluate.measure_cost: Input should be a valid boolean, got 1"),
    ("evaluate.measure_cost", '"yes"', "evaluate.measure_cost: Input should be a valid boolean, got 'yes'"),
    ("sample.guidance_scales", "[true]", "sample.guidance_scales.0: Input should be a valid number, got True"),
    ("sample.curve_steps", "[5.0]", "sample.curve_steps.0: Input should be a valid integer, got 5.0"),
    ("sample.curve_steps", "5", "sample.curve_steps: must be a list, got 5"),
    ("base_model.source", "5", "base_model.source: Input should be a valid string, got 5"),
    ("train.seed", f"{10**30}", "train: seed must be a number below 2**63"),
]


@pytest.mark.parametrize(("setting", "value", "message"), OTHER_TYPES)
def test_a_value_of_another_type_is_refused_and_not_converted(setting, value, message):
    with pytest.raises(InputError) as raised:
        load_config("tiny-sd", [f"{setting}={value}"])
    assert str(raised.value) == message


@pytest.mark.parametrize(("setting", "value", "message"), OTHER_TYPES[:8])
def test_the_form_refuses_it_as_well(setting, value, message):
    section, name = setting.split(".")
    with pytest.raises(ValidationError, match=name):
        FORM.model_validate({section: {name: json.loads(value)}})


def test_whole_numbers_are_floats_lists_are_tuples_and_1e_3_is_a_number():
    changes = ["train.learning_rate=1e-3", "sample.guidance_scales=[2, 3]", "collect.guidance_scale_max=7"]
    config = load_config("tiny-sd", changes)
    assert config.train.learning_rate == 0.001
    assert repr(config.sample.guidance_scales) == "(2.0, 3.0)"
    assert repr(config.collect.guidance_scale_max) == "7.0"
    filled = {"sample": {"guidance_scales": [2, 3], "curve_steps": [5]}, "train": {"learning_rate": 1}}
    assert FORM.model_validate(filled).config().sample.guidance_scales == (2.0, 3.0)


def test_a_negative_prompt_is_a_setting_like_any_other():
    for text in ("blurry, grey", "3"):
        config = FORM.model_validate({"preset": "tiny-sd", "collect": {"negative_prompt": text}}).config()
        assert config == load_config("tiny-sd", [f"collect.negative_prompt={json.dumps(text)}"])
        assert config.collect.negative_prompt == config.teacher_identity["negative_prompt"] == text
    with pytest.raises(InputError, match=r"collect\.negative_prompt: String should match"):
        load_config("tiny-sd", ['collect.negative_prompt="two\\nlines"'])
    assert "negative_prompt" not in load_config("tiny-sd").teacher_identity
    shown = FORM.model_json_schema()["$defs"]["CollectSection"]["properties"]["negative_prompt"]
    assert shown["type"] == "string"
    assert "leads away from" in shown["description"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"methods": [{"kind": "agd-ofset"}]}, "methods.0.kind: allowed are agd-cross-attention, agd-offset, "),
        ({"methods": [{"kind": "agd-ofset"}]}, "; got 'agd-ofset'"),
        ({"methods": [{"hidden_width": 8}]}, "methods.0.kind: allowed are "),
        ({"methods": [{"hidden_width": 8}]}, "; none is given"),
        ({"methods": [{"kind": "agd-offset", "widht": 8}]}, "methods.0.widht: no such setting; allowed here: "),
        ({"methods": [8]}, "methods.0: must be a section of settings, got 8"),
        ({"adapters": [{"kind": "agd-offset"}]}, "adapters: no such setting; allowed here: base_model, guidance, "),
        ({"base_model": {"kind": "xl"}}, "base_model: kind is no setting any more: the source's own "),
        ({"train": None}, "train: must be a section of settings, got None"),
        ({"evaluate": {"extractor": "x" * 10_000}}, "evaluate.extractor: allowed are fashion-classifier, "),
        ([], "configuration: must be a section of settings"),
    ],
)
def test_the_line_names_section_setting_and_what_is_allowed(raw, message):
    with pytest.raises(InputError) as raised:
        parse_config(raw)
    assert message in str(raised.value)
    assert len(str(raised.value)) < 400
    assert str(raised.value).isprintable()


def test_an_adapter_by_itself_is_named_the_same_way():
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(AnyMethodConfig).validate_python({"kind": "agd-offset", "hidden_width": True})
    line = first_problem(raised.value, AnyMethodConfig)
    assert line == "hidden_width: Input should be a valid integer, got True"


def test_a_section_that_stands_twice_is_refused(tmp_path):
    preset = tmp_path / "p.yaml"
    preset.write_text("train: {steps: 7}\nsample: {images: 4}\ntrain: {batch_size: 8}\n")
    with pytest.raises(InputError, match=r"p\.yaml is no YAML: the key 'train' stands twice.* line 3") as raised:
        load_config(str(preset))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["a" * 300, "a" * 65, "a/b", "..", ".a", "a\0", "a\n", "A", "", "-a", "a b", "é"])
def test_a_name_that_becomes_a_folder_is_plain_and_short(name):
    with pytest.raises(InputError, match=r"methods\.0\.name: "):
        parse_config({"methods": [{"kind": "agd-offset", "name": name}]})
    assert parse_config({"methods": [{"kind": "agd-offset", "name": "a" * 64}]}).methods[0].label == "a" * 64


def test_a_configuration_goes_through_json_and_back():
    config = load_config("fashion-dit")
    assert PipelineConfig.model_validate_json(config.model_dump_json()) == config


def test_a_damaged_registry_entry_is_one_line_that_names_the_field(tmp_path):
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "mine.json").write_text('{"name": "mine", "base_model": {"kind": "x"}}')
    (tmp_path / "registry" / "deep.json").write_text("[" * 100_000)
    entries, problems = registered(tmp_path)
    assert entries == []
    assert "deep.json is nested deeper than" in problems[0]
    assert "mine.json is no registered adapter: " in problems[1]
