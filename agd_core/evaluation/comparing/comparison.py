"""Results of two or more sources side by side: every metric of the rows that belong together, and a verdict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agd_core.basics.errors import InputError
from agd_core.evaluation.comparing.judging import Judged, Verdict, judge, overall
from agd_core.evaluation.comparing.row_pairs import Source, pair_rows
from agd_core.evaluation.protocol import FIELDS, differences
from agd_core.evaluation.rows import Row

EDITED = "edited"
"""Allowed beside the fields of the protocol: numbers that are not as a run wrote them."""
_NOISE_FIELDS = ("seed", "base_digest")
_SHOWN = {"name", "method", "guidance_scale", "teacher_scale", "scheduler", "steps", "nfe", "adapter_parameters"}
"""Of a row, in a comparison's plain data."""


@dataclass(frozen=True)
class Choice:
    """What a person asked for."""

    allowed: Sequence[str] = ()
    """Fields of the protocol that may differ."""
    metrics: Sequence[str] = ()
    """Names; none for all."""
    methods: Sequence[str] = ()
    """Names of rows, or kinds of methods; none for every adapter."""

    def check(self, sources: Sequence[Source]) -> None:
        """Refuse what is misspelt.

        Raises:
            InputError: a field or metric that does not exist.
        """
        for name in self.allowed:
            if name.partition(".")[0] not in (*FIELDS, EDITED):
                allowed = ", ".join((*FIELDS, EDITED))
                raise InputError(f"--allow {name}: a protocol has no such field; allowed: {allowed}")
        measured = dict.fromkeys(name for source in sources for row in source.rows for name in row.scores)
        for name in self.metrics:
            if name not in measured:
                raise InputError(f"--metric {name} was not measured; measured: {', '.join(measured)}")


@dataclass(frozen=True)
class Comparison:
    """Every metric of two rows."""

    labels: tuple[str, str]
    """Of the baseline's source and the other one's."""
    rows: tuple[Row, Row]
    metrics: Sequence[Judged]

    @property
    def verdict(self) -> Verdict:
        """On the other one over all metrics, see `agd_core.evaluation.comparing.judging.overall`."""
        return overall([judged.verdict for judged in self.metrics])

    @property
    def same_noise(self) -> bool:
        """Whether both were sampled from the same noise, so that their errors are not independent."""
        mine, theirs = (row.protocol for row in self.rows)
        return all(name in mine and mine.get(name) == theirs.get(name) for name in _NOISE_FIELDS)

    def other_rules(self) -> list[str]:
        """Where the guidance rules differ that the two stand for or are measured against, in words."""
        here, there = ({"guidance": row.protocol.get("guidance")} for row in self.rows)
        found = differences(here, there, allowed=set(FIELDS) - {"guidance"})
        return [f"another guidance rule, {item.text(*self._places())}" for item in found]

    def reasons(self) -> list[str]:
        """Why metrics are not comparable, each reason once."""
        return list(dict.fromkeys(reason for judged in self.metrics for reason in self._reasons(judged)))

    def refused_fields(self) -> list[str]:
        """Fields of the protocol that would have to be allowed to differ."""
        return list(dict.fromkeys(item.top_field for judged in self.metrics for item in judged.refused))

    def allowed(self) -> list[str]:
        """Differences that were overruled, each once."""
        found = (item for judged in self.metrics for item in judged.allowed)
        return list(dict.fromkeys(item.text(*self._places()) for item in found))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        rows = [
            {"source": label, **row.model_dump(mode="json", include=_SHOWN)}
            for label, row in zip(self.labels, self.rows, strict=True)
        ]
        return {
            "baseline": rows[0],
            "other": rows[1],
            "verdict": self.verdict,
            "metrics": {judged.metric: judged.as_dict() for judged in self.metrics},
            "same_noise": self.same_noise,
            "rules": self.other_rules(),
            "reasons": self.reasons(),
            "allowed": self.allowed(),
        }

    def _reasons(self, judged: Judged) -> Iterator[str]:
        scores = judged.baseline, judged.other
        for label, row, score in zip(self.labels, self.rows, scores, strict=True):
            if score is None:
                yield f"{judged.metric} was not measured for {row.name} in {label}"
        directions = {score.better for score in scores if score}
        if len(directions) > 1:
            yield f"{judged.metric} has another good direction in {self.labels[0]} than in {self.labels[1]}"
        yield from (difference.text(*self._places()) for difference in judged.refused)

    def _places(self) -> tuple[str, str]:
        return f"in {self.labels[0]}", f"in {self.labels[1]}"


def compare(sources: Sequence[Source], choice: Choice) -> tuple[list[Comparison], list[str]]:
    """Compare every source with the first one, row by row, see `pair_rows`.

    Returns:
        The comparisons, and in words what one source has and another one lacks.

    Raises:
        InputError: an unknown field, metric or method, or no rows that belong together.
    """
    choice.check(sources)
    comparisons: list[Comparison] = []
    lacking: list[str] = []
    baseline = sources[0]
    for source in sources[1:]:
        pairs = pair_rows(baseline, source, choice.methods, choice.allowed)
        labels = baseline.label, source.label
        comparisons += [Comparison(labels, rows, _judge_rows(rows, choice)) for rows in pairs.rows]
        lacking += pairs.lacking
    return comparisons, lacking


def require_comparable(comparisons: Sequence[Comparison]) -> None:
    """Refuse a comparison of nothing.

    Raises:
        InputError: no metric of any rows is comparable; names every difference and how to overrule it.
    """
    if any(judged.verdict != "not comparable" for comparison in comparisons for judged in comparison.metrics):
        return
    reasons = dict.fromkeys(reason for comparison in comparisons for reason in comparison.reasons())
    fields = dict.fromkeys(name for comparison in comparisons for name in comparison.refused_fields())
    overrule = " ".join(f"--allow {name}" for name in fields)
    hint = f" ({overrule} to compare nevertheless)" if fields else ""
    raise InputError(f"not comparable: {'; '.join(reasons) or 'no metric was measured'}{hint}")


def _judge_rows(rows: tuple[Row, Row], choice: Choice) -> list[Judged]:
    mine, theirs = (row.scores for row in rows)
    protocols = rows[0].protocol, rows[1].protocol
    names = [name for name in dict.fromkeys((*mine, *theirs)) if not choice.metrics or name in choice.metrics]
    return [judge(name, (mine.get(name), theirs.get(name)), protocols, choice.allowed) for name in names]
