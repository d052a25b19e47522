"""Trajectories as WebDataset tars: a derived form for reading front to back, shuffled once when it is written.

    <target>/<split>-<tar>.tar     equal numbers of samples, only the last tar may have fewer
    <target>/store/..., export.json, index.parquet     see `storage.exports.base`

A sample is keyed `<trajectory>_<step>` and has two members: `.lat.bin`, the raw little-endian `[K, C, H, W]`, and
`.json`. Plain `webdataset` reads it. Conditions are stored once, under `store/cond`. The two headers and the JSON take
1.5 KiB a sample: 6 % at 24 KiB pairs, but a pair of 1 KiB grows to 2.5 times its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from agd_core.basics.errors import InputError
from agd_core.basics.permutation import Permutation
from agd_core.data.records import CollectionPlan, StepBatch, step_batch
from storage.errors import Damaged
from storage.exports.base import (
    ExportedObject,
    ExportIndex,
    OnProgress,
    begin_export,
    blocks,
    checksum,
    export_note,
    finish_export,
    object_problem,
    read_carried_plan,
    read_index,
    rebuild_store,
    silent,
)
from storage.exports.tar_records import END, TarRecords
from storage.objects import ByteRange, ObjectStore
from storage.trajectories.pairs import require_pairs
from storage.trajectories.zarr_store import ZarrTrajectoryStore

FORMAT = "agd-webdataset"
TAR_BYTES = 256_000_000


@dataclass(frozen=True)
class TarSet:
    """Which sample lies where: position p holds pair `stored.forward(p)`, tar k positions from `k * tar_samples`."""

    plan: CollectionPlan
    stored: Permutation
    tar_samples: int

    @classmethod
    def of(cls, plan: CollectionPlan, tar_bytes: int, seed: int) -> TarSet:
        """Tars of at most `tar_bytes`, but of at least one sample; each seed in `[0, 2**64)` is another shuffle.

        Raises:
            InputError: the trajectories are of several splits, which one shuffle would mix.
        """
        if len(splits := sorted({trajectory.split for trajectory in plan.trajectories})) > 1:
            raise InputError(f"a WebDataset holds one split; these trajectories are of {', '.join(splits)}")
        fitting = max(1, (tar_bytes - len(END)) // TarRecords(plan).size)
        return cls(plan, Permutation(plan.pairs, seed), min(fitting, plan.pairs))

    @cached_property
    def records(self) -> TarRecords:
        """What makes and reads samples."""
        return TarRecords(self.plan)

    @property
    def count(self) -> int:
        """How many tars there are."""
        return -(-self.plan.pairs // self.tar_samples)

    def name(self, tar: int) -> str:
        """The tar's key."""
        return f"{self.plan.trajectories[0].split}-{tar:06d}.tar"

    def samples(self, tar: int) -> int:
        """How many samples the tar holds."""
        return min(self.tar_samples, self.plan.pairs - tar * self.tar_samples)

    def size(self, tar: int) -> int:
        """Bytes of the tar."""
        return self.samples(tar) * self.records.size + len(END)

    def pairs(self, tar: int) -> Iterator[tuple[int, np.ndarray]]:
        """The tar's pairs in order, a few megabytes at a time: first byte, int64 `[n]`."""
        for samples in blocks(self.samples(tar), self.records.size):
            positions = np.arange(samples.start, samples.stop) + tar * self.tar_samples
            yield samples.start * self.records.size, self.stored.forward(positions)


def export_webdataset(
    store: ZarrTrajectoryStore,
    objects: ObjectStore,
    tar_bytes: int = TAR_BYTES,
    seed: int = 0,
    on_progress: OnProgress = silent,
) -> ExportIndex:
    """Write a finished store as shuffled tars; tars that are there and whole are kept.

    Args:
        store: the source.
        objects: where the tars go.
        tar_bytes: size that a tar does not exceed, unless one sample does.
        seed: of the one shuffle of all samples.
        on_progress: told samples done and in total, every few megabytes.

    Raises:
        OtherContent: the place holds another export.
        Damaged: the source is not whole.
    """
    tars = TarSet.of(store.plan, tar_bytes, seed)
    note = export_note(store, FORMAT, seed=seed, tar_samples=tars.tar_samples)
    listed = begin_export(store, objects, note)
    exported = []
    for tar in range(tars.count):
        on_progress(tar * tars.tar_samples, store.plan.pairs)
        present = _present(objects, tars, tar, listed.get(tars.name(tar)))
        exported.append(present or _write_tar(store, objects, tars, tar, on_progress))
    on_progress(store.plan.pairs, store.plan.pairs)
    return finish_export(objects, note, exported)


def import_webdataset(
    objects_from: ObjectStore, objects_to: ObjectStore, on_progress: OnProgress = silent
) -> ZarrTrajectoryStore:
    """Rebuild the store that was exported, with an equal content digest; committed units are kept.

    Every trajectory's samples are scattered over the tars, so this reads one range per sample.

    Raises:
        InputError: no finished WebDataset export there.
        OtherContent: the target holds another store.
        Damaged: the export is damaged; the message names the file.
    """
    reader = WebDatasetReader(objects_from)
    steps = np.arange(reader.plan.stored_steps)

    def latents(trajectory: int) -> np.ndarray:
        return reader.read(trajectory * len(steps) + steps).latents

    return rebuild_store(objects_to, reader.plan, reader.content_digest, latents, on_progress)


