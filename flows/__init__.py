"""Stages that join core and storage, the command line, and the Prefect flows around them."""
