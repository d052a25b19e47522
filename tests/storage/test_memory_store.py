import pytest

from storage.memory_store import MemoryTrajectoryStore
from tests.storage.contract import TrajectoryStoreContract


class TestMemoryStore(TrajectoryStoreContract):
    @pytest.fixture
    def new_store(self):
        return MemoryTrajectoryStore

    def reopened(self, store):
        return store
