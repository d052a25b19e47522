"""The store contract on object stores: fsspec's memory, and a real S3 server on loopback.

moto by default; `AGD_S3=radosgw,rclone python -m pytest tests/storage/objects/test_remote_store.py` takes others, where
their programs are installed.
"""

import os
import re
import uuid
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.s3_servers import moto_server, radosgw_server, rclone_server
from storage.objects import open_objects
from storage.objects.remote import StoreUnreachable
from storage.trajectories.claims import claimed, clear_claims
from storage.trajectories.sharing import shared_units, take_over
from storage.trajectories.verification import repair_store, store_problems
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.storage.contract import (
    FOR_ALL,
    SIZES,
    TrajectoryStoreContract,
    latents_of,
    make_plan,
    write,
    write_missing,
)

SERVERS = {"moto": moto_server, "radosgw": radosgw_server, "rclone": rclone_server}


class RemoteStoreContract(TrajectoryStoreContract):
    """A store below a URL of its own, named by the fixture `base_url`."""

    @pytest.fixture
    def new_store(self, base_url):
        def new(plan):
            with warnings.catch_warnings(action="ignore"):
                return ZarrTrajectoryStore.prepare(open_objects(f"{base_url}/{uuid.uuid4().hex}"), plan)

        return new

    def reopened(self, store):
        return ZarrTrajectoryStore.open(open_objects(store.objects.url))

    def test_the_same_content_has_the_same_digest_as_on_a_local_disk(self, new_store, tmp_path):
        plan = make_plan()
        local = write_missing(ZarrTrajectoryStore.prepare(open_objects(str(tmp_path)), plan))
        assert write_missing(new_store(plan)).content_digest() == local.content_digest()

    def test_damage_is_named_and_repaired(self, new_store):
        store = write_missing(new_store(make_plan()))
        before, key = store.content_digest(), "latents/c.1.0.0.0.0.0"
        store.objects.put(key, store.objects.read(key)[:-7])
        assert key in store_problems(store.objects)[0]
        assert repair_store(store.objects) == ["index/u-000000.parquet", key]
        assert write_missing(self.reopened(store)).content_digest() == before
        assert store_problems(store.objects) == []

    def test_units_come_from_another_store_and_go_to_one(self, new_store, tmp_path):
        far, local = write_missing(new_store(make_plan(8))), open_objects(str(tmp_path))
        near = ZarrTrajectoryStore.prepare(local, make_plan(12))
        assert shared_units(far.objects, near.plan, near.missing_units()) == [0, 1]
        assert [take_over(near, far.objects, unit) for unit in (0, 1)] == [True, True]
        back = new_store(make_plan(12))
        far.objects.put("latents/c.1.0.0.0.0.0", far.objects.read("latents/c.1.0.0.0.0.0")[:-7])
        assert shared_units(far.objects, back.plan, [0, 1, 2]) == [1]
        assert [take_over(back, source, unit) for source, unit in ((local, 0), (far.objects, 1))] == [True, True]
        assert write_missing(back).content_digest() == write_missing(near).content_digest()

    def test_a_claim_is_seen_by_others_and_goes_away(self, new_store):
        objects = new_store(make_plan()).objects
        with claimed(objects, 0) as free:
            assert free
            assert open_objects(objects.url).keys("claims") == ["claims/u-000000"]
        objects.put("claims/u-000000", b"another-host 1")
        with claimed(objects, 0) as free, claimed(objects, 1) as other:
            assert (free, other) == (False, True)
        clear_claims(objects)
        assert objects.keys("claims") == []


class TestFsspecMemory(RemoteStoreContract):
    @pytest.fixture
    def base_url(self):
        return f"memory://{uuid.uuid4().hex}"


@pytest.fixture(scope="module", params=os.environ.get("AGD_S3", "moto").split(","))
def server(request, tmp_path_factory):
    with SERVERS[request.param](tmp_path_factory.mktemp("s3")) as running:
        yield running


def use(server, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def create_once(url):
    return open_objects(url).create("raced", os.urandom(2048))


class TestS3(RemoteStoreContract):
    @pytest.fixture
    def base_url(self, server, monkeypatch):
        use(server, monkeypatch)
        return f"s3://{server.bucket}/stores"

    @settings(FOR_ALL, max_examples=4)
    @given(sizes=st.fixed_dictionaries(SIZES), shards_per_unit=st.integers(1, 3))
    def test_what_is_read_is_what_was_written_bit_for_bit(self, new_store, sizes, shards_per_unit):
        """Fewer examples: every request takes milliseconds here."""
        contract = TrajectoryStoreContract.test_what_is_read_is_what_was_written_bit_for_bit
        contract.hypothesis.inner_test(self, new_store, sizes, shards_per_unit)

    def test_it_is_known_whether_creation_is_exclusive(self, server, base_url):
        objects = open_objects(f"{base_url}/probed")
        assert objects.creates_exclusively() is server.conditional_create_expected
        assert objects.keys("") == []

    def test_a_store_without_exclusive_creation_is_warned_about(self, server, base_url, monkeypatch, recwarn):
        objects = open_objects(f"{base_url}/warned-{uuid.uuid4().hex}")
        monkeypatch.setattr(objects, "creates_exclusively", lambda: False)
        with pytest.warns(UserWarning, match="overwrites instead of refusing"):
            ZarrTrajectoryStore.prepare(objects, make_plan())

    def test_of_racing_creators_one_wins(self, server, base_url):
        urls = [f"{base_url}/race-{uuid.uuid4().hex}"] * 8
        with ThreadPoolExecutor(8) as pool:
            winners = sum(pool.map(create_once, urls))
        assert (winners == 1) is server.conditional_create_expected

    def test_a_forked_process_makes_a_client_of_its_own(self, new_store):
        store = write_missing(new_store(make_plan()))
        store.read(np.arange(3))
        with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
            batch = pool.submit(store.read, np.arange(15)).result()
        assert batch.latents.tobytes() == latents_of(store.plan).tobytes()


def test_one_get_per_sample(tmp_path, monkeypatch):
    with moto_server(tmp_path) as server:
        use(server, monkeypatch)
        plan = make_plan(steps=8, latent_shape=(4, 20, 24))  # one step per chunk
        store = write_missing(ZarrTrajectoryStore.prepare(open_objects(f"s3://{server.bucket}/counted"), plan))
        store.read(np.arange(plan.pairs))  # markers and indexes are read once
        before = gets(tmp_path)
        pairs = np.random.default_rng(0).permutation(plan.pairs)[:20]
        batch = store.read(pairs)
        assert gets(tmp_path) - before == 20
        assert batch.latents.tobytes() == latents_of(plan)[pairs].tobytes()


def gets(folder):
    return len(re.findall(r'"GET /agd-test/counted', (folder / "moto" / "moto.log").read_text()))


def test_a_store_that_went_away_is_one_clear_line_and_loses_nothing(tmp_path, monkeypatch):
    with ExitStack() as stack:
        server = stack.enter_context(moto_server(tmp_path))
        use(server, monkeypatch)
        store = ZarrTrajectoryStore.prepare(open_objects(f"s3://{server.bucket}/gone"), make_plan())
        write(store, 0)
        assert store.missing_units() == [1]
        stack.close()
        with pytest.raises(StoreUnreachable, match="s3://agd-test/gone: EndpointConnectionError"):
            write(store, 1)
        with pytest.raises(StoreUnreachable, match="Could not connect"):
            store.read(np.arange(3))


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="Protocol not known: nowhere"):
        open_objects("nowhere://bucket")
