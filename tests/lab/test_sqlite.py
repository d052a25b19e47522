"""The lab's server on SQLite: transactions wait for each other."""

import asyncio

import pytest
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from flows.lab.sqlite import PatientSqlite


async def count_and_add(config, session: AsyncSession, between=None) -> None:
    """A transaction as Prefect has many: it reads, and then it writes."""
    async with session, config.begin_transaction(session):
        (count,) = (await session.execute(text("SELECT count(*) FROM runs"))).one()
        if between:
            await between()
        await session.execute(text("INSERT INTO runs VALUES (:number)"), {"number": count})


async def two_at_once(config) -> list[int]:
    """What two such transactions leave, the second of which tries to do all of its work within the first."""
    engine = await config.engine()
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TABLE runs (number INTEGER)"))
    second = []

    async def let_the_second_go_first() -> None:
        second.append(asyncio.create_task(count_and_add(config, await config.session(engine))))
        await asyncio.wait(second, timeout=1)  # it cannot end where it waits for us

    await count_and_add(config, await config.session(engine), let_the_second_go_first)
    await second[0]
    async with await config.session(engine) as session:
        return [number for (number,) in await session.execute(text("SELECT number FROM runs ORDER BY number"))]


def test_two_transactions_that_read_and_write_at_once_both_succeed(tmp_path):
    url = f"sqlite+aiosqlite:///{tmp_path / 'patient.db'}"
    assert asyncio.run(two_at_once(PatientSqlite(connection_url=url))) == [0, 1]


def test_prefects_own_do_not(tmp_path):
    """So that we notice when Prefect needs this no longer."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'own.db'}"
    with pytest.raises(OperationalError, match="locked"):
        asyncio.run(two_at_once(AioSqliteConfiguration(connection_url=url)))
