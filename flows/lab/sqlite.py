"""Prefect's use of SQLite, with a claim to write at the beginning of a transaction.

Prefect begins most of its transactions with a read. SQLite refuses such a one its first write at once, without any
waiting, when another one has written meanwhile, and the server answers 503: of 100 runs that 10 threads asked for, 12
were made. A transaction that claims to write when it begins waits for its turn instead, for up to a minute.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager

from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction


class PatientSqlite(AioSqliteConfiguration):
    """Transactions that wait for each other instead of failing."""

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = False
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        """Begin it, with the claim; what is begun inside of it, by tasks that it starts, is as Prefect has it."""
        async with session.begin() as transaction:
            with _begun("IMMEDIATE"):
                await session.connection()
            with _begun("DEFERRED"):
                yield transaction


@contextmanager
def _begun(mode: str) -> Iterator[None]:
    """Have SQLite's transactions begin in this mode."""
    token = SQLITE_BEGIN_MODE.set(mode)
    try:
        yield
    finally:
        SQLITE_BEGIN_MODE.reset(token)


def wait_for_turns() -> None:
    """Have this process's server use SQLite so; PostgreSQL needs no help."""
    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if url.startswith("sqlite"):
        set_database_config(PatientSqlite(connection_url=url))
