"""What a GPU must show, as one list of jobs: `python -m benchmarks.gpu`. See docs/gpu.md."""
