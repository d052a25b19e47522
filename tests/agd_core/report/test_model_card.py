import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import yaml
from PIL import Image
from typer.main import get_command

from agd_core.basics.safe_files import printable
from agd_core.guidance import ClassifierFreeGuidance
from agd_core.methods import FinetuneConfig, ModulatedMlpConfig, OffsetConfig
from agd_core.methods.adapter_files import AdapterCard, read_card, save_adapter
from agd_core.models.config import BaseModelConfig
from agd_core.report.model_card import README, ModelCard, render_card
from flows.cli.app import app
from tests.agd_core.report.made_up import FEW, full_row, row, score

RULE = ClassifierFreeGuidance().identity()
ATTACK = "a|b\n# c <script>`code`</script> *d* [e](http://f) ```"
NO_NETWORK = """
import socket, sys
def refuse(*arguments):
    raise OSError("this test has no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
exec(compile(sys.stdin.read(), "README.md", "exec"))
"""


def card(**changes):
    values = {
        "name": "agd-modulated-mlp",
        "base_model": BaseModelConfig(),
        "method": ModulatedMlpConfig(),
        "files": AdapterCard(
            "builtin:fashion-dit", "ab" * 32, RULE, (1.0, 5.0), "cd" * 32, 100_152, "epsilon", "DiTTransformer2DModel"
        ),
        "percent": 4.7,
        "training": {"steps": "700", "learning rate": "0.004"},
        "digests": {"trajectories": "12" * 32},
        "command": "agd train fashion-dit --output outputs/demo",
        "evaluate_command": "agd evaluate fashion-dit --output outputs/demo",
        "steps": 20,
        "guidance_scale": 2.0,
        "scheduler": "ddim",
    }
    return ModelCard(**values | changes)


