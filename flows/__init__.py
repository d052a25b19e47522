"""Stages that join core and storage, the command line, and the Prefect flows around them."""

import os

# OpenMP's threads spin while they wait for each other; beside any other work they then burn what they wait for. With
# few spins, steps on two threads take as long on an idle machine and a small part of the time on a busy one
# (docs/speed.md). It is read when PyTorch is loaded, which is after this.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
