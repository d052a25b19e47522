"""Prompts of text-conditional models, whatever they are kept in.

A new format is one file here and one line in each table of `storage.prompts.opening`.
"""

from storage.prompts.opening import read_prompts

__all__ = ["read_prompts"]
