"""A setting that somebody adds is in the key of what it shapes, unless the field itself says otherwise."""

from dataclasses import dataclass

import pytest
from pydantic import Field

from agd_core.config import NOT_IDENTITY
from agd_core.sampling import SampleConfig
from flows.run import Run
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
    prediction_error(run, "one", Artefact(run.place.output, "adapter", "k"))


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