def rows(scales=(2.0, 3.0), **changes):
    names = ("no guidance", "CFG", "agd-modulated-mlp")
    return [full_row(name, scale, **changes) for scale in scales for name in names]


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)\n```$", text, re.DOTALL | re.MULTILINE)


def table_lines(text):
    return [line for line in text.splitlines() if line.startswith("|")]


@pytest.fixture
def saved(teacher, tmp_path):
    config = ModulatedMlpConfig(hidden_width=8, bottleneck_width=4)
    adapter = config.build(teacher.backbone)
    files = AdapterCard.of(teacher, adapter, "builtin:fashion-dit", RULE, (1.0, 5.0), "d" * 64)
    save_adapter(adapter, files, teacher.network, tmp_path)
    return tmp_path


def test_it_says_which_guidance_rule_was_learnt():
    assert "| guidance rule it has learnt | kind cfg, guided\\_channels none |" in render_card(card())


def test_the_usage_lines_run_in_the_adapters_folder_without_network(saved):
    config, files = read_card(saved)
    (saved / README).write_text(render_card(card(method=config, files=files, steps=3)), encoding="utf-8")
    (code,) = blocks((saved / README).read_text(encoding="utf-8"), "python")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", NO_NETWORK],
        input=code,
        cwd=saved,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "3 network evaluations per image\n"
    assert Image.open(saved / "samples.png").size == (2 * (5 * 33 - 1), 2 * (2 * 33 - 1))


def test_the_usage_lines_of_a_model_with_prompts_are_the_stock_pipelines(tmp_path):
    source = BaseModelConfig(source="builtin:tiny-sd")
    base_model = source.build(torch.device("cpu"))
    config = OffsetConfig(hidden_width=8)
    adapter = config.build(base_model.backbone)
    files = AdapterCard.of(base_model, adapter, "builtin:tiny-sd", RULE, (1.0, 5.0), "d" * 64)
    save_adapter(adapter, files, base_model.network, tmp_path)
    text = render_card(card(base_model=source, method=config, files=files, scheduler="ddim", steps=2))
    (code,) = blocks(text, "python")
    assert "agd_core.load_adapter(pipe" in code
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-c", NO_NETWORK]
    ran = subprocess.run(run, input=code, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert Image.open(tmp_path / "sample.png").size == (128, 128)


def test_the_usage_lines_of_a_network_of_its_own_are_students_and_a_folder_for_diffusers(tmp_path):
    source = BaseModelConfig(source="builtin:tiny-sd")
    base_model = source.build(torch.device("cpu"))
    trained = FinetuneConfig().build(base_model.backbone)
    files = AdapterCard.of(base_model, trained, "builtin:tiny-sd", RULE, (1.0, 5.0), "d" * 64)
    save_adapter(trained, files, base_model.network, tmp_path)
    text = render_card(card(base_model=source, method=trained.config, files=files, scheduler="ddim", steps=2))
    assert front_matter(text)["base_model_relation"] == "finetune"
    students, folder = blocks(text, "python")
    assert "load_adapter" not in text
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-c", NO_NETWORK]
    code = f"{students}\n{folder}"
    ran = subprocess.run(run, input=code, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "2 network evaluations per image\n"
    assert (tmp_path / "one-pass" / "model_index.json").is_file()


def test_the_usage_lines_name_what_differs_from_the_defaults():
    files = replace(card().files, base_source="some/model")
    base = BaseModelConfig(source="some/model", revision="v1", dtype="bfloat16")
    (code,) = blocks(render_card(card(base_model=base, files=files, scheduler="euler", guidance_scale=1.5)), "python")
    assert "BaseModelConfig(source='some/model', revision='v1', dtype='bfloat16')" in code
    assert ".at(1.5, 20, 'euler')" in code
    compile(code, "README.md", "exec")


@pytest.mark.parametrize("measured", [[], rows()], ids=["not evaluated", "evaluated"])
def test_the_commands_are_ones_that_agd_knows(measured):
    text = render_card(card(rows=measured))
    commands = [*blocks(text, "console"), *re.findall(r"run `(agd .*?)`", text)]
    assert len(commands) == 2
    for command in commands:
        _, name, *arguments = shlex.split(command)
        get_command(app).commands[name].make_context(name, arguments)


def test_the_front_matter_claims_no_licence():
    meta = front_matter(render_card(card()))
    assert meta["library_name"] == "diffusers"
    assert meta["base_model"] == "builtin:fashion-dit"
    assert meta["license"] == "other"
    assert {"agd", "agd-modulated-mlp", "arxiv:2503.07274"} <= set(meta["tags"])
    assert "the base model's licence applies to what is derived from it" in render_card(card()).partition("---")[2]


def test_it_says_what_the_adapter_is():
    text = render_card(card(method=OffsetConfig()))
    for part in (
        "| agd-offset |",
        "ab" * 32,
        "| 1 to 5 |",
        "| 100,152, 4.7 % of",
        "- steps: `700`",
        "12" * 32,
        "cd" * 32,
    ):
        assert part in text


def test_the_table_holds_every_method_at_every_scale():
    lines = table_lines(render_card(card(rows=rows(), protocol={"images": "1,000"})))[8:]
    assert [line.split(" | ")[0].strip("|* ") for line in lines] == [
        *("method", "---"),
        *("guidance scale 2", "CFG", "agd-modulated-mlp", "no guidance"),
        *("guidance scale 3", "CFG", "agd-modulated-mlp", "no guidance"),
    ]
    assert len({line.count("|") for line in lines}) == 1
    assert "| 0.75 (0.67 to 0.83) |" in lines[3]
    assert "- images: `1,000`" in render_card(card(rows=rows(), protocol={"images": "1,000"}))


def test_every_digest_is_listed_once():
    text = render_card(card())
    assert text.count("cd" * 32) == text.count("12" * 32) == text.count("ab" * 32) == 1


def test_what_was_not_measured_is_said():
    text = render_card(card())
    assert "Not evaluated yet: run `agd evaluate fashion-dit --output outputs/demo`." in text
    assert "Protocol" not in text


def test_warnings_stand_beside_the_number_and_below():
    text = render_card(card(rows=rows((2.0,), warnings=[FEW]), warnings=["random weights"]))
    assert "| 0.75 (0.67 to 0.83) (!) |" in text
    assert text.count(FEW) == 1
    assert f"- **FD**: {FEW}" in text
    assert "- random weights" in text


def test_no_text_becomes_markup():
    texts = {"name": ATTACK, "training": {ATTACK: ATTACK}, "digests": {ATTACK: ATTACK}, "protocol": {ATTACK: ATTACK}}
    hostile = row(ATTACK, scores={"fd": score(1.0, warnings=[ATTACK])})
    files = replace(card().files, base_source=ATTACK)
    text = render_card(card(**texts, files=files, command=ATTACK, rows=[hostile]))
    assert front_matter(text)["base_model"] == printable(ATTACK)
    ((_, code),) = re.findall(r"^(`{4,})python\n(.*?)\n\1$", text, re.DOTALL | re.MULTILINE)
    compile(code, "README.md", "exec")
    outside = re.sub(r"^(`{3,})\w*\n.*?\n\1$", "", text.split("---\n", 2)[2], flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"(`+) ?.*?\1", "", re.sub(r"\\[\\`*_{}\[\]<>|#~$]", "", outside))
    for markup in ("<script", "](http://f)", "*d*", "\n# c"):
        assert markup not in prose


@pytest.mark.parametrize(
    "address", ["http://evil.example", "HTTPS://evil.example", "www.evil.example", "a@evil.example"]
)
def test_no_text_becomes_a_link_by_itself(address):
    texts = {"name": address, "training": {address: "x"}, "protocol": {address: "x"}}
    hostile = row(address, scores={"fd": score(1.0, warnings=[address])})
    text = render_card(card(**texts, files=replace(card().files, base_source=address), rows=[hostile]))
    prose = re.sub(r"^(`{3,})\w*\n.*?\n\1$", "", text.split("---\n", 2)[2], flags=re.DOTALL | re.MULTILINE)
    assert address not in prose


def test_control_characters_are_shown_and_the_front_matter_stays_yaml():
    odd = "a\x1b[2J\x00\x7f\x85b"
    files = replace(card().files, base_source=odd)
    text = render_card(card(name=odd, training={odd: odd}, digests={odd: odd}, command=odd, files=files))
    assert [letter for letter in text if not letter.isprintable() and letter != "\n"] == []
    assert front_matter(text)["base_model"] == printable(odd)
