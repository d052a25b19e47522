"""torch.compile makes one graph of a student's network, in a process without the run-time checks of this session."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agd_core.builtin.miniatures import miniature_folder
from agd_core.models.reading import network_class
from tests.agd_core.methods.examples import KINDS, takes
from tests.soak import short

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import sys
import torch
from torch._dynamo.testing import CompileCounter
from agd_core.builtin.miniatures import MINIATURES
from agd_core.models.config import BaseModelConfig
from agd_core.models.denoising import denoise
from agd_core.models.schedulers import build_scheduler
from tests.agd_core.methods.examples import EXAMPLES, call_of, randomised

torch.set_num_threads(1)
source, kind = sys.argv[1:]
model = BaseModelConfig(source=f"builtin:{source}").build(torch.device("cpu"))
ask = call_of(model)[2]
others = type(ask)(ask.condition[torch.tensor([1, 2, 0])], ask.null, torch.tensor([3.0, 4.0, 5.0]))


def samples(student):
    found = []
    for asked in (ask, others):
        sampler = "flow-euler" if model.prediction_type == "flow" else "ddim"
        scheduler = build_scheduler(sampler, model.scheduler_config, 3)
        found.append(denoise(student, scheduler, asked, [0, 1, 2], model.latent_shape))
    return torch.stack(found)


trained = randomised(EXAMPLES[kind].build(model.backbone))
with trained.installed(model) as student:
    plain, graphs, backbone = samples(student), CompileCounter(), trained.runs_in(model).backbone
    backbone.network = torch.compile(backbone.network, backend=graphs, fullgraph=True)
    assert torch.allclose(samples(student), plain, atol=1e-5)
print("graphs:", graphs.frame_count)
"""
SOURCES = ("tiny-dit", "tiny-sd", "tiny-sdxl", "tiny-sd3", "tiny-pixart")
CASES = [
    (source, kind)
    for source in SOURCES
    for kind in KINDS
    if takes(kind, network_class(miniature_folder(source), source).class_name)
]

KEPT = (0, 6, CASES.index(("tiny-dit", "finetune")))


@pytest.mark.parametrize(("source", "kind"), short(CASES, keep=KEPT, several=True))
def test_all_steps_scales_and_prompts_run_in_one_graph(source, kind):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, source, kind]
    ran = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.endswith("graphs: 1\n")
