"""The same call gives the same bits: a prediction, a whole sampling, a training."""

import pytest
import torch

from agd_core.basics.checkpoint import Checkpoint
from agd_core.data.subjects import Subjects
from agd_core.evaluation.sampling import SampleConfig, sample_images
from agd_core.guidance import ClassifierFreeGuidance, GuidedDenoiser
from agd_core.memory import Sized
from agd_core.memory.full_size import FullSizeModel
from agd_core.methods.trainer import TrainConfig, Training
from agd_core.models.sources import resolve_source
from benchmarks.gpu.stored_pairs import RandomPairs
from tests.agd_core.methods.examples import EXAMPLES, FIRST, MODELS, call_of, model_of, randomised
from tests.gpu.parts import CASES, DIT, model_on, moved, predicted

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("kind", "network"), CASES)
def test_a_prediction_is_repeated_to_the_bit(kind, network, device):
    model, call = model_on(device, network), moved(call_of(model_of(network)), device)
    trained = randomised(EXAMPLES[kind].build(model.backbone)).to(device)
    assert torch.equal(predicted(model, trained, call), predicted(model, trained, call))


def test_images_are_repeated_to_the_bit(device):
    model = model_on(device, DIT)
    teacher, config = GuidedDenoiser(model, ClassifierFreeGuidance()), SampleConfig(images=4, steps=3)
    first, second = (sample_images(teacher, Subjects(model), config) for _ in range(2))
    assert torch.equal(first.images, second.images)


def losses(kind, device, folder):
    model, name = model_on(device, FIRST[kind]), MODELS[FIRST[kind]]
    sized = Sized(FullSizeModel.of_folder(resolve_source(f"builtin:{name}"), name), model.latent_shape[-1])
    config = TrainConfig(steps=4, batch_size=4, checkpoint_seconds=1e6)
    training = Training(model, EXAMPLES[kind].build(model.backbone), RandomPairs(sized, 4, 4), config)
    return training.run(Checkpoint(folder / "none.safetensors", kind))


@pytest.mark.parametrize("kind", EXAMPLES)
def test_losses_of_a_training_are_repeated_to_the_bit(kind, device, tmp_path):
    assert losses(kind, device, tmp_path) == losses(kind, device, tmp_path)
