"""Stages that join core and storage, the command line, and the Prefect flows around them."""

import os

# OpenMP's threads spin while they wait for each other; beside other work they burn what they wait for. With few spins
# a step on two threads is about as fast on an idle machine and often much faster on a busy one (docs/speed.md). It is
# read when PyTorch is loaded: who imports that first has PyTorch's own setting.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
