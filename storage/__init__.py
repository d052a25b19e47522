"""Where results live: trajectory stores and finished artefacts. Knows the core's records and digests, nothing else."""
