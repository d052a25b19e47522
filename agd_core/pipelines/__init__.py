"""Adapters in diffusers' own pipelines: one line loads one, then the pipeline guides in one pass per step.

`loading` and `drift` hold what users call; `doors` and what it reads are named by the classes of networks themselves.
"""
