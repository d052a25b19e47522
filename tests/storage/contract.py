"""What every `TrajectoryStore` must do; inherit `TrajectoryStoreContract` and say how a store is made and opened."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agd_core.data.records import CARRIERS, CollectionPlan, PlannedTrajectory, TrajectoryStore
from tests.storage.memory_store import MemoryTrajectoryStore

TIMESTEPS = (999.0, 800.1, 600.0, 400.0, 200.0, 150.0, 100.0, 1.0)
NOT_FINITE = {"float16": (0x7C00, 0xFC00, 0x7E01), "bfloat16": (0x7F80, 0xFF80, 0x7FC1), "float32": (0x7F800000,)}
EXPONENT = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000}
BITS = {"float16": np.uint16, "bfloat16": np.uint16, "float32": np.uint32}


def make_plan(
    trajectories=5, steps=3, shard=2, unit=4, dtype="float16", latent_shape=(2, 3, 3), identity=None, prediction_slots=1
) -> CollectionPlan:
    kept = [tuple(sorted((3 * i + k) % len(TIMESTEPS) for k in range(steps))) for i in range(trajectories)]
    planned = [
        PlannedTrajectory(i, 2**62 + i, {"condition": 7 * i % 3, "null": i % 2}, {"guidance_scale": s}, kept[i], i % 3)
        for i, s in enumerate(1.1 + 0.3 * i for i in range(trajectories))
    ]
    random = np.random.default_rng(5)
    conditions = {
        "encoder_hidden_states": random.standard_normal((3, 4, 6)).astype(np.float16),
        "pooled": random.standard_normal((3, 5)).astype(np.float32),
        "class_labels": np.array([4, 0, 9]),
    }
    identity = identity or {"collect": {"seed": 0, "range": (1, 5)}}
    layout = latent_shape, dtype, shard, unit
    return CollectionPlan(tuple(planned), TIMESTEPS, conditions, *layout, identity, prediction_slots)


def shard_key(shard):
    """Where a shard of such a plan lies."""
    return f"latents/c.{shard}.0.0.0.0.0"


def pair_of(plan, trajectory, slot, seed=0):
    """Random bits: every kind of number that the type has but NaN and infinities."""
    bits, exponent = BITS[plan.dtype], EXPONENT[plan.dtype]
    random = np.random.default_rng([seed, trajectory, slot])
    values = random.integers(0, np.iinfo(bits).max, plan.pair_shape, bits, endpoint=True)
    values[values & exponent == exponent] ^= exponent & -exponent
    return values.view(CARRIERS[plan.dtype])


def latents_of(plan):
    every = [pair_of(plan, row.index, slot) for row in plan.trajectories for slot in range(plan.stored_steps)]
    return np.stack(every)


def put_all(writer, plan, order=None, seed=0):
    wanted = [(row.index, slot) for row in writer.wanted for slot in range(plan.stored_steps)]
    for place in range(len(wanted)) if order is None else order.permutation(len(wanted)):
        writer.put(*wanted[place], pair_of(plan, *wanted[place], seed))


def write(store, unit, order=None, seed=0):
    with store.write_unit(unit) as writer:
        put_all(writer, store.plan, order, seed)


def write_missing(store):
    for unit in store.missing_units():
        write(store, unit)
    return store


def assert_same_bits(a, b):
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert a.tobytes() == b.tobytes()


FOR_ALL = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
SIZES = {
    "trajectories": st.integers(1, 9),
    "steps": st.integers(1, 8),
    "shard": st.integers(1, 4),
    "dtype": st.sampled_from(sorted(BITS)),
    "latent_shape": st.sampled_from([(1, 1, 1), (3, 5, 2), (4, 8, 8), (4, 16, 16), (4, 20, 24), (2, 3, 4, 5), (7, 6)]),
    "prediction_slots": st.sampled_from([1, 2]),
}


def read_bytes(store, pairs, queue):
    """For another process; here, because that imports little."""
    queue.put(store.read(pairs).latents.tobytes())


class TrajectoryStoreContract:
    """Five trajectories of three steps in two units, the first of two shards, unless a test says otherwise."""

    @pytest.fixture
    def new_store(self):
        """A function: plan -> an empty store in a place of its own."""
        raise NotImplementedError

    def reopened(self, store: TrajectoryStore) -> TrajectoryStore:
        """The store as another process would open it."""
        raise NotImplementedError

    @FOR_ALL
    @given(sizes=st.fixed_dictionaries(SIZES), shards_per_unit=st.integers(1, 3))
    def test_what_is_read_is_what_was_written_bit_for_bit(self, new_store, sizes, shards_per_unit):
        plan = make_plan(unit=shards_per_unit * sizes["shard"], **sizes)
        reader, latents = self.reopened(write_missing(new_store(plan))), latents_of(plan)
        pairs = np.random.default_rng(0).permutation(plan.pairs)
        assert reader.missing_units() == []
        assert_same_bits(reader.read(pairs).latents, latents[pairs])
        assert_same_bits(reader.read(np.array([plan.pairs - 1, 0, 0])).latents, latents[[-1, 0, 0]])

    @pytest.mark.parametrize("dtype", sorted(BITS))
    def test_rows_of_a_batch_line_up_with_the_plan(self, new_store, dtype):
        plan = make_plan(dtype=dtype)
        reader, pairs = self.reopened(write_missing(new_store(plan))), np.array([14, 0, 7, 7, 3, 10])
        batch, rows = reader.read(pairs), [(plan.trajectories[pair // 3], pair % 3) for pair in pairs]
        assert_same_bits(batch.latents, latents_of(plan)[pairs])
        assert_same_bits(batch.timesteps, np.array([TIMESTEPS[row.steps[slot]] for row, slot in rows], np.float32))
        assert (batch.rows.keys(), batch.scalars.keys()) == ({"condition", "null"}, {"guidance_scale"})
        for name, column in batch.rows.items():
            assert_same_bits(column, np.array([row.rows[name] for row, _ in rows]))
        assert_same_bits(
            batch.scalars["guidance_scale"], np.array([row.scalars["guidance_scale"] for row, _ in rows], np.float32)
        )
        assert reader.plan.conditions.keys() == {"encoder_hidden_states", "pooled", "class_labels"}
        for name, table in plan.conditions.items():
            assert_same_bits(reader.plan.conditions[name], table)

    def test_a_further_input_is_one_column(self, new_store):
        plan = make_plan()
        wider = [
            replace(row, rows={**row.rows, "layout": 2}, scalars={**row.scalars, "strength": 0.25 * row.index})
            for row in plan.trajectories
        ]
        wide = replace(plan, trajectories=tuple(wider))
        reader = self.reopened(write_missing(new_store(wide)))
        batch = reader.read(np.array([0, 5, 14]))
        assert batch.rows["layout"].tolist() == [2, 2, 2]
        assert_same_bits(batch.scalars["strength"], np.array([0.0, 0.25, 1.0], np.float32))
        assert reader.plan.dataset_id == wide.dataset_id != plan.dataset_id

    def test_a_learned_variance_is_a_third_slot(self, new_store):
        plan = make_plan(prediction_slots=2)
        reader, latents = self.reopened(write_missing(new_store(plan))), latents_of(plan)
        assert latents.shape == (15, 3, 2, 3, 3)
        assert_same_bits(reader.read(np.arange(15)).latents, latents)
        assert (reader.plan.prediction_slots, reader.plan.dataset_id) == (2, plan.dataset_id)
        assert reader.content_digest() == write_missing(MemoryTrajectoryStore(plan)).content_digest()
        assert reader.content_digest() != write_missing(new_store(make_plan())).content_digest()

    def test_pairs_with_and_without_a_variance_do_not_mix(self, new_store):
        for slots in (1, 2):
            store, other = new_store(make_plan(prediction_slots=slots)), make_plan(prediction_slots=3 - slots)
            with pytest.raises(ValueError, match="a pair is"), store.write_unit(0) as writer:
                writer.put(0, 0, pair_of(other, 0, 0))

    def test_a_store_knows_its_plan(self, new_store):
        plan = make_plan()
        found = self.reopened(write_missing(new_store(plan))).plan
        assert found.dataset_id == plan.dataset_id
        assert [row.seed for row in found.trajectories] == [row.seed for row in plan.trajectories]
        assert [row.rows for row in found.trajectories] == [row.rows for row in plan.trajectories]
        assert_same_bits(found.scalars["guidance_scale"], plan.scalars["guidance_scale"])
        assert_same_bits(found.step_table, plan.step_table)
        assert found.conditions["pooled"].shape == (3, 5)

    def test_units_share_out_the_plan(self, new_store):
        store = new_store(make_plan())
        shares = []
        for unit in range(2):
            with pytest.raises(KeyError), store.write_unit(unit) as writer:
                shares.append([row.index for row in writer.wanted])
                raise KeyError
        assert shares == [[0, 1, 2, 3], [4]]

    def test_units_are_missing_until_they_are_committed(self, new_store):
        store = new_store(make_plan(7))
        assert isinstance(store, TrajectoryStore)
        assert store.missing_units() == [0, 1]
        write(store, 1)
        assert self.reopened(store).missing_units() == [0]
        write(self.reopened(store), 0)
        assert store.missing_units() == []

    @pytest.mark.parametrize("left_out", [0, 5, 7, 11])
    def test_an_incomplete_unit_is_refused(self, new_store, left_out):
        store = new_store(make_plan())
        with pytest.raises(ValueError, match="not complete"), store.write_unit(0) as writer:
            for row, slot in [divmod(pair, 3) for pair in range(12) if pair != left_out]:
                writer.put(row, slot, pair_of(store.plan, row, slot))
        with pytest.raises(ValueError, match="not complete"), store.write_unit(1):
            pass
        assert store.missing_units() == [0, 1]
        with pytest.raises((ValueError, OSError)):
            self.reopened(store).read(np.array([left_out // 6 * 6]))

    def test_an_error_inside_the_block_commits_nothing(self, new_store):
        store = new_store(make_plan())
        with pytest.raises(KeyError, match="mine"), store.write_unit(0) as writer:
            put_all(writer, store.plan)
            raise KeyError("mine")
        assert self.reopened(store).missing_units() == [0, 1]
        with pytest.raises((ValueError, OSError)):
            store.read(np.array([0]))

    @pytest.mark.parametrize(("dtype", "slots"), [*((dtype, 1) for dtype in sorted(BITS)), ("float16", 2)])
    def test_what_is_not_finite_is_refused_by_name(self, new_store, dtype, slots):
        plan = make_plan(dtype=dtype, prediction_slots=slots)
        store = new_store(plan)
        for bits in NOT_FINITE[dtype]:
            for place in (0, plan.pair_shape[1] * 9, plan.pair_shape[0] * plan.pair_shape[1] * 9 - 1):
                pair = pair_of(plan, 3, 1).view(BITS[dtype])
                pair.reshape(-1)[place] = bits
                with pytest.raises(ValueError, match=r"trajectory 3\b.*not finite"), store.write_unit(0) as writer:
                    writer.put(3, 1, pair.view(CARRIERS[dtype]))
        assert store.missing_units() == [0, 1]
        write_missing(store)
        assert_same_bits(store.read(np.arange(15)).latents, latents_of(plan))

    @pytest.mark.parametrize(
        ("trajectory", "slot"), [(4, 0), (5, 0), (6, 0), (-1, 0), (99, 0), (0, 3), (0, -1)], ids=str
    )
    def test_a_pair_of_another_unit_or_slot_is_refused(self, new_store, trajectory, slot):
        store = new_store(make_plan())
        with pytest.raises(ValueError, match=f"trajectory {trajectory}, slot {slot}"), store.write_unit(0) as writer:
            writer.put(trajectory, slot, pair_of(store.plan, 0, 0))
        assert store.missing_units() == [0, 1]

    def test_a_pair_beyond_the_last_trajectory_is_refused(self, new_store):
        store = new_store(make_plan())
        with pytest.raises(ValueError, match="trajectory 5, slot 0"), store.write_unit(1) as writer:
            writer.put(5, 0, pair_of(store.plan, 0, 0))

    @pytest.mark.parametrize("unit", [-1, 2, 10**6])
    def test_a_unit_that_the_plan_does_not_have_is_refused(self, new_store, unit):
        store = new_store(make_plan())
        with pytest.raises(ValueError, match=f"unit {unit}"), store.write_unit(unit):
            pass
        assert store.missing_units() == [0, 1]

    @pytest.mark.parametrize("dtype", sorted(BITS))
    def test_another_shape_or_type_is_refused(self, new_store, dtype):
        store = new_store(make_plan(dtype=dtype))
        good = pair_of(store.plan, 0, 0)
        for bad in (
            good[:1],
            good[0],
            good[..., :2],
            good.astype(np.float64),
            good.view(np.uint8),
            good.byteswap().view(good.dtype.newbyteorder()),
        ):
            with pytest.raises(ValueError, match="a pair is"), store.write_unit(0) as writer:
                writer.put(0, 0, bad)
        assert store.missing_units() == [0, 1]

    @pytest.mark.parametrize(("trajectory", "slot"), [(0, 0), (1, 2), (3, 1)])
    def test_a_pair_is_put_once(self, new_store, trajectory, slot):
        store = new_store(make_plan())
        with pytest.raises(ValueError, match="there already"), store.write_unit(0) as writer:
            put_all(writer, store.plan)
            writer.put(trajectory, slot, pair_of(store.plan, trajectory, slot))
        with pytest.raises(ValueError, match="there already"), new_store(make_plan()).write_unit(0) as writer:
            for _ in range(2):
                writer.put(trajectory, slot, pair_of(store.plan, trajectory, slot))
        assert store.missing_units() == [0, 1]

    def test_arrays_need_not_be_contiguous_and_are_copied(self, new_store):
        store = new_store(make_plan())
        with store.write_unit(1) as writer:
            for slot in range(3):
                pair = np.asfortranarray(pair_of(store.plan, 4, slot))
                writer.put(4, slot, pair)
                pair[:] = 0
        assert_same_bits(store.read(np.arange(12, 15)).latents, latents_of(store.plan)[12:])

    @pytest.mark.parametrize("steps", [3, 8])
    def test_the_order_of_puts_and_of_commits_changes_nothing(self, new_store, steps):
        plan = make_plan(9, steps, latent_shape=(4, 8, 8))
        straight = write_missing(new_store(plan)).content_digest()
        for seed in range(3):
            order = np.random.default_rng(seed)
            store = new_store(plan)
            for unit in order.permutation(plan.units).tolist():
                write(store, unit, order)
            assert self.reopened(store).content_digest() == straight
            assert_same_bits(store.read(np.arange(plan.pairs)).latents, latents_of(plan))

    @pytest.mark.parametrize("steps", [3, 8])
    @pytest.mark.parametrize("dtype", sorted(BITS))
    def test_the_content_digest_is_the_same_in_every_backend(self, new_store, dtype, steps):
        plan = make_plan(dtype=dtype, steps=steps, latent_shape=(4, 8, 8))
        expected = write_missing(MemoryTrajectoryStore(plan)).content_digest()
        assert write_missing(new_store(plan)).content_digest() == expected

    @pytest.mark.parametrize("pair", range(15))
    def test_one_changed_bit_changes_the_content_digest(self, new_store, pair):
        store = new_store(make_plan())
        for unit in range(2):
            with store.write_unit(unit) as writer:
                for row in writer.wanted:
                    for slot in range(3):
                        bits = pair_of(store.plan, row.index, slot).view(np.uint16)
                        bits[-1, -1, -1, -1] ^= pair == row.index * 3 + slot
                        writer.put(row.index, slot, bits.view(np.float16))
        assert store.content_digest() != write_missing(MemoryTrajectoryStore(store.plan)).content_digest()

    def test_other_content_has_another_digest(self, new_store):
        plan = make_plan()
        digests = {write_missing(new_store(plan)).content_digest()}
        other = new_store(plan)
        write(other, 0)
        write(other, 1, seed=1)
        digests.add(other.content_digest())
        conditions = dict(plan.conditions) | {"pooled": plan.conditions["pooled"] + 1}
        for change in ({"conditions": conditions}, {"identity": {"a": 1}}, {"timesteps": (*TIMESTEPS[:-1], 2.0)}):
            digests.add(write_missing(new_store(replace(plan, **change))).content_digest())
        assert len(digests) == 5

    def test_a_unit_that_is_not_committed_is_never_read(self, new_store):
        store = new_store(make_plan())
        write(store, 1)
        for pairs in ([0], [11], [12, 3]):
            with pytest.raises((ValueError, OSError)):
                store.read(np.array(pairs))
        with pytest.raises(ValueError, match="not committed"):
            store.content_digest()
        assert_same_bits(store.read(np.array([13])).latents, latents_of(store.plan)[13:14])

    @pytest.mark.parametrize("pairs", [[-1], [15], [0, 17], [-15]])
    def test_a_pair_that_the_plan_does_not_have_is_never_read(self, new_store, pairs):
        with pytest.raises(IndexError, match="0 to 14"):
            write_missing(new_store(make_plan())).read(np.array(pairs))

    def test_no_pairs_are_an_empty_batch(self, new_store):
        batch = write_missing(new_store(make_plan())).read(np.array([], dtype=np.int64))
        assert batch.latents.shape == (0, 2, 2, 3, 3)
        assert batch.rows["condition"].shape == batch.scalars["guidance_scale"].shape == (0,)

    def test_two_writers_on_one_unit_end_with_one_result(self, new_store):
        store = new_store(make_plan())
        straight = write_missing(new_store(store.plan)).content_digest()
        with store.write_unit(0) as slow:
            slow.put(0, 0, pair_of(store.plan, 0, 0))
            write(self.reopened(store), 0)
            for row, slot in [divmod(pair, 3) for pair in range(1, 12)]:
                slow.put(row, slot, pair_of(store.plan, row, slot))
        write(store, 1)
        assert self.reopened(store).missing_units() == []
        assert self.reopened(store).content_digest() == straight

    def test_writing_again_changes_nothing(self, new_store):
        store = write_missing(new_store(make_plan()))
        before = store.content_digest()
        for unit in (1, 0, 1):
            write(self.reopened(store), unit)
        assert self.reopened(store).content_digest() == before

    @pytest.mark.parametrize(("shard", "unit"), [(2, 3), (4, 2), (3, 8)])
    def test_a_unit_is_a_whole_number_of_shards(self, new_store, shard, unit):
        with pytest.raises(ValueError, match=f"a unit of {unit} trajectories is no multiple of {shard}"):
            new_store(make_plan(shard=shard, unit=unit))
