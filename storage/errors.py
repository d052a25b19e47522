"""What can be wrong with what lies at a place, beside what it is: each one clear line for a person."""

from agd_core.basics.errors import InputError


class Damaged(InputError):
    """Bytes that are not those that were written."""


class OtherContent(InputError):
    """A place that holds something else than what was asked for, or in the format of another version."""
