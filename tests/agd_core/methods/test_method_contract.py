"""The contract of every kind of method, on every class of networks."""

import pytest
import torch
from pydantic import TypeAdapter

from agd_core.basics.errors import InputError
from agd_core.methods import AnyMethodConfig, LoraConfig, Pairs
from agd_core.methods.adapter_files import AdapterCard, load_student, open_adapter, save_adapter
from agd_core.models.backbones import BACKBONES
from tests.agd_core.methods.examples import (
    CASES,
    EXAMPLES,
    KINDS,
    MODELS,
    NOTHING_RANDOM,
    call_of,
    model_of,
    randomised,
    takes,
)

each_kind = pytest.mark.parametrize("kind", KINDS)
each_case = pytest.mark.parametrize(("kind", "network"), CASES)
REFUSED = [(kind, network) for kind in EXAMPLES for network in MODELS if not takes(kind, network)]


@pytest.fixture
def config(kind):
    return EXAMPLES[kind]


@pytest.fixture
def model(network):
    return model_of(network)


@pytest.fixture
def call(model):
    return call_of(model)


def test_every_kind_has_an_example_and_a_network():
    assert EXAMPLES.keys() == KINDS.keys(), "tests/agd_core/methods/examples.py"
    assert {kind for kind, _ in CASES} == set(KINDS)
    assert {network for _, network in CASES} == set(BACKBONES)


@each_case
def test_what_a_method_takes_it_can_build(config, model):
    config.check(model.backbone)


class Choosy(LoraConfig):
    """A method that refuses a class of networks before anything of it is built."""

    def check_class(self, kind):
        raise InputError(f"methods: choosy refuses a {kind.class_name}")

    def build(self, backbone, seed=0):
        raise AssertionError("it is asked first")


def test_what_a_method_does_not_take_it_refuses_in_one_line():
    with pytest.raises(InputError, match=r"^methods: choosy refuses a DiTTransformer2DModel$"):
        Choosy().check(model_of("DiTTransformer2DModel").backbone)
    for kind, network in REFUSED:
        for refused in (EXAMPLES[kind].check, EXAMPLES[kind].build):
            with pytest.raises(InputError, match=rf"^methods: {kind} .*{network}") as line:
                refused(model_of(network).backbone)
            assert "\n" not in str(line.value)


@each_kind
def test_the_config_survives_json_and_has_a_name(config):
    assert TypeAdapter(AnyMethodConfig).validate_json(config.model_dump_json()) == config
    assert config.label == config.kind
    named = config.model_copy(update={"name": "mine"})
    assert (named.label, named.identity()) == ("mine", config.identity())
    assert config.about.endswith(".")


@each_case
@torch.no_grad()
def test_before_training_the_student_is_the_base_bit_for_bit(config, model, call):
    with config.build(model.backbone).installed(model) as student:
        assert torch.equal(student.predict(*call), model.predict(*call))


@each_case
@torch.no_grad()
def test_the_base_stays_as_it_is_bit_for_bit(config, model, call):
    bare, weights = model.predict(*call), {name: each.clone() for name, each in model.network.state_dict().items()}
    modules = [type(module) for module in model.network.modules()]
    with randomised(config.build(model.backbone)).installed(model) as student:
        assert not torch.allclose(student.predict(*call), bare, atol=1e-3)
        assert torch.equal(model.predict(*call), bare), "asked by itself"
        assert not torch.allclose(student.predict(*call), bare, atol=1e-3)
    assert torch.equal(model.predict(*call), bare)
    after = model.network.state_dict()
    assert list(after) == list(weights)
    assert all(torch.equal(after[name], weight) for name, weight in weights.items())
    assert [type(module) for module in model.network.modules()] == modules
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.network.modules())
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


@each_case
@pytest.mark.parametrize("rows", [slice(3), slice(1, 2)], ids=["rows differ", "one row"])
@pytest.mark.parametrize("most_prepared", [1, 1 << 28], ids=["step by step", "together"])
@torch.no_grad()
def test_a_samplers_steps_answer_as_single_calls_do(config, model, call, rows, most_prepared, monkeypatch):
    """What is computed before the first step, for all of them or for each, changes no answer."""
    monkeypatch.setattr("agd_core.methods.agd.attach._MOST_PREPARED", most_prepared)
    latents, timesteps, ask = call[0][rows], torch.tensor([900.0, 400.0, 20.0]), call[2][rows]
    with randomised(config.build(model.backbone)).installed(model) as student:
        for timestep, answer in zip(timesteps, student.steps(timesteps, ask), strict=True):
            single = student.predict(latents, timestep.expand(len(ask)), ask)
            assert torch.allclose(answer(latents), single, atol=1e-5)
        assert not torch.allclose(single, model.predict(latents, timestep.expand(len(ask)), ask), atol=1e-3)


