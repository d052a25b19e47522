"""The zone whose clock starts the nightly schedule: AGD_TIMEZONE, else the one this machine is set to, else UTC."""

import os
from pathlib import Path
from zoneinfo import available_timezones

from agd_core.basics.errors import InputError

VARIABLE = "AGD_TIMEZONE"
"""prefect.yaml takes the zone from it."""
_LOCALTIME = Path("/etc/localtime")
_ZONES = "zoneinfo/"


def schedule_timezone() -> str:
    """The zone's name, e.g. "Europe/Paris".

    Raises:
        InputError: AGD_TIMEZONE names none.
    """
    if named := os.environ.get(VARIABLE):
        if named not in available_timezones():
            raise InputError(f"{VARIABLE} is {named!r}; allowed are names such as UTC, Europe/Paris, America/New_York")
        return named
    of_the_machine = os.environ.get("TZ", "").lstrip(":") or str(_LOCALTIME.resolve()).rpartition(_ZONES)[2]
    return of_the_machine if of_the_machine in available_timezones() else "UTC"
