"""Every row of a report against the guided teacher at the same point: better, same or worse at 95 %."""

from collections.abc import Sequence

from agd_core.evaluation.comparing.judging import Verdict, judge
from agd_core.evaluation.comparing.row_pairs import point_of
from agd_core.evaluation.metrics import Score, quantities
from agd_core.evaluation.rows import Row


def teacher_beside(row: Row, rows: Sequence[Row]) -> Row | None:
    """The guided teacher among these rows that has the same guidance scale asked for, scheduler and steps."""
    return next((other for other in rows if other.is_teacher and point_of(other) == point_of(row)), None)


def against_teacher(row: Row, teacher: Row | None) -> dict[str, Verdict]:
    """The verdict on every number of a row that says something beside the teacher's, by name.

    Where the teacher is the yardstick, that is so if a row can equal it but for chance (`Quantity.of_teacher`). Both
    were sampled from the same noise, which is not reckoned with: it says "same" more often than it must.

    Args:
        row: of anything; the teacher's own has no verdicts.
        teacher: of the same point, see `teacher_beside`; None: no verdicts.
    """
    if teacher is None or row.is_teacher:
        return {}
    protocols = teacher.protocol, row.protocol
    baselines = {name: _of_teacher(name, teacher) for name in row.scores}
    return {
        name: judge(name, (baseline, row.scores[name]), protocols).verdict
        for name, baseline in baselines.items()
        if baseline
    }


def _of_teacher(name: str, teacher: Row) -> Score | None:
    known = quantities().get(name)
    if known is None or not known.paired:
        return teacher.scores.get(name)
    if known.of_teacher is None:
        return None
    return Score(value=known.of_teacher, better=known.better, standard_error=0.0, method="by definition")
