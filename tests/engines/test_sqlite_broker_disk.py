"""The queue and the database on a disk that counts, fills up, or fails to force a write."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
from disk import Disk, integrity

from atoll import errors
from atoll.engines.sqlite.broker import BrokerOptions, SqliteBroker
from atoll.engines.sqlite.database import DatabaseOptions, SqliteDatabase
from atoll.ports.broker import Message, Settled


def message(id: str, size: int = 10) -> Message:
    return Message(id=id, body=b"x" * size)


async def test_a_put_a_take_and_an_acknowledgement_are_forced_once_each(tmp_path: Path) -> None:
    disk = Disk()
    async with SqliteBroker(tmp_path / "q.db", options=BrokerOptions(vfs=disk.name)) as broker:
        await broker.put("work", [message("warm")])
        counts = [disk.syncs]
        await broker.put("work", [message("1"), message("2")])
        counts.append(disk.syncs)
        taken = await broker.take("work", 3, lease_s=30)
        counts.append(disk.syncs)
        assert broker.leased is not None
        await broker.leased.extend("work", taken[0].receipt, 60)
        counts.append(disk.syncs)
        await broker.acknowledge("work", [t.receipt for t in taken])
        counts.append(disk.syncs)
        assert [b - a for a, b in itertools.pairwise(counts)] == [1, 1, 0, 1]
        assert await broker.take("work", 1, lease_s=30) == []
        assert disk.syncs == counts[-1]


async def test_64_workers_share_forced_writes(tmp_path: Path) -> None:
    disk = Disk()
    async with SqliteBroker(tmp_path / "q.db", options=BrokerOptions(vfs=disk.name)) as broker:
        before = disk.syncs

        async def work(number: int) -> None:
            await broker.put("work", [message(str(number))])
            (taken,) = await broker.take("work", 1, lease_s=30, wait_s=20)
            assert await broker.acknowledge("work", [taken.receipt]) == [Settled.ACKED]

        await asyncio.gather(*(work(n) for n in range(64)))
        assert disk.syncs - before < 64


async def test_a_full_disk_refuses_the_put_and_keeps_what_was_there(tmp_path: Path) -> None:
    disk = Disk()
    async with SqliteBroker(tmp_path / "q.db", options=BrokerOptions(vfs=disk.name)) as broker:
        await broker.put("work", [message("kept")])
        disk.full_after = 5000
        with pytest.raises(errors.DiskFull):
            await broker.put("work", [message("refused", 100_000)])
        disk.full_after = None
        taken = await broker.take("work", 5, lease_s=30)
        assert [t.message.id for t in taken] == ["kept"]
    assert integrity(tmp_path / "q.db") == "ok"


async def test_a_transaction_whose_commit_the_disk_refused_is_unknown_and_closes_the_file(
    tmp_path: Path,
) -> None:
    disk = Disk()
    database = SqliteDatabase(tmp_path / "shop.db", options=DatabaseOptions(vfs=disk.name))
    async with database.begin() as tx:
        await tx.execute("CREATE TABLE sale (what)")
    disk.fail_sync = True
    with pytest.raises(errors.OutcomeUnknown, match="may stand"):
        async with database.begin() as tx:
            await tx.execute("INSERT INTO sale VALUES ('unknown')")
    disk.fail_sync = False
    with pytest.raises(errors.NotSent, match="open the handle again"):
        async with database.begin():
            pass
    await database.close()
    async with database.begin() as tx:
        await tx.execute("INSERT INTO sale VALUES ('reopened')")
        assert ("reopened",) in await tx.execute("SELECT what FROM sale")
    await database.close()
    assert integrity(tmp_path / "shop.db") == "ok"


async def test_a_transaction_with_no_room_is_refused_and_the_next_one_goes_on(tmp_path: Path) -> None:
    disk = Disk()
    async with SqliteDatabase(tmp_path / "shop.db", options=DatabaseOptions(vfs=disk.name)) as database:
        async with database.begin() as tx:
            await tx.execute("CREATE TABLE sale (what)")
        disk.full_after = 5000
        with pytest.raises(errors.DiskFull):
            async with database.begin() as tx:
                await tx.execute("INSERT INTO sale VALUES (?)", (b"x" * 100_000,))
        disk.full_after = None
        async with database.begin() as tx:
            assert await tx.execute("SELECT count(*) FROM sale") == [(0,)]
            await tx.execute("INSERT INTO sale VALUES ('tea')")
    assert integrity(tmp_path / "shop.db") == "ok"
