"""The concurrency slot that shows in the UI who holds the device.

The truth is the kernel's lock on the device (`flows.machine.device_lease`), which needs no server and is free the
moment its holder dies. The slot follows it from a thread of its own: taking one costs seconds, no work waits for it.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.logging import get_logger
from prefect.runtime import flow_run

SLOT = "gpu"
"""Name of the global concurrency limit."""
_LEASE_SECONDS = 60.0
_LINGER_SECONDS = 1.0
_FAREWELL_SECONDS = 3.0
_LOGGER = get_logger(__name__)


class GpuSlot:
    """While entered, a thread holds the slot whenever a `shown` block is open.

    It keeps the slot for a second after a block, so that the next stage of the same run need not take it again.
    """

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="gpu-slot", daemon=True)
        run = flow_run.id
        self._holder = ConcurrencyLeaseHolder(type="flow_run", id=UUID(run)) if run else None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._wanted.set()
        self._thread.join(timeout=_FAREWELL_SECONDS)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show this run as the device's holder."""
        self._wanted.set()
        try:
            yield
        finally:
            self._wanted.clear()

    def _follow(self) -> None:
        with get_client(sync_client=True) as client:
            while not self._ended.is_set():
                self._wanted.wait()
                if not self._ended.is_set():
                    self._hold(client)

    def _hold(self, client: SyncPrefectClient) -> None:
        """Hold the slot until it is no longer wanted; it only shows something, so no failure here ends a run."""
        try:
            taken = client.increment_concurrency_slots_with_lease(
                [SLOT], 1, "concurrency", _LEASE_SECONDS, self._holder
            )
            lease = UUID(taken.json()["lease_id"])
        except (HTTPError, LookupError) as error:  # taken, not there, or no server
            _LOGGER.debug("the slot %r could not be taken: %s", SLOT, error)
            self._ended.wait(_LINGER_SECONDS)
            return
        try:
            self._keep(client, lease)
        finally:
            client.release_concurrency_slots_with_lease(lease)

    def _keep(self, client: SyncPrefectClient, lease: UUID) -> None:
        renewed = time.monotonic()
        while not self._ended.wait(_LINGER_SECONDS) and self._wanted.is_set():
            if time.monotonic() - renewed > _LEASE_SECONDS / 2:
                client.renew_concurrency_lease(lease, _LEASE_SECONDS)
                renewed = time.monotonic()
