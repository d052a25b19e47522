"""Adapter Guidance Distillation (arXiv 2503.07274): guided diffusion in one network evaluation per step."""

from agd_core.adapter_files import load_adapter
from agd_core.errors import InputError

__all__ = ["InputError", "load_adapter"]