class WebDatasetReader:
    """A `TrajectoryReader` on exported tars; the same pairs give the same batches as the store they came from.

    Reading in stored order is cheap: neighbouring samples are one range. `stored` and `tar_samples` are what
    `agd_core.data.order.StreamOrder` needs to do that.

    Raises:
        InputError: no finished WebDataset export there.
        Damaged: its index or its plan is damaged.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects
        self.index = read_index(objects, FORMAT)
        self.plan = read_carried_plan(objects, self.index)
        self.tar_samples = self._noted("tar_samples", 1)
        self.stored = Permutation(self.plan.pairs, self._noted("seed", 0))
        self._tars = TarSet(self.plan, self.stored, self.tar_samples)
        expected = [(self._tars.name(tar), self._tars.size(tar)) for tar in range(self._tars.count)]
        if [(entry.name, entry.size) for entry in self.index.objects] != expected:
            raise Damaged(f"{objects.url}: its index and its plan do not fit together")

    def _noted(self, name: str, least: int) -> int:
        value = self.index.note.get(name)
        if type(value) is not int or not least <= value < 2**64:
            raise Damaged(f"{self.objects.url}: its note has no {name}")
        return value

    @property
    def content_digest(self) -> str:
        """`content_digest` of the store that was exported."""
        return str(self.index.note["content_digest"])

    def read(self, pairs: np.ndarray) -> StepBatch:
        """The pairs of these indices; checksum and identity of every sample are checked.

        Raises:
            IndexError: the plan has no such pair.
            Damaged: a tar is missing, cut or damaged; the message names it.
        """
        pairs = np.asarray(pairs)
        require_pairs(pairs, self.plan)
        positions, first, rows = np.unique(self.stored.inverse(pairs), return_index=True, return_inverse=True)
        records = self._gather(positions)
        if (torn := self._tars.records.torn(pairs[first], records)) is not None:
            tar, sample = divmod(int(positions[torn]), self.tar_samples)
            raise Damaged(f"{self.objects.url}/{self._tars.name(tar)}: sample {sample} fails its checksum")
        return step_batch(self.plan, pairs, self._tars.records.latents(records)[rows])

    def problems(self, deep: bool = True) -> list[str]:
        """One line per tar that is missing or not what was written; `deep` sums every byte."""
        found = (object_problem(self.objects, entry, deep) for entry in self.index.objects)
        return [problem for problem in found if problem]

    def _gather(self, positions: np.ndarray) -> np.ndarray:
        """Samples, uint8 `[n, size]`, at ascending positions; each run of neighbours in one tar is one range."""
        size = self._tars.records.size
        records = np.empty((len(positions), size), dtype=np.uint8)
        begins = (np.diff(positions, prepend=-2) != 1) | (positions % self.tar_samples == 0)
        starts = np.flatnonzero(begins).tolist()
        ranges, rows = [], []
        for start, stop in zip(starts, [*starts[1:], len(positions)], strict=True):
            tar, sample = divmod(int(positions[start]), self.tar_samples)
            ranges.append(ByteRange(self._tars.name(tar), sample * size, (stop - start) * size))
            rows.append(records[start:stop].reshape(-1))
        try:
            for _ in self.objects.gather(ranges, rows):
                pass  # every record is checked by the caller
        except (FileNotFoundError, EOFError) as error:
            raise Damaged(f"{self.objects.url}: a tar is missing or cut: {error}") from error
        return records


def _present(objects: ObjectStore, tars: TarSet, tar: int, listed: ExportedObject | None) -> ExportedObject | None:
    """The tar that is there already, proved whole; anything else of its name is deleted."""
    name, size = tars.name(tar), objects.size(tars.name(tar))
    if size is None:
        return None
    if listed is None and size == tars.size(tar) and _made_of_its_pairs(objects, tars, tar):
        return ExportedObject(name, size, tars.samples(tar), checksum(objects, name, size))
    if listed is not None and object_problem(objects, listed) is None:
        return listed
    objects.delete(name)
    return None


def _made_of_its_pairs(objects: ObjectStore, tars: TarSet, tar: int) -> bool:
    """Whether a tar of the right size holds nothing but its samples, each with the right name and checksum."""
    for start, pairs in tars.pairs(tar):
        data = np.frombuffer(objects.read(tars.name(tar), start, len(pairs) * tars.records.size), dtype=np.uint8)
        records = data.reshape(len(pairs), -1)
        if tars.records.torn(pairs, records) is not None:
            return False
        if (tars.records.encode(pairs, tars.records.latents(records)) != records).any():
            return False
    return objects.read(tars.name(tar), tars.size(tar) - len(END)) == END


def _write_tar(
    store: ZarrTrajectoryStore, objects: ObjectStore, tars: TarSet, tar: int, on_progress: OnProgress
) -> ExportedObject:
    """Write one tar and publish it whole; what another exporter published meanwhile is the same, or is replaced."""
    name, done = tars.name(tar), tar * tars.tar_samples
    with objects.stage(name, tars.size(tar)) as staged:
        for start, pairs in tars.pairs(tar):
            staged.write(start, tars.records.encode(pairs, store.read(pairs).latents).reshape(-1))
            done += len(pairs)
            on_progress(done, store.plan.pairs)
        staged.write(tars.size(tar) - len(END), END)
        written = ExportedObject(name, tars.size(tar), tars.samples(tar), staged.checksum())
        if not staged.publish() and _present(objects, tars, tar, written) is None:
            staged.publish()
    return written
