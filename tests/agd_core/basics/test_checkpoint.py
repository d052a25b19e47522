import json
import os

import pytest
import torch
from torch import nn

from agd_core.basics.atomic import write_json
from agd_core.basics.checkpoint import Checkpoint, checkpoint_sum, load_tensors, save_tensors
from agd_core.basics.errors import InputError

DIGEST = "a" * 64


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def trained(seed, steps=3):
    modules = {"student": network(seed), "student_ema": network(seed + 1)}
    optimizer = torch.optim.AdamW(modules["student"].parameters(), lr=0.01)
    for step in range(steps):
        optimizer.zero_grad()
        modules["student"](torch.full((5, 3), float(step)) + torch.eye(5, 3)).square().mean().backward()
        optimizer.step()
    return modules, optimizer


def flat_state(modules, optimizer):
    state = {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for index, entry in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{key}": value for key, value in entry.items()}
    return state


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert value.dtype == b[key].dtype, key
        assert torch.equal(value, b[key]), key


def test_round_trip_gives_modules_adam_state_step_and_losses_back(tmp_path):
    saved, fresh = trained(0), trained(10, steps=0)
    losses = [float(torch.tensor(value)) for value in (1.0, 0.1, 1 / 3)]
    Checkpoint(tmp_path / "c.safetensors", DIGEST).save(3, losses, *saved)
    assert Checkpoint(tmp_path / "c.safetensors", DIGEST).load(*fresh) == (3, losses)
    assert len(fresh[1].state_dict()["state"]) == 6
    assert_same(flat_state(*fresh), flat_state(*saved))


def test_loading_replaces_adam_state_that_is_already_there(tmp_path):
    saved, other = trained(0), trained(10, steps=5)
    checkpoint = Checkpoint(tmp_path / "c.safetensors", DIGEST)
    checkpoint.save(3, [], *saved)
    checkpoint.load(*other)
    assert_same(flat_state(*other), flat_state(*saved))


def test_a_checkpoint_before_the_first_step_holds_no_adam_state(tmp_path):
    checkpoint, fresh = Checkpoint(tmp_path / "c.safetensors", DIGEST), trained(3, steps=0)
    checkpoint.save(0, [], *trained(0, steps=0))
    assert checkpoint.load(*fresh) == (0, [])
    assert fresh[1].state_dict()["state"] == {}


def test_without_a_file_nothing_is_touched(tmp_path):
    run = trained(0)
    before = {key: value.clone() for key, value in flat_state(*run).items()}
    assert Checkpoint(tmp_path / "none.safetensors", DIGEST).load(*run) == (0, [])
    assert_same(flat_state(*run), before)


def test_the_checkpoint_of_another_run_is_refused_and_nothing_is_loaded(tmp_path):
    path, run = tmp_path / "c.safetensors", trained(10)
    Checkpoint(path, DIGEST).save(3, [], *trained(0))
    before = {key: value.clone() for key, value in flat_state(*run).items()}
    with pytest.raises(InputError, match=r"c\.safetensors belongs to run aaaaaaaaaaaa, not bbbbbbbbbbbb"):
        Checkpoint(path, "b" * 64).load(*run)
    assert_same(flat_state(*run), before)


def test_a_partial_file_left_by_a_kill_does_not_matter(tmp_path):
    path, fresh = tmp_path / "c.safetensors", trained(10, steps=0)
    (tmp_path / "c.safetensors.4194304.partial").write_bytes(b"torn")
    assert Checkpoint(path, DIGEST).load(*fresh) == (0, [])
    Checkpoint(path, DIGEST).save(2, [1.0], *trained(0))
    assert Checkpoint(path, DIGEST).load(*fresh) == (2, [1.0])


def test_a_save_that_fails_leaves_the_previous_checkpoint(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c.safetensors", DIGEST)
    checkpoint.save(1, [1.0], *trained(0))
    before = checkpoint.path.read_bytes()
    shared = torch.zeros(3)
    with pytest.raises(RuntimeError, match="share memory"):
        save_tensors({"weight": shared, "twin": shared}, checkpoint.path)
    assert checkpoint.path.read_bytes() == before


def test_the_same_state_gives_the_same_bytes(tmp_path):
    run = trained(0)
    for number in range(12):
        Checkpoint(tmp_path / f"{number}.safetensors", DIGEST).save(3, [1.0], *run)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_remove_forgets_the_run_and_may_be_called_twice(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c.safetensors", DIGEST)
    checkpoint.save(3, [], *trained(0))
    checkpoint.remove()
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def test_tensors_and_note_round_trip_through_a_new_folder(tmp_path):
    tensors = {"half": torch.arange(6).half().view(2, 3).T, "empty": torch.zeros(0), "count": torch.tensor(7)}
    save_tensors(tensors, tmp_path / "new" / "t.safetensors", "a note")
    loaded, note = load_tensors(tmp_path / "new" / "t.safetensors")
    assert_same(loaded, tensors)
    assert note == "a note"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["t.safetensors"]


def test_json_is_sorted_readable_and_replaced_whole(tmp_path):
    path = tmp_path / "new" / "metrics.json"
    write_json({"old": 1}, path)
    write_json({"b": "é", "a": [1]}, path)
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": [1], "b": "é"}
    assert path.read_text(encoding="utf-8").index('"a"') < path.read_text(encoding="utf-8").index('"b": "é"')
    assert [entry.name for entry in path.parent.iterdir()] == ["metrics.json"]


def test_the_random_state_comes_back_so_that_dropout_goes_on_where_it_was(tmp_path):
    saved = trained(0)
    checkpoint = Checkpoint(tmp_path / "c.safetensors", DIGEST)
    checkpoint.save(3, [], *saved)
    expected = torch.rand(5)
    torch.manual_seed(99)
    checkpoint.load(*trained(10, steps=0))
    assert torch.equal(torch.rand(5), expected)


def test_a_checkpoint_that_stands_elsewhere_in_the_data_is_refused(tmp_path):
    saved, position = trained(0), {"epoch": 1, "position": 7}
    checkpoint = Checkpoint(tmp_path / "c.safetensors", DIGEST)
    checkpoint.save(3, [], *saved, position)
    assert checkpoint.load(*saved, lambda step: {"epoch": 1, "position": step + 4})[0] == 3
    with pytest.raises(InputError, match="stands elsewhere in the data"):
        checkpoint.load(*saved, lambda step: {"epoch": 1, "position": 8})


def test_a_damaged_checkpoint_is_named_and_never_loaded(tmp_path):
    path, saved = tmp_path / "c.safetensors", trained(0)
    Checkpoint(path, DIGEST).save(3, [0.5], *saved)
    whole = path.read_bytes()
    named = 0
    places = torch.randint(len(whole) * 8, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    for place in places:
        torn = bytearray(whole)
        torn[place // 8] ^= 1 << place % 8
        path.write_bytes(torn)
        fresh = trained(10, steps=0)
        try:
            assert Checkpoint(path, DIGEST).load(*fresh) == (3, [0.5])  # padding of the header means nothing
            assert_same(flat_state(*fresh), flat_state(*saved))
        except InputError as error:
            named += "is damaged; delete it" in str(error)
    assert named > 290
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match="is damaged; delete it"):
        Checkpoint(path, DIGEST).load(*trained(10, steps=0))


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, note: tensors.pop("student.0.weight"),
        lambda tensors, note: tensors.update({"student.0.weight": torch.zeros(7)}),
        lambda tensors, note: tensors.pop("losses"),
        lambda tensors, note: tensors.update({"optimizer.first.step": torch.zeros(1)}),
        lambda tensors, note: tensors.update({"random.cpu": torch.zeros(3)}),
        lambda tensors, note: note.update(step="3"),
        lambda tensors, note: note.pop("digest"),
        lambda tensors, note: note.pop("position"),
    ],
)
def test_a_crafted_checkpoint_with_a_sum_that_fits_is_one_line_too(tmp_path, change):
    path, run = tmp_path / "c.safetensors", trained(0)
    Checkpoint(path, DIGEST).save(3, [1.0], *run)
    tensors, note = load_tensors(path)
    tensors, note = dict(tensors), json.loads(note)
    note.pop("sha256")
    change(tensors, note)
    save_tensors(tensors, path, json.dumps(note | {"sha256": checkpoint_sum(tensors, note)}))
    with pytest.raises(InputError, match=r"c\.safetensors is damaged; delete it to train from the start") as caught:
        Checkpoint(path, DIGEST).load(*run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["fifo", "folder", "deep note"])
def test_what_is_no_checkpoint_is_refused_and_not_waited_for(tmp_path, kind):
    path = tmp_path / "c.safetensors"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        save_tensors({"losses": torch.zeros(1)}, path, "[" * 100_000)
    with pytest.raises(InputError, match="is damaged; delete it"):
        Checkpoint(path, DIGEST).load(*trained(0))
