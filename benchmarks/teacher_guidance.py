"""Does guidance help the built-in teacher? Frechet distance and class accuracy over the guidance scale.

python benchmarks/teacher_guidance.py [--images 5000] [--steps 50] [--output outputs/teacher]
"""

import argparse
from pathlib import Path

from agd_core.base_models import DiTConfig
from agd_core.evaluator import EvaluateConfig
from agd_core.guidance import ClassifierFreeGuidanceConfig
from agd_core.sampling import SampleConfig
from flows.stages.evaluate import evaluate, read_evaluation
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
    config = SampleConfig(images=arguments.images, steps=arguments.steps)
    with Terminal() as terminal:
        place = Workplace(arguments.output, pick_device("auto"), terminal.announce, terminal.progress)
        base_model = DiTConfig().build(place.device)
        for scale in arguments.scales:
            guidance = ClassifierFreeGuidanceConfig() if scale != 1 else None
            samples = sample(
                config, Cell(scale, config.steps, config.scheduler, guidance), f"scale {scale:g}", base_model, place
            )
            values = read_evaluation(evaluate(EvaluateConfig(), samples, samples, place))
            interval = f"{values['fd_low']:.3f} to {values['fd_high']:.3f}"
            print(
                f"scale {scale:4g}   FD {values['fd']:.3f} ({interval})   accuracy {values['accuracy']:.1%}", flush=True
            )


if __name__ == "__main__":
    main()
