"""Adapter Guidance Distillation (arXiv 2503.07274): guided diffusion in one network evaluation per step."""

from agd_core.adapter_files import load_student
from agd_core.errors import InputError
from agd_core.pipelines import load_adapter, measure_drift, set_active, set_enabled, unload

__all__ = ["InputError", "load_adapter", "load_student", "measure_drift", "set_active", "set_enabled", "unload"]
