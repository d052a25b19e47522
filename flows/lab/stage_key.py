"""Prefect's cache key of a stage: the content digest that names its artefact, never task source, paths or devices."""

from dataclasses import dataclass
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext

from agd_core.basics.digest import digest


@dataclass
class StageKey(CachePolicy):
    """The key of a task whose only parameter is `spec`: the stage's name and its identity, as plain data."""

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str:
        """The stage's name and the sha256 of (stage, identity).

        Raises:
            TypeError: the spec is not plain data; Prefect then runs the task and keeps no record.
        """
        spec = inputs["spec"]
        return f"{spec['stage']}-{digest(spec)}"
