import pytest
import torch

from agd_core.basics.errors import InputError
from agd_core.models.condition import Condition


def labels(*values):
    return Condition(class_labels=torch.tensor(values))


def prompts(rows):
    states = torch.arange(rows * 6, dtype=torch.float32).reshape(rows, 2, 3)
    return Condition(class_labels=torch.arange(rows), encoder_hidden_states=states)


def masked(rows, tokens):
    return Condition(states=torch.ones(rows, tokens, 3), states_mask=torch.ones(rows, tokens, dtype=torch.int64))


def test_only_the_tensors_that_are_there_are_listed():
    assert list(Condition(class_labels=torch.tensor([1]), pooled=None).tensors()) == ["class_labels"]
    assert list(prompts(2).tensors()) == ["class_labels", "encoder_hidden_states"]


def test_length_is_the_batch():
    assert len(labels(4, 5, 6)) == 3
    assert len(Condition(encoder_hidden_states=torch.zeros(2, 7, 3))) == 2


def test_what_is_missing_is_said_in_one_line():
    with pytest.raises(InputError, match=r"a condition with pooled is needed; this one has class_labels$"):
        labels(1)["pooled"]
    with pytest.raises(InputError, match="a condition with encoder_hidden_states is needed"):
        Condition.cat([labels(1), prompts(2)])
    assert "class_labels" in labels(1)
    assert "pooled" not in labels(1)


def test_joined_parts_give_the_whole_back():
    whole = prompts(5)
    joined = Condition.cat([whole[:2], whole[2:3], whole[3:]])
    for name, tensor in whole.tensors().items():
        assert torch.equal(joined[name], tensor)


def test_cat_keeps_the_order_given():
    assert Condition.cat([labels(3), labels(1, 2)])["class_labels"].tolist() == [3, 1, 2]


def test_rows_of_unequal_tokens_are_filled_up_where_a_mask_stands_beside_them():
    joined = Condition.cat([masked(1, 2), masked(2, 4)])
    assert joined["states_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert torch.equal(joined["states"], joined["states_mask"][:, :, None].expand(3, 4, 3).float())
    assert torch.equal(joined[:1]["states"][:, :2], masked(1, 2)["states"])
    with pytest.raises(InputError, match="rows of s with 2 and 4 tokens cannot be joined without s_mask beside them"):
        Condition.cat([Condition(s=torch.ones(1, 2, 3)), Condition(s=torch.ones(1, 4, 3))])


@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([3, 0, 0]), torch.tensor([True, False, True, False])])
def test_every_tensor_is_sliced_by_the_same_rows(rows):
    part, whole = prompts(4)[rows], prompts(4)
    assert torch.equal(part["class_labels"], whole["class_labels"][rows])
    assert torch.equal(part["encoder_hidden_states"], whole["encoder_hidden_states"][rows])


def test_to_moves_every_tensor():
    moved = prompts(2).to(torch.device("meta"))
    assert {tensor.device.type for tensor in moved.tensors().values()} == {"meta"}


def test_conditions_do_not_change():
    with pytest.raises(AttributeError):
        labels(1).class_labels = torch.tensor([2])
    with pytest.raises(TypeError):
        labels(1)["class_labels"] = torch.tensor([2])


def test_a_prompt_condition_goes_through_arrays_unchanged():
    prompt = Condition(
        encoder_hidden_states=torch.randn(2, 3, 4), pooled=torch.randn(2, 5).half(), time_ids=torch.randn(2, 6)
    )
    again = Condition.from_arrays(prompt.to_arrays(), torch.device("cpu"))
    assert again.tensors().keys() == prompt.tensors().keys()
    for name, tensor in prompt.tensors().items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], tensor)
