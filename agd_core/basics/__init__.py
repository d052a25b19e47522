"""What everything stands on: configuration, digests, errors, safe reading and writing of files, seeds, progress."""
