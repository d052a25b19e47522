"""Stored pairs as training batches: in exact step order, prefetched, resumable at any step.

A step's pairs follow from its number alone (`agd_core.data.order`). So resuming is starting at another step,
whatever the number of workers or ranks was before, and what was prefetched but never used leaves no trace.
"""

import signal
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from agd_core.basics.errors import InputError
from agd_core.basics.parent_death import die_with_parent
from agd_core.basics.transfer import to_device
from agd_core.data.order import Order, StreamOrder
from agd_core.data.records import StepBatch, StoredType, TrajectoryReader

TORCH_TYPES: dict[StoredType, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
"""The torch type of each stored type."""

StartMethod = Literal["spawn", "fork", "forkserver"]
"""How worker processes start. Fork is unsafe once CUDA or a client of an object store runs in the parent."""


@dataclass(frozen=True)
class TrajectoryDataset(Dataset[StepBatch]):
    """The pairs of a reader by index; as picklable as the reader is."""

    reader: TrajectoryReader

    def __len__(self) -> int:
        return self.reader.plan.pairs

    def __getitem__(self, pair: int) -> StepBatch:
        """One pair, as a batch of one row."""
        if not 0 <= pair < len(self):
            raise IndexError(f"pair {pair} is not in [0, {len(self)})")
        return self.reader.read(np.array([pair], dtype=np.int64))

    def __getitems__(self, pairs: np.ndarray | list[int]) -> StepBatch:
        """A whole batch in one read; `DataLoader` prefers this, and needs no collating then."""
        return self.reader.read(np.asarray(pairs, dtype=np.int64))


@dataclass(frozen=True)
class StepSampler(Sampler[np.ndarray]):
    """The pairs of these steps: a `batch_sampler` for `DataLoader`."""

    order: Order
    steps: range

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.order.pairs, self.steps)

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class TrajectoryStream(IterableDataset[StepBatch]):
    """The batches of these steps, read front to back.

    Worker w of W yields every W-th from the w-th on; `DataLoader` asks its workers in turn, which restores the order.
    Use it with `batch_size=None` and `collate_fn=identity`.
    """

    reader: TrajectoryReader
    order: StreamOrder
    steps: range

    def __iter__(self) -> Iterator[StepBatch]:
        worker = get_worker_info()
        offset, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in self.steps[offset::stride]:
            yield self.reader.read(self.order.pairs(step))


def training_batches(
    reader: TrajectoryReader,
    order: Order,
    steps: range,
    workers: int = 0,
    prefetch: int = 2,
    start_method: StartMethod = "spawn",
) -> Generator[StepBatch, None, None]:
    """The batches of these steps, in exactly that order.

    Close it, or exhaust it, to end the thread or the processes behind it. A reader's error is raised here, at the
    step that it belongs to, and ends them too.

    Args:
        reader: its batches are kept while later ones are read, so it must not reuse their memory.
        order: the pairs of each step.
        steps: which; a run that is resumed starts at a later one.
        workers: 0 reads in one background thread, else in that many processes.
        prefetch: batches read ahead, by each worker.
        start_method: how processes start.

    Raises:
        InputError: `prefetch` is below 1.
    """
    if prefetch < 1:
        raise InputError(f"prefetch is {prefetch}; at least 1 is needed")
    dataset, sampler = TrajectoryDataset(reader), StepSampler(order, steps)
    if workers:
        yield from _read_in_processes(dataset, sampler, prefetch, workers, start_method)
    else:
        yield from _read_in_thread(dataset, sampler, prefetch)


def _read_in_thread(dataset: TrajectoryDataset, steps: StepSampler, prefetch: int) -> Generator[StepBatch, None, None]:
    waiting: deque[Future[StepBatch]] = deque()
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
    try:
        for pairs in steps:
            waiting.append(thread.submit(dataset.__getitems__, pairs))
            if len(waiting) > prefetch:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        thread.shutdown(wait=True, cancel_futures=True)


def _read_in_processes(
    dataset: TrajectoryDataset, steps: StepSampler, prefetch: int, workers: int, start_method: StartMethod
) -> Generator[StepBatch, None, None]:
    # Batches stay NumPy arrays on their way: tensors would need shared memory, which containers keep small.
    # The loader seeds its workers from `generator`; without one it would advance the global random state.
    loader = DataLoader(
        dataset,
        batch_sampler=steps,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=identity,
        prefetch_factor=prefetch,
        multiprocessing_context=start_method,
        worker_init_fn=_die_with_trainer,
        generator=torch.Generator(),
    )
    try:
        yield from loader
    except Exception as error:
        # The loader's frames would keep its processes alive; the worker's own traceback is in the message.
        raise error.with_traceback(None) from None


def _die_with_trainer(worker: int) -> None:
    """No reader outlives a killed training: a forked one would keep what it inherited, the device's lease included."""
    die_with_parent(signal.SIGKILL)


def identity(batch: Any) -> Any:
    """Collate nothing: a `StepBatch` is read whole."""
    return batch


class TrainingBatches:
    """The batches of one run, asked for by step; reading ahead starts with the first step that is asked for.

    It counts what it handed out, not what was prefetched. A context manager: leaving it ends the reading.
    """

    def __init__(self, reader: TrajectoryReader, order: Order, stop_step: int, workers: int = 0) -> None:
        self._reader = reader
        self._order = order
        self._stop_step = stop_step
        self._workers = workers
        self._batches: Generator[StepBatch, None, None] | None = None
        self._next_step = 0

    def at(self, step: int) -> StepBatch:
        """The batch of this step: any step first, then one after the other.

        Raises:
            ValueError: the step is not the next one, or the run has no such step.
        """
        if self._batches is None:
            self._batches = training_batches(self._reader, self._order, range(step, self._stop_step), self._workers)
            self._next_step = step
        if step != self._next_step or step >= self._stop_step:
            raise ValueError(f"asked for step {step}, but step {self._next_step} of {self._stop_step} is next")
        batch = next(self._batches)
        self._next_step += 1
        return batch

    def __enter__(self) -> "TrainingBatches":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._batches is not None:
            self._batches.close()
        if death := reader_death(error):
            raise death from None


def reader_death(error: BaseException | None) -> ChildProcessError | None:
    """What to say instead of this error where it is PyTorch's, of a reading process that was killed.

    PyTorch also raises it from a signal handler, so anywhere in the main thread.
    """
    said = str(error).strip()
    if isinstance(error, RuntimeError) and said.startswith("DataLoader worker"):
        what = said.splitlines()[0].rstrip(". ")
        again = "run the same command again to go on from the checkpoint, perhaps with fewer train.loader_workers"
        return ChildProcessError(f"{what}: a process that reads batches is gone, as when memory runs out; {again}")
    return None


def tensor_of(array: np.ndarray, device: torch.device) -> Tensor:
    """The same numbers on a device, without a copy where they are there already; strides are kept.

    A read-only array is copied: a tensor could write to it, and a mapped file would end the process.
    """
    return to_device(torch.from_numpy(np.require(array, requirements="W")), device)


def latents_tensor(latents: np.ndarray, dtype: StoredType, device: torch.device) -> Tensor:
    """Latents as the network takes them, float32, of the same shape.

    Args:
        latents: `StepBatch.latents`, in the carrier type of `dtype` (`agd_core.data.records.CARRIERS`).
        dtype: the plan's stored type. This is what travels to the device, where it is cast.
        device: of the network.
    """
    bits = torch.from_numpy(np.require(latents, requirements="W"))
    return to_device(bits.view(TORCH_TYPES[dtype]), device).float()
