"""What the quick commands import: a library of the heavy ones costs seconds before anything is done."""

import json
import subprocess
import sys

from storage.artefacts import ARTEFACTS, ArtefactStore

HEAVY = ("torch", "diffusers", "transformers", "prefect", "zarr", "pyarrow", "numpy", "matplotlib", "yaml")
WATCHER = """
import json, sys
from typer.testing import CliRunner
from flows.cli.app import app

for words in json.loads(sys.argv[1]):
    answer = CliRunner().invoke(app, words)
    imported = sorted({name.partition(".")[0] for name in sys.modules})
    print(json.dumps([words[0], answer.exit_code, imported]))
"""


def test_quick_commands_import_no_heavy_library(tmp_path):
    artefact = ArtefactStore(tmp_path / ARTEFACTS).artefact("costs", {"a": 1})
    artefact.path.mkdir(parents=True)
    (artefact.path / "costs.json").write_text("{}")
    artefact.finish({"a": 1})
    commands = [["--help"], ["distill", "--help"], ["compare", "--help"], ["presets"], ["verify", str(tmp_path)]]
    watched = subprocess.run(
        [sys.executable, "-c", WATCHER, json.dumps(commands)], capture_output=True, text=True, timeout=120, check=True
    )
    answers = [json.loads(line) for line in watched.stdout.splitlines()]
    assert [(name, code) for name, code, _ in answers] == [(words[0], 0) for words in commands]
    assert {name: sorted({*HEAVY}.intersection(imported)) for name, _, imported in answers} == {
        words[0]: [] for words in commands
    }
