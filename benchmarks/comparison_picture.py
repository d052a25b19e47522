"""README's picture: the same noise and subjects without guidance, with CFG and with each adapter.

python benchmarks/comparison_picture.py PRESET OUTPUT PICTURE.png [--images 8] [--enlarge 2] [--set KEY=VALUE ...]

OUTPUT is where `agd distill PRESET` has worked (`make demo`: outputs/demo); what is cached there is not done again.
"""

import argparse
from pathlib import Path

from agd_core.basics.atomic import write_bytes
from agd_core.report.images import comparison_png
from flows.presets import load_config
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.comparison import Compared, compare, headline_points
from flows.stages.distill import train_all
from flows.stages.sample import read_images, read_labels
from flows.workplace import Workplace


def described(item: Compared) -> str:
    """A method with what it costs."""
    scale = "" if item.row.method == "none" else f" at scale {item.row.guidance_scale:g}"
    return f"{item.row.name}{scale}, {item.row.nfe:g} network evaluations"


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("output", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--enlarge", type=int, default=2)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    asked = parser.parse_args()
    run = Run(load_config(asked.preset, asked.overrides), Workplace(asked.output))
    trajectories = collect(run.check())
    compared = compare(run, train_all(run, trajectories), headline_points(run.config)[:1])
    labels = read_labels(compared[0].samples)[: asked.images].tolist()
    methods = [(described(item), read_images(item.samples, slice(asked.images))) for item in compared]
    write_bytes(comparison_png(methods, run.sampled.texts(labels), asked.enlarge), asked.picture)
    print(f"{asked.picture}: {', '.join(name for name, _ in methods)}")


if __name__ == "__main__":
    main()
