"""The stages as plain functions: each computes its key, looks for the finished artefact, does what is missing, publishes.

No Prefect here: the command line calls these functions in process, and the flows wrap the same functions.
"""
