import dataclasses

import pytest
import torch

from agd_core.condition import Condition


def labels(*values):
    return Condition(class_labels=torch.tensor(values))


def prompts(rows):
    return Condition(torch.arange(rows), torch.arange(rows * 6, dtype=torch.float32).reshape(rows, 2, 3))


def test_only_the_tensors_that_are_there_are_listed():
    assert list(labels(1).tensors()) == ["class_labels"]
    assert list(prompts(2).tensors()) == ["class_labels", "encoder_hidden_states"]


def test_length_is_the_batch():
    assert len(labels(4, 5, 6)) == 3
    assert len(Condition(encoder_hidden_states=torch.zeros(2, 7, 3))) == 2


def test_joined_parts_give_the_whole_back():
    whole = prompts(5)
    joined = Condition.cat([whole[:2], whole[2:3], whole[3:]])
    for name, tensor in whole.tensors().items():
        assert torch.equal(joined.tensors()[name], tensor)


def test_cat_keeps_the_order_given():
    assert Condition.cat([labels(3), labels(1, 2)]).class_labels.tolist() == [3, 1, 2]


@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([3, 0, 0]), torch.tensor([True, False, True, False])])
def test_every_field_is_sliced_by_the_same_rows(rows):
    part, whole = prompts(4)[rows], prompts(4)
    assert torch.equal(part.class_labels, whole.class_labels[rows])
    assert torch.equal(part.encoder_hidden_states, whole.encoder_hidden_states[rows])


def test_a_field_that_is_absent_stays_absent():
    for condition in (labels(1, 2)[:1], Condition.cat([labels(1), labels(2)]), labels(1).to(torch.device("cpu"))):
        assert condition.encoder_hidden_states is None


def test_to_moves_every_field():
    moved = prompts(2).to(torch.device("meta"))
    assert {tensor.device.type for tensor in moved.tensors().values()} == {"meta"}


def test_conditions_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        labels(1).class_labels = torch.tensor([2])


def test_a_prompt_condition_goes_through_arrays_unchanged():
    prompt = Condition(
        encoder_hidden_states=torch.randn(2, 3, 4), pooled=torch.randn(2, 5).half(), time_ids=torch.randn(2, 6)
    )
    again = Condition.from_arrays(prompt.to_arrays(), torch.device("cpu"))
    assert again.tensors().keys() == prompt.tensors().keys()
    for name, tensor in prompt.tensors().items():
        assert again.tensors()[name].dtype == tensor.dtype
        assert torch.equal(again.tensors()[name], tensor)
