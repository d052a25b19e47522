"""Plug-and-Play Diffusion Distillation (arXiv 2406.01954): an external network beside the frozen base."""
