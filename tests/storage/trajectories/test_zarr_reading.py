"""One Zarr store in several processes and threads, and the buffers that it hands out."""

import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from tests.storage.contract import (
    assert_same_bits,
    latents_of,
    make_plan,
    put_all,
    read_bytes,
    write_missing,
)
from tests.storage.zarr_tools import (
    ONE_STEP,
    SEVERAL_STEPS,
    in_folder,
)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_reads_the_same_batch(tmp_path, method):
    store = write_missing(in_folder(tmp_path, make_plan(**ONE_STEP)))
    pairs = np.array([3, 14, 0])
    expected = store.read(pairs).latents.tobytes()
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=read_bytes, args=(store, pairs, queue))
    child.start()
    assert queue.get() == expected
    child.join()
    assert store.read(pairs).latents.tobytes() == expected


def test_a_store_travels_without_open_files_and_buffers(tmp_path):
    store = write_missing(in_folder(tmp_path, make_plan(**ONE_STEP)))
    size = len(pickle.dumps(store))
    expected = store.read(np.arange(15)).latents.tobytes()
    assert len(pickle.dumps(store)) <= size + 1000
    again = pickle.loads(pickle.dumps(store))
    assert again.read(np.arange(15)).latents.tobytes() == expected


@pytest.mark.parametrize("sizes", [ONE_STEP, SEVERAL_STEPS])
def test_a_batch_that_somebody_holds_is_never_overwritten(tmp_path, sizes):
    store = write_missing(in_folder(tmp_path, make_plan(**sizes)))
    latents, rng = latents_of(store.plan), np.random.default_rng(0)
    orders = [rng.integers(0, store.plan.pairs, 8) for _ in range(10)]
    batches = [store.read(order) for order in orders]
    views = [store.read(order).latents[2:3] for order in orders]
    tensors = [torch.from_numpy(store.read(order).latents)[1] for order in orders]
    for order, batch, view, tensor in zip(orders, batches, views, tensors, strict=True):
        assert_same_bits(batch.latents, latents[order])
        assert_same_bits(view, latents[order][2:3])
        assert_same_bits(tensor.numpy(), latents[order][1])


def test_threads_read_through_one_store(tmp_path, monkeypatch):
    monkeypatch.setattr("storage.objects.local._OPEN_FILES", 2)
    store = write_missing(in_folder(tmp_path, make_plan(12, shard=1, unit=4, **ONE_STEP)))
    latents, begin = latents_of(store.plan), threading.Barrier(4)

    def read(seed):
        rng = np.random.default_rng(seed)
        begin.wait()
        for _ in range(100):
            pairs = rng.integers(0, store.plan.pairs, 6)
            assert_same_bits(store.read(pairs).latents, latents[pairs])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(read, range(4)))


def test_few_files_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr("storage.objects.local._OPEN_FILES", 3)
    store = write_missing(in_folder(tmp_path, make_plan(12, shard=1, unit=12, **ONE_STEP)))
    before = len(os.listdir("/proc/self/fd"))
    store.read(np.arange(store.plan.pairs))
    assert len(os.listdir("/proc/self/fd")) == before + 3
    del store
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_published_shard_is_closed_before_its_unit_ends(tmp_path):
    store = in_folder(tmp_path, make_plan(12, shard=1, unit=12, **ONE_STEP))
    before = len(os.listdir("/proc/self/fd"))
    with store.write_unit(0) as writer:
        put_all(writer, store.plan)
        assert len(os.listdir("/proc/self/fd")) == before
        assert list(tmp_path.rglob("*.partial")) == []
