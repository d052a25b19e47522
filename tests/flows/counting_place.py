"""A workplace that tells what was made there and what was only found."""

from collections import Counter
from dataclasses import dataclass, field

from flows.workplace import Workplace


@dataclass(frozen=True)
class CountingPlace(Workplace):
    """Counts the artefacts that were made, by stage."""

    made: Counter = field(default_factory=Counter)

    def produce(self, stage, identity, work, *rest, **others):
        def counted(artefact):
            work(artefact)
            self.made[stage] += 1

        return super().produce(stage, identity, counted, *rest, **others)