@each_case
@torch.no_grad()
def test_a_sampler_whose_rows_are_alike_gets_what_each_row_gets(config, model, call):
    one, ask = call[2][1:2], call[2][torch.tensor([1, 1, 1])]
    with randomised(config.build(model.backbone)).installed(model) as student:
        together = next(student.steps(torch.tensor([500.0]), ask))(call[0])
        for row in range(3):
            single = student.predict(call[0][row : row + 1], torch.tensor([500.0]), one)
            assert (together[row : row + 1] - single).abs().max() < 1e-5 * max(1, single.abs().max())


@each_case
@torch.no_grad()
def test_several_students_share_a_base(config, model, call):
    first, second = randomised(config.build(model.backbone)), randomised(config.build(model.backbone), "other weights")
    with first.installed(model) as student:
        alone = student.predict(*call)
        with second.installed(model) as other:
            assert not torch.equal(other.predict(*call), alone)
            assert torch.equal(student.predict(*call), alone)
        assert torch.equal(student.predict(*call), alone)


@each_case
@torch.no_grad()
def test_a_row_costs_one_network_evaluation_and_knows_no_other_row(config, model, call):
    latents, timestep, ask = call
    with randomised(config.build(model.backbone)).installed(model) as student:
        before = student.network_evaluations
        together = student.predict(*call)
        assert student.network_evaluations - before == len(latents)
        rows = [slice(row, row + 1) for row in range(len(latents))]
        alone = torch.cat([student.predict(latents[row], timestep[row], ask[row]) for row in rows])
    assert torch.allclose(together, alone, atol=1e-4)


@each_case
@torch.no_grad()
def test_what_is_saved_predicts_the_same(config, model, call, tmp_path):
    trained = randomised(config.build(model.backbone))
    card = AdapterCard.of(model, trained, "somewhere", {"kind": "cfg"}, (1.0, 8.0), "d" * 64)
    save_adapter(trained, card, model.network, tmp_path)
    with trained.installed(model) as student, load_student(model, tmp_path) as loaded:
        assert torch.equal(student.predict(*call), loaded.predict(*call))
    assert open_adapter(model, tmp_path).config == config


def losses_and_gradients(trained, model, call, checkpointing=False):
    """Three steps of gradient descent towards zero: the losses, and the largest gradient of every parameter.

    A ControlNet has zeros behind zeros, so that what is first gets its first gradient in the third step.
    """
    pairs = Pairs(*call, guided=torch.zeros(3, model.prediction_channels, *model.latent_shape[1:]))
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.02)
    losses, largest = [], {}
    with trained.installed(model, checkpointing) as student:
        for _ in range(3):
            optimizer.zero_grad()
            loss = trained.loss(student, pairs)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            for name, parameter in trained.named_parameters():
                largest[name] = max(largest.get(name, 0.0), parameter.grad.abs().max().item())
    return losses, largest


@torch.no_grad()
def has_influence(trained, names, model, call):
    """Whether other values of these weights change a prediction; a network may have some that change none."""
    with trained.installed(model) as student:
        before = student.predict(*call)
        for name in names:
            trained.get_parameter(name).add_(1.0)
        return not torch.equal(student.predict(*call), before)


@each_case
def test_gradients_reach_all_that_is_trained_and_nothing_of_the_base(config, model, call):
    trained = config.build(model.backbone)
    losses, largest = losses_and_gradients(trained, model, call)
    assert losses[1] < losses[0]
    idle = [name for name, gradient in largest.items() if gradient == 0]
    assert not idle or not has_influence(trained, idle, model, call)
    assert sum(parameter.numel() for parameter in trained.parameters()) == trained.parameter_count()
    assert all(parameter.grad is None for parameter in model.network.parameters())


@each_case
def test_activation_checkpointing_changes_no_loss(config, model, call):
    kept, saving = (losses_and_gradients(config.build(model.backbone), model, call, each) for each in (False, True))
    assert saving[0] == pytest.approx(kept[0], rel=1e-5)
    assert saving[1] == pytest.approx(kept[1], rel=1e-3)
    assert not model.network.is_gradient_checkpointing


@each_case
def test_equal_seeds_give_equal_weights_and_leave_the_global_state_alone(config, model):
    backbone = model.backbone
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, second, other = (config.build(backbone, seed).state_dict() for seed in (4, 4, 5))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert config.kind in NOTHING_RANDOM or any(not torch.equal(first[name], other[name]) for name in first)
