"""The whole chain with every kind of method, on a miniature of every family."""

import json

import pytest
import torch
from typer.testing import CliRunner

import agd_core
from agd_core.basics.seeding import generator
from agd_core.builtin.miniatures import miniature_folder
from agd_core.data.subjects import Subjects
from agd_core.models.reading import network_class
from flows.cli.app import app
from flows.presets import load_config
from flows.run import Run
from flows.stages.distill import distill
from flows.workplace import Workplace
from tests.agd_core.methods.examples import EXAMPLES, takes

SMALL = (
    "collect.trajectories=4",
    "collect.steps=3",
    "collect.kept_steps=null",
    "collect.shard_trajectories=4",
    "train.steps=3",
    "train.batch_size=4",
    "sample.images=4",
    "sample.steps=2",
    "sample.batch_size=4",
    "evaluate.curve_images=2",
    "evaluate.measure_cost=false",
)


def kinds_for(miniature):
    """The methods that can work with this one."""
    network = network_class(miniature_folder(miniature), miniature).class_name
    return [kind for kind in EXAMPLES if takes(kind, network)]


@pytest.fixture(scope="module", params=["tiny-dit", "tiny-pixart", "tiny-sd", "tiny-sdxl", "tiny-sd3"])
def made(request, tmp_path_factory):
    kinds = kinds_for(request.param)
    methods = f"methods={json.dumps([json.loads(EXAMPLES[kind].model_dump_json()) for kind in kinds])}"
    run = Run(load_config(request.param, [*SMALL, methods]), Workplace(tmp_path_factory.mktemp(request.param)))
    return run, kinds, distill(run, "agd distill").metrics


def test_every_method_is_in_the_report_beside_cfg_and_no_guidance(made):
    run, kinds, metrics = made
    rows, steps = {row["name"]: row for row in metrics["rows"]}, run.config.sample.steps
    assert {name: row["nfe"] for name, row in rows.items()} == {
        "no guidance": steps,
        "CFG": 2 * steps,
        **dict.fromkeys(kinds, steps),
    }
    for name in kinds:
        assert 0 < rows[name]["paired_mse"] < float("inf")
        assert rows[name]["adapter_parameters"] > 0


@torch.no_grad()
def test_what_each_leaves_is_a_student_that_has_learnt_something(made):
    run, kinds, _ = made
    model, folder = run.model, run.place.output / "adapters"
    subjects = Subjects(model, () if model.class_names else ("a red bus", "snow"))
    call = torch.randn(2, *model.latent_shape, generator=generator("every method")), torch.tensor([700.0, 100.0])
    bare = model.predict(*call, subjects.ask([0, 1], 3.0))
    for name in kinds:
        with agd_core.load_student(model, folder / name) as student:
            assert not torch.equal(student.predict(*call, subjects.ask([0, 1], 3.0)), bare), name
        assert torch.equal(model.predict(*call, subjects.ask([0, 1], 3.0)), bare), name


def test_a_method_that_cannot_is_one_line_before_anything_is_collected(tmp_path):
    setting = 'methods=[{"kind": "lora"}, {"kind": "dice"}]'
    result = CliRunner().invoke(app, ["distill", "tiny-dit", "--set", setting, "--output", str(tmp_path / "out")])
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert "methods: dice sharpens prompts, and a DiTTransformer2DModel takes none" in line
    assert not list(tmp_path.rglob("trajectories-*"))
