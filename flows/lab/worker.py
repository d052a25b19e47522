"""The worker's process: Prefect's worker, with the flows loaded before anybody cancels one.

Before Prefect calls a run Cancelled its worker loads the flow, to look for hooks. PyTorch and diffusers are behind that
import: the first cancel would wait 6 to 10 seconds for them.
"""

import runpy

import flows.lab.flows
import flows.lab.nightly_flows  # noqa: F401 loaded for the worker

if __name__ == "__main__":
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)
