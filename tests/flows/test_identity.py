"""A setting that somebody adds is in the key of what it shapes, unless the field itself says otherwise."""

from dataclasses import dataclass

import pytest
from pydantic import Field

from agd_core.basics.config import NOT_IDENTITY
from agd_core.data.subjects import Subjects
from agd_core.evaluation.evaluator import EvaluateConfig
from agd_core.evaluation.sampling import SampleConfig
from flows.run import Run
from flows.stages.comparison import Method
from flows.stages.evaluate import LookedAt, evaluate
from flows.stages.prediction_error import prediction_error
from flows.stages.sample import Cell, sample
from flows.workplace import Workplace
from storage.artefacts import Artefact


class Churned(SampleConfig):
    """With one more setting of the sampler, and one more of how work is done."""

    churn: float = 0.0
    workers: int = Field(1, json_schema_extra=NOT_IDENTITY)


class Asked(Exception):
    """Holds the identity that a stage asked its workplace for."""


@dataclass(frozen=True)
class Asking(Workplace):
    def produce(self, stage, identity, *args, **settings):
        raise Asked(identity)


def samples(run):
    sample(run, Cell(2.0, 4, "ddim"), "bare")


def errors(run):
    prediction_error(run, Method("one", "agd-offset", Artefact(run.place.output, "adapter", "k")))


class Keener(EvaluateConfig):
    """With one more setting of a metric."""

    keenness: float = 0.0


def test_a_new_setting_of_evaluation_is_in_the_key_unless_it_says_otherwise(
    small_config, teacher, tmp_path, monkeypatch
):
    monkeypatch.setattr(Artefact, "digest", "d")
    looked = LookedAt(Artefact(tmp_path, "samples", "k"), None, None, None, Subjects.of(teacher, (), ""))

    def identity(**settings):
        config = small_config.model_copy(update={"evaluate": Keener(**settings)})
        with pytest.raises(Asked) as asked:
            evaluate(Run(config, Asking(tmp_path), teacher), Cell(2.0, 4, "ddim"), looked, looked, "one")
        return asked.value.args[0]

    assert identity() == identity(curve_images=3, measure_cost=False) != identity(keenness=0.5)
    assert identity(kid_subsets=3) != identity() != identity(seed=1)


@pytest.mark.parametrize("stage", [samples, errors])
def test_a_new_setting_of_sampling_is_in_the_key_unless_it_says_otherwise(
    stage, small_config, teacher, tmp_path, monkeypatch
):
    monkeypatch.setattr(Artefact, "digest", "d")

    def identity(**settings):
        with pytest.raises(Asked) as asked:
            stage(Run(small_config.model_copy(update={"sample": Churned(**settings)}), Asking(tmp_path), teacher))
        return asked.value.args[0]

    assert identity() == identity(workers=3) != identity(churn=0.5)
