"""The throw-away deployment runs the throw-away preset on the throw-away task runner; its command finds all done."""

import importlib
import sys

import yaml
from prefect.testing.utilities import prefect_test_harness

from flows.cli import main
from flows.jobs import JOBS
from flows.lab.parameters import form_of

with open("prefect.yaml") as file:
    (entrypoint,) = [d["entrypoint"] for d in yaml.safe_load(file)["deployments"] if d["name"] == "run-throwaway"]
module, _, name = entrypoint.rpartition(".")
(job,) = [job for job in JOBS if job.name == "throwaway"]
with prefect_test_harness(server_startup_timeout=180):
    flow = getattr(importlib.import_module(module), name)
    flow(form_of(job)(preset="throwaway", output="out", fan_out={"runner": "throwaway", "workers": 1}))
sys.argv = ["agd", "throwaway", "throwaway", "--output", "out"]
main()
