"""The prediction error of a real adapter on the real teacher: what is measured, reused, measured anew."""

import pytest
import torch

from agd_core.basics.progress import Stopped
from agd_core.guidance import ClassifierFreeGuidance
from agd_core.methods import OffsetConfig
from agd_core.methods.adapter_files import AdapterCard, save_adapter
from flows.run import Run
from flows.stages.comparison import Method
from flows.stages.prediction_error import ADAPTER, CURVE, prediction_error, read_curve, read_curves
from flows.workplace import Workplace
from storage.artefacts import ARTEFACTS, ArtefactStore

SCALE = 3.0


def saved_adapter(teacher, output, spread):
    """A finished adapter whose last layers are drawn with this spread; 0 leaves it adding nothing."""
    adapter = OffsetConfig(hidden_width=8, encoder="shared").build(teacher.backbone)
    draws = torch.Generator().manual_seed(0)
    for layer in adapter.layers:
        torch.nn.init.normal_(layer.net[-1].weight, std=spread, generator=draws)
    artefact = ArtefactStore(output / ARTEFACTS).artefact("adapter", {"spread": spread})
    artefact.path.mkdir(parents=True)
    card = AdapterCard.of(
        teacher, adapter, "builtin:fashion-dit", ClassifierFreeGuidance().identity(), (1.0, 6.0), "d" * 64
    )
    save_adapter(adapter, card, teacher.network, artefact.path)
    artefact.finish({"spread": spread})
    return artefact


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("curves")


@pytest.fixture(scope="module")
def adapters(teacher, output):
    return {name: saved_adapter(teacher, output, spread) for name, spread in (("idle", 0.0), ("wild", 0.5))}


@pytest.fixture(scope="module")
def measure(small_config, teacher, adapters, output):
    def run(name, scale=SCALE, lines=None, sample=None, curve_images=4, folder=output, **others):
        place = Workplace(folder, announce=(lines if lines is not None else []).append, **others)
        wanted = small_config.evaluate.model_copy(update={"curve_images": curve_images})
        settings = small_config.sample.model_copy(update={"guidance_scales": (scale,), **(sample or {})})
        config = small_config.model_copy(update={"sample": settings, "evaluate": wanted})
        return prediction_error(Run(config, place, teacher), Method(name, "agd-offset", adapters[name]))

    return run


def test_the_real_teacher_is_walked_and_an_idle_adapter_errs_as_no_guidance_does(measure, small_config):
    curve = read_curve(measure("idle"))
    assert (curve["steps"], curve["images"], curve["guidance_scale"]) == (small_config.sample.steps, 4, SCALE)
    assert len(curve["guided_mean_square"]) == small_config.sample.steps
    for plain, idle in zip(curve["points"]["no guidance"], curve["points"][ADAPTER], strict=True):
        assert plain["mse"] > 0
        assert idle["mse"] == pytest.approx(plain["mse"], rel=1e-5)
        assert idle["relative"] == pytest.approx(1.0, rel=1e-5)


def test_the_error_of_no_guidance_is_that_of_the_formula(measure):
    """(scale - 1)^2 |cond - uncond|^2 at the first step, whose latents are the same at every scale."""
    first = {scale: read_curve(measure("idle", scale))["points"]["no guidance"][0]["mse"] for scale in (2.0, 4.0)}
    assert first[4.0] / first[2.0] == pytest.approx(9.0, rel=1e-4)


def test_curves_are_joined_by_name(measure):
    joined = read_curves({name: measure(name) for name in ("idle", "wild")})
    assert list(joined["points"]) == ["no guidance", "idle", "wild"]
    assert joined["points"]["wild"][0]["mse"] != pytest.approx(joined["points"]["idle"][0]["mse"], rel=1e-3)


def test_a_second_call_reuses_and_another_adapter_measures_its_own_only(measure, tmp_path):
    lines = []
    first = measure("idle", lines=lines, folder=tmp_path)
    again = measure("idle", lines=lines, folder=tmp_path)
    other = measure("wild", lines=lines, folder=tmp_path)
    assert (first.key, first.digest) == (again.key, again.digest)
    assert other.key != first.key
    assert ["cached" in line for line in lines] == [False, True, False]


@pytest.mark.parametrize(
    "changed",
    [
        {"scale": 2.0},
        {"curve_images": 5},
        {"sample": {"steps": 3}},
        {"sample": {"seed": 9}},
        {"sample": {"scheduler": "euler"}},
    ],
)
def test_what_shapes_the_curve_is_in_its_key(measure, changed):
    assert measure("idle", **changed).key != measure("idle").key


def test_batches_and_the_images_to_sample_are_not_in_its_key(measure):
    changed = measure(
        "idle", sample={"batch_size": 3, "images": 40, "guidance_scales": (SCALE, 5.0), "curve_steps": ()}
    )
    assert changed.key == measure("idle").key


def test_the_batch_changes_nothing_but_rounding(measure, tmp_path):
    in_threes = read_curve(measure("wild", sample={"batch_size": 3}, folder=tmp_path))
    at_once = read_curve(measure("wild"))
    for name, curve in at_once["points"].items():
        for one, other in zip(curve, in_threes["points"][name], strict=True):
            assert other == pytest.approx(one, rel=1e-3)


def test_a_stop_leaves_nothing_finished_and_no_adapter_on_the_teacher(measure, teacher, tmp_path):
    answers = iter([False] * 3 + [True] * 9)
    with pytest.raises(Stopped):
        measure("wild", folder=tmp_path, should_stop=lambda: next(answers))
    assert not list(tmp_path.rglob(CURVE))
    assert not any(module._forward_hooks for module in teacher.network.modules())
