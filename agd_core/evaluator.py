"""Stage 4's core: every metric that was asked for, on one sample set."""

from agd_core.metrics import METRICS, EvaluateConfig, Measured, Score


def evaluate_samples(measured: Measured, config: EvaluateConfig) -> dict[str, Score]:
    """Measure one sample set, on the CPU.

    Args:
        measured: samples, the guided teacher's samples, the real images.
        config: which metrics, and their settings.

    Returns:
        Scores by name; a metric that has nothing to look at gives none.

    Raises:
        InputError: a metric needs a package that is not installed.
    """
    scores: dict[str, Score] = {}
    for name in config.metrics:
        scores |= METRICS[name](measured, config)
    return scores
