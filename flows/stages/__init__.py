"""The stages as plain functions: compute the key, look for the finished artefact, do what is missing, publish.

No Prefect here: the command line calls these functions in process, and the flows wrap the same functions.
"""
