"""Where a stage works inside a flow run: every artefact is a cached task, the device a slot that the UI shows."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prefect import task
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Failed

from agd_core.basics.errors import InputError
from agd_core.basics.progress import Stopped
from flows.config import PipelineConfig
from flows.lab.fan_out import Elsewhere, collect_there, each, sample_elsewhere
from flows.lab.gpu_slot import GpuSlot
from flows.lab.parameters import FanOut
from flows.lab.stage_key import StageKey
from flows.workplace import Workplace
from storage.artefacts import ARTEFACTS, Artefact, ArtefactStore


@dataclass(frozen=True)
class LabWorkplace(Workplace):
    """A workplace whose stages are Prefect tasks. What is true about caching and resuming stays in the stages."""

    slot: GpuSlot = field(default_factory=GpuSlot)
    fan_out: FanOut = field(default_factory=FanOut)
    config: PipelineConfig = field(default_factory=PipelineConfig)
    """The run's configuration, for other processes."""
    show: Callable[[Artefact, str], None] = lambda artefact, title: None
    """Told of every artefact that was made, and of its title, to show it on the run's page."""

    def produce(
        self,
        stage: str,
        identity: dict[str, Any],
        work: Callable[[Artefact], None],
        measured: Collection[str] = (),
        check: Callable[[Artefact], list[str]] = lambda artefact: [],
        title: str = "",
    ) -> Artefact:
        """The artefact, through a task that Prefect caches by content; a hit is believed once the artefact is whole."""
        artefact = ArtefactStore(self.output / ARTEFACTS).artefact(stage, identity)

        @task(
            name=stage,
            task_run_name=title or artefact.path.name,
            cache_policy=StageKey(),
            result_serializer="json",
            persist_result=True,
        )
        def run(spec: dict[str, Any]) -> dict[str, str] | State:
            try:
                made = super(LabWorkplace, self).produce(stage, identity, work, measured, check, title)
            except (Stopped, InputError) as error:  # expected, so its page shows a line and no traceback
                raised.append(error)
                return (Cancelled if isinstance(error, Stopped) else Failed)(message=str(error))
            return {"artefact": made.path.name, "digest": made.digest}

        raised: list[Exception] = []
        spec = {"stage": stage, "identity": identity}
        state: State = run(spec, return_state=True)
        cached = state.name == "Cached"
        if cached and not self._holds(artefact, state.result(raise_on_failure=False), check):
            state, cached = run.with_options(refresh_cache=True)(spec, return_state=True), False
        if raised:
            raise raised[0]
        state.result()
        if not cached:
            self.show(artefact, title)
        return artefact

    @contextmanager
    def on_device(self, what: str) -> Iterator[None]:
        """Hold the device, and show it in the UI."""
        with super().on_device(what), self.slot.shown():
            yield

    def each_unit(self, units: Sequence[int], run: Callable[[int], None], store_url: str) -> Iterator[int]:
        """Units as mapped tasks, on the task runner of the run's settings."""
        there = partial(collect_there, store_url=store_url, elsewhere=self.elsewhere())
        return each(self.fan_out, "unit", there if self.fan_out.elsewhere else run, units, self.should_stop)

    def sample_ahead(self, adapters: Sequence[Any], points: Sequence[Any]) -> None:
        """Where other processes do the sampling, let them make every sample set before the stages ask for it."""
        if self.fan_out.elsewhere:
            sample_elsewhere(self.fan_out, adapters, points, self.elsewhere(), self.should_stop)

    def elsewhere(self) -> Elsewhere:
        """This workplace for other processes."""
        return Elsewhere(self.config, str(self.device), str(self.output.resolve()))

    def _holds(self, artefact: Artefact, found: Any, check: Callable[[Artefact], list[str]]) -> bool:
        """Whether what a cache record names is in this output folder, finished and whole."""
        with self._alone_with(artefact):
            return self._reuses(artefact, check) and found == {
                "artefact": artefact.path.name,
                "digest": artefact.digest,
            }
