"""Random-weight miniatures of the real diffusers pipelines, written in code: the whole chain without a network."""

from agd_core.builtin.miniatures.cache import MINIATURES, miniature_folder, write_miniature

__all__ = ["MINIATURES", "miniature_folder", "write_miniature"]
