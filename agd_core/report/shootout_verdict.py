"""The shoot-out's verdicts: against no guidance, against the teacher, and in words."""

from typing import Any

from agd_core.evaluation.comparing.judging import Judged, Verdict, judge
from agd_core.evaluation.metrics import Quantity, Score
from agd_core.evaluation.metrics.paired import PAIRED_MSE
from agd_core.evaluation.relative_error import RELATIVE_ERROR
from agd_core.evaluation.rows import Row
from agd_core.report.columns import measured
from agd_core.report.shootout import Contest

_SAID: tuple[Verdict, ...] = ("better", "same", "worse")


def against_unguided(contest: Contest) -> list[dict[str, Any]]:
    """Every paired error against no guidance's at the same scale: better, same or worse at 95 %; as plain data."""
    return [
        {"name": row.name, "guidance_scale": row.teacher_scale, **_judged(PAIRED_MSE.name, bare, row).as_dict()}
        for contestant in contest.contestants
        if contestant not in (contest.unguided, contest.teacher)
        for row, bare in zip(contestant.rows, contest.unguided.rows, strict=True)
    ]


def summary(contest: Contest, collected: tuple[float, float]) -> str:
    """Plain sentences: who comes closest to the teacher for each budget, and how all stand by every main number.

    Args:
        contest: all that took part.
        collected: the range of guidance scales that was collected.
    """
    seeds = max(len(contestant.spent.seeds) for contestant in contest.trained if contestant.spent)
    methods = len({contestant.method for contestant in contest.trained})
    begun = (
        f"{methods} method{'s' if methods > 1 else ''} learnt from one collection of guidance scales "
        f"{collected[0]:g} to {collected[1]:g}, with {seeds} seed{'s' if seeds > 1 else ''} each."
    )
    main = [found for found in measured(contest.rows) if found.headline and not found.paired]
    return " ".join([begun, *_closest(contest), *filter(None, (_against_teacher(it, contest) for it in main))])


def _closest(contest: Contest) -> list[str]:
    """One sentence: who has the smallest paired error with each budget."""
    found = []
    for budget, contestants in contest.budgets.items():
        scores = {contestant.name: contestant.rows[0].scores.get(RELATIVE_ERROR) for contestant in contestants}
        values = {name: score.value for name, score in scores.items() if score and score.value is not None}
        if values and (score := scores[best := min(values, key=values.__getitem__)]):
            found.append(f"{best} with {budget}, {_with_interval(score)}")
    where = f"Closest to the teacher's images at guidance scale {contest.teacher.rows[0].teacher_scale:g}"
    return [f"{where}, by paired error as a share of no guidance's: {'; '.join(found)}."] if found else []


def _with_interval(score: Score) -> str:
    ends = "" if score.low is None or score.high is None else f" ({score.low:.3f} to {score.high:.3f})"
    return f"{score.value:.3f}{ends}"


def _against_teacher(quantity: Quantity, contest: Contest) -> str:
    """One sentence: who is better, the same or worse than the teacher by a number, at 95 %."""
    teacher = contest.teacher.rows[0]
    others = [contestant.rows[0] for contestant in contest.contestants if contestant is not contest.teacher]
    found: dict[str, list[str]] = {}
    for row in others:
        found.setdefault(_judged(quantity.name, teacher, row).verdict, []).append(row.name)
    parts = [f"{verdict}: {', '.join(found[verdict])}" for verdict in _SAID if verdict in found]
    name = quantity.in_words[0].upper() + quantity.in_words[1:]
    return f"{name} against {teacher.name}'s at 95 %: {'; '.join(parts)}." if parts else ""


def _judged(name: str, baseline: Row, other: Row) -> Judged:
    return judge(name, (baseline.scores.get(name), other.scores.get(name)), (baseline.protocol, other.protocol))
