"""The list of jobs, the most valuable first."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """One job; its module has `run(place)`."""

    name: str
    share: float
    """Of the time that is left, against the shares of the jobs after it: what one leaves over, the next ones get."""
    least_seconds: float
    """With less it is not begun."""
    package: str = "benchmarks.gpu"

    @property
    def module(self) -> str:
        """Where its `run` is."""
        return f"{self.package}.{self.name}"


JOBS = (
    Job("hardware", share=2, least_seconds=20),
    Job("denoiser_speed", share=8, least_seconds=20),
    Job("training_memory", share=5, least_seconds=20),
    Job("training_speed", share=4, least_seconds=20),
    Job("builtin_chain", share=3, least_seconds=20),
    Job("gpu_tests", share=3, least_seconds=20),
    Job("store_waits", share=2, least_seconds=10),
)


def limits(jobs: tuple[Job, ...], seconds: float) -> tuple[float, ...]:
    """What each of these jobs gets of so many seconds."""
    whole = sum(job.share for job in jobs)
    return tuple(seconds * job.share / whole for job in jobs)
