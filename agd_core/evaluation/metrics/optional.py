"""Packages that only some metrics need."""

from collections.abc import Iterator
from contextlib import contextmanager

from agd_core.basics.errors import InputError


@contextmanager
def optional_package(metric: str) -> Iterator[None]:
    """Around the imports of a metric, whose package may not be installed.

    Raises:
        InputError: it is not.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(
            f"evaluate.metrics: {metric} needs the package {error.name}; pip install 'agd-pipeline[metrics]'"
        ) from error
