"""Small adapters and made-up rows, published as a run publishes them."""

from dataclasses import replace

from agd_core.methods import OffsetConfig
from agd_core.methods.adapter_files import AdapterCard, save_adapter
from agd_core.report.page import Picture
from flows.config import PipelineConfig
from flows.run import Run
from flows.stages import report
from flows.stages.comparison import NO_GUIDANCE, Compared, Method, teacher_of
from flows.stages.extras import Extras
from flows.stages.shootout import SHOOTOUT
from tests.result_rows import as_row, row, score

NAME = "agd-offset"


def trained(config, teacher, place, value):
    """An adapter as an artefact, told apart by one number in its weights."""

    def work(artefact):
        adapter = OffsetConfig().build(teacher.backbone)
        next(adapter.parameters()).data.fill_(value)
        source = config.base_model.source
        files = AdapterCard.of(teacher, adapter, source, config.guidance.identity(), (1.0, 5.0), "d" * 64)
        save_adapter(adapter, files, teacher.network, artefact.path)

    return [(config.methods[0], place.produce("adapter", {"value": value}, work, title="adapter"))]


def compared(artefact, fd):
    scores = {"fd": score(fd), "accuracy": score(float("nan"), None, "higher")}
    methods = (NO_GUIDANCE, teacher_of(PipelineConfig()), Method(NAME, NAME, artefact))
    return [Compared(as_row(row(method.name, scores)), method, "cpu", artefact, artefact) for method in methods]


def publish_reports(config, teacher, adapters, rows, place, patch, files=(report.REPORT, report.SWEEP, SHOOTOUT)):
    """Reports of made-up rows, without pictures, which take seconds."""
    patch.setattr(report, "grid_of", lambda item, subjects, title="": Picture("", "", b""))
    patch.setattr(report, "plots", lambda *arguments: [])
    at = {"steps": config.sample.steps}
    rows = [replace(item, row=item.row.model_copy(update=at)) for item in rows]
    made = report.Made(Run(config, place, teacher), "agd test", adapters[0][1], adapters, rows, Extras())
    for kind in files:
        report.report(made, kind)
