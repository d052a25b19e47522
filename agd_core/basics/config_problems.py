"""What is wrong with settings, as one line: the setting's dotted name as a person types it, and what is allowed."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from agd_core.basics.safe_files import printable

_SHOWN_CHARACTERS = 80
_IN_OUR_WORDS = {
    "tuple_type": "must be a list",
    "model_type": "must be a section of settings",
    "model_attributes_type": "must be a section of settings",
    "missing": "is missing",
}
_OF_UNIONS = ("union_tag_invalid", "union_tag_not_found")


def first_problem(error: ValidationError, form: Any) -> str:
    """The first thing that is wrong.

    Args:
        error: what pydantic found.
        form: the configuration, or union of configurations, that it was checked against.
    """
    problem = error.errors(include_url=False)[0]
    path, allowed = _place(problem["loc"], form)
    if problem["type"] in _OF_UNIONS:
        found = f"got {_shown(problem['ctx']['tag'])}" if "tag" in problem["ctx"] else "none is given"
        return f"{'.'.join([*path, 'kind'])}: allowed are {', '.join(allowed)}; {found}"
    where = ".".join(path) or "configuration"
    if problem["type"] == "extra_forbidden":
        return f"{where}: no such setting; allowed here: {', '.join(allowed)}"
    message = _IN_OUR_WORDS.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    value = problem["input"]
    plain = problem["type"] != "missing" and isinstance(value, str | int | float | bool | None)
    return f"{where}: {message}, got {_shown(value)}" if plain else f"{where}: {message}"


def _place(location: Sequence[int | str], form: Any) -> tuple[list[str], list[str]]:
    """The path without the kinds that pydantic adds, and what exists there: settings, or the kinds of a union."""
    path: list[str] = []
    here, around = _by_kind(form), _by_kind(form)
    for part in location:
        if len(here) > 1 and part in here:
            here = around = {str(part): here[str(part)]}
            continue
        path.append(printable(part))
        around = here
        if not isinstance(part, int):
            field = next(iter(here.values())).model_fields.get(part) if len(here) == 1 else None
            here = _by_kind(field.annotation) if field else {}
    inside = next(iter(around.values())).model_fields if len(around) == 1 else {}
    return path, list(here if len(here) > 1 else inside)


def _by_kind(form: Any) -> Mapping[str, type[BaseModel]]:
    """The configurations in a type: the one, or those of a union by their kinds."""
    models = _models(form)
    return {str(m.model_fields["kind"].default) if len(models) > 1 else "": m for m in models}


def _models(form: Any) -> list[type[BaseModel]]:
    if isinstance(form, type) and issubclass(form, BaseModel):
        return [form]
    return [model for part in get_args(form) for model in _models(part)]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
