"""Adapter Guidance Distillation (arXiv 2503.07274): guided diffusion in one network evaluation per step."""

from typing import TYPE_CHECKING, Any

from agd_core.basics.errors import InputError

if TYPE_CHECKING:
    from agd_core.methods.adapter_files import load_student
    from agd_core.models.sources import builtin_folder
    from agd_core.pipelines.drift import measure_drift
    from agd_core.pipelines.loading import load_adapter, set_active, set_enabled, unload
    from agd_core.pipelines.one_pass_folder import write_pipeline

__all__ = [
    "InputError",
    "builtin_folder",
    "load_adapter",
    "load_student",
    "measure_drift",
    "set_active",
    "set_enabled",
    "unload",
    "write_pipeline",
]


def __getattr__(name: str) -> Any:
    """The functions above, with PyTorch and diffusers, once they are asked for: the command line starts without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from agd_core.methods import adapter_files
    from agd_core.models import sources
    from agd_core.pipelines import drift, loading, one_pass_folder

    rooms = (adapter_files, sources, drift, loading, one_pass_folder)
    return next(getattr(room, name) for room in rooms if hasattr(room, name))
