"""The published models at full size: their configurations, as facts, without weights."""

from agd_core.memory.full_size.model import FullSizeModel, full_size_model, full_size_names, known_as

__all__ = ["FullSizeModel", "full_size_model", "full_size_names", "known_as"]
