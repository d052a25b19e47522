"""Does guidance help the built-in teacher? Frechet distance and class accuracy over the guidance scale.

python benchmarks/teacher_guidance.py [--images 5000] [--steps 50] [--output outputs/teacher]
"""

import argparse
from pathlib import Path

from agd_core.evaluation.sampling import SampleConfig
from flows.config import PipelineConfig
from flows.run import Run
from flows.stages.evaluate import LookedAt, evaluate, read_evaluation
from flows.stages.sample import Cell, sample
from flows.terminal import Terminal
from flows.workplace import Workplace, pick_device


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.5, 2.0, 3.0, 4.0])
    parser.add_argument("--output", type=Path, default=Path("outputs/teacher"))
    arguments = parser.parse_args()
    sampled = SampleConfig(images=arguments.images, steps=arguments.steps)
    with Terminal() as terminal:
        place = Workplace(arguments.output, pick_device("auto"), terminal.announce, terminal.progress)
        run = Run(PipelineConfig(sample=sampled), place)
        for scale in arguments.scales:
            cell = Cell(scale, sampled.steps, sampled.scheduler, run.config.guidance if scale != 1 else None)
            name = f"scale {scale:g}"
            looked = LookedAt.by(run.instruments, sample(run, cell, name), run.sampled, place, name)
            scores = read_evaluation(evaluate(run, cell, looked, looked, name))["scores"]
            fd, accuracy = scores["fd"], scores["accuracy"].value
            interval = f"{fd.low:.3f} to {fd.high:.3f}"
            print(f"scale {scale:4g}   FD {fd.value:.3f} ({interval})   accuracy {accuracy:.1%}", flush=True)


if __name__ == "__main__":
    main()
