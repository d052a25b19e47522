import pytest

from tests.storage.contract import TrajectoryStoreContract
from tests.storage.memory_store import MemoryTrajectoryStore


class TestMemoryStore(TrajectoryStoreContract):
    @pytest.fixture
    def new_store(self):
        return MemoryTrajectoryStore

    def reopened(self, store):
        return store
