"""Adapters in diffusers' own pipelines: one line loads one, then the pipeline guides in one pass per step."""

from agd_core.pipelines.drift import Drift, measure_drift
from agd_core.pipelines.loading import load_adapter, set_active, set_enabled, unload

__all__ = ["Drift", "load_adapter", "measure_drift", "set_active", "set_enabled", "unload"]
