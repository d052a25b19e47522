"""Adapter Guidance Distillation (arXiv 2503.07274): a small adapter in the attention blocks of the frozen base."""
