"""The writer thread: one forced write for all who wait, a savepoint for each, and an honest deadline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest
from disk import Disk

from atoll import clock
from atoll.engines.sqlite.file import SqliteFile, SqliteOptions
from atoll.engines.sqlite.lane import Work
from atoll.engines.sqlite.limits import StoreOptions
from atoll.engines.sqlite.store import SqliteStore
from atoll.engines.sqlite.turnstile import Turnstile
from atoll.engines.sqlite.writer import Writer
from atoll.errors import NotSent, OutcomeUnknown, Overloaded
from atoll.ports.store import absent, delete, put


@asynccontextmanager
async def opened(path: Path, options: SqliteOptions | None = None) -> AsyncIterator[SqliteFile]:
    file = SqliteFile.shared(str(path / "x.db"), options)
    try:
        await file.write(lambda c: c.execute("CREATE TABLE IF NOT EXISTS t (k PRIMARY KEY)") and None)
        yield file
    finally:
        await file.release()


def insert(key: object) -> Work[None]:
    def work(connection: apsw.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (?)", (key,))

    return work


async def keys(file: SqliteFile) -> set[object]:
    return await file.read(lambda c: {row[0] for row in c.execute("SELECT k FROM t")})


@asynccontextmanager
async def counted(path: Path) -> AsyncIterator[tuple[SqliteStore, Disk]]:
    disk = Disk()
    async with SqliteStore(str(path / "x.db"), options=StoreOptions(vfs=disk.name)) as store:
        for number in range(3):
            await store.transact(put("warm", b"%d" % number))
        yield store, disk


async def test_a_lone_put_is_forced_once(tmp_path: Path) -> None:
    async with counted(tmp_path) as (store, disk):
        before = disk.syncs
        for number in range(10):
            await store.transact(put("k", b"%d" % number))
        assert disk.syncs - before == 10


async def test_64_callers_share_a_few_forced_writes(tmp_path: Path) -> None:
    async with counted(tmp_path) as (store, disk):
        before = disk.syncs
        await asyncio.gather(*(store.transact(put(f"k{n}", b"x")) for n in range(64)))
        assert disk.syncs - before <= 8


async def test_a_renewal_is_never_forced(tmp_path: Path) -> None:
    async with counted(tmp_path) as (store, disk):
        assert store.leasing
        before = disk.syncs
        lease, _ = await store.leasing.grant(10)
        for _ in range(10):
            await store.leasing.keep_alive(lease)
        assert disk.syncs == before


async def test_an_uncontended_lock_is_forced_once_to_take_and_once_to_leave(tmp_path: Path) -> None:
    async with counted(tmp_path) as (store, disk):
        assert store.leasing
        before = disk.syncs
        lease, _ = await store.leasing.grant(10)
        await store.transact(put("lock", b"me", lease=lease), compare=[absent("lock"), absent("line")])
        assert disk.syncs - before == 1
        await store.transact(delete("lock"))
        assert disk.syncs - before == 2


async def test_a_question_is_never_forced(tmp_path: Path) -> None:
    async with counted(tmp_path) as (store, disk):
        before = disk.syncs
        await store.transact(put("warm", b"?"), compare=[absent("warm")])
        await store.get("warm")
        await store.range("")
        assert disk.syncs == before


async def test_an_error_undoes_only_its_own_caller(tmp_path: Path) -> None:
    async with opened(tmp_path) as file:

        def half(connection: apsw.Connection) -> None:
            connection.execute("INSERT INTO t VALUES ('half')")
            raise KeyError("mine")

        calls = [file.write(insert(n)) for n in range(5)] + [file.write(half), file.write(insert(3))]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(a) for a in answers] == [type(None)] * 5 + [KeyError, apsw.ConstraintError]
        assert await keys(file) == {0, 1, 2, 3, 4}


async def test_who_throws_the_whole_transaction_away_takes_nobody_along(tmp_path: Path) -> None:
    async with opened(tmp_path) as file:
        await file.write(
            lambda c: (
                c.execute(
                    "CREATE TRIGGER bang BEFORE INSERT ON t WHEN new.k = 'bang' "
                    "BEGIN SELECT RAISE(ROLLBACK, 'b'); END"
                )
                and None
            )
        )
        calls = [file.write(insert(k)) for k in (1, 2, "bang", 3, 4)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(answers[2], apsw.ConstraintError)
        assert [a for n, a in enumerate(answers) if n != 2] == [None] * 4
        assert await keys(file) == {1, 2, 3, 4}


async def test_without_a_turn_in_time_nothing_was_written(tmp_path: Path) -> None:
    async with opened(tmp_path) as file:
        other = Turnstile(file.path)
        other.acquire()
        try:
            with pytest.raises(NotSent, match="nothing was written"):
                await file.write(insert("late"), ceiling_s=0.1)
            with pytest.raises(NotSent), clock.deadline(0.1):
                await file.write(insert("later"))
        finally:
            other.release()
            other.close()
        await file.write(insert("then"))
        assert await keys(file) == {"then"}


async def test_a_strangers_lock_is_waited_for_and_named(tmp_path: Path) -> None:
    async with opened(tmp_path) as file:
        stranger = apsw.Connection(file.path)
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(NotSent):
            await file.write(insert("late"), ceiling_s=0.2)
        stranger.execute("COMMIT")
        stranger.close()
        await file.write(insert("then"))
        assert await keys(file) == {"then"}


async def test_what_is_cancelled_in_the_line_is_dropped(tmp_path: Path) -> None:
    async with opened(tmp_path) as file:
        async with file.turn():
            call = asyncio.create_task(file.write(insert("dropped")))
            await asyncio.sleep(0.02)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        await file.write(insert("then"))
        assert await keys(file) == {"then"}


async def test_what_was_begun_and_not_answered_is_unknown(tmp_path: Path) -> None:
    async with opened(tmp_path) as file:
        going, gate = threading.Event(), threading.Event()

        def slow(connection: apsw.Connection) -> None:
            going.set()
            connection.execute("INSERT INTO t VALUES ('slow')")
            gate.wait(20)

        with pytest.raises(OutcomeUnknown, match="may stand"):
            await file.write(slow, ceiling_s=0.1)
        assert going.is_set()
        gate.set()
        await file.write(insert("then"))
        assert await keys(file) == {"slow", "then"}


async def test_a_full_queue_refuses(tmp_path: Path) -> None:
    async with opened(tmp_path, SqliteOptions(queue_max=5)) as file:
        async with file.turn():
            calls = [asyncio.create_task(file.write(insert(n))) for n in range(20)]
            await asyncio.sleep(0.02)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refused = [a for a in answers if isinstance(a, Overloaded)]
        assert refused and len(await keys(file)) == 20 - len(refused)


async def test_callers_on_several_loops_are_each_answered(tmp_path: Path) -> None:
    async with opened(tmp_path) as file:

        def elsewhere(name: str) -> None:
            async def many() -> None:
                await asyncio.gather(*(file.write(insert(f"{name}{n}")) for n in range(50)))

            asyncio.run(many())

        await asyncio.gather(*(asyncio.to_thread(elsewhere, name) for name in "abcd"))
        assert len(await keys(file)) == 200


async def test_handles_of_one_process_share_the_file(tmp_path: Path) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as other:
        assert one is other
    async with opened(tmp_path) as again:
        assert again is not one


async def test_news_between_the_look_and_the_wait_is_not_slept_through(tmp_path: Path) -> None:
    async with opened(tmp_path) as file:
        for number in range(50):
            seen = file.version
            await file.write(insert(number))
            assert await file.changed(seen, 5) != seen


async def test_the_turn_is_given_back_by_who_gave_up_waiting(tmp_path: Path) -> None:
    async with opened(tmp_path) as file:
        async with file.turn():
            with pytest.raises(NotSent, match="turn"):
                async with file.turn(0.05):
                    pass
        for _ in range(3):
            async with file.turn(5):
                pass
        await file.write(insert(1))


async def test_the_turn_is_never_lost_between_who_waits_and_who_leaves(tmp_path: Path) -> None:
    async with opened(tmp_path) as file:
        for number in range(60):
            async with file.turn():
                leaving = [asyncio.create_task(_take(file, 0.001 + number / 20_000)) for _ in range(3)]
                await asyncio.sleep(0.001)
            await asyncio.gather(*leaving, return_exceptions=True)
        async with file.turn(5):
            pass


async def _take(file: SqliteFile, ceiling_s: float) -> None:
    async with file.turn(ceiling_s):
        pass


async def test_a_stumble_of_the_writer_is_told_and_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as file:

        def stumble(self: Writer) -> None:
            raise RuntimeError("a bug of ours, after the commit")

        with monkeypatch.context() as patch:
            patch.setattr(Writer, "_checkpoint_when_long", stumble)
            with pytest.raises(OutcomeUnknown, match="a bug of ours"):
                await file.write(insert("stands"))
        await file.write(insert("then"))
        assert await keys(file) == {"stands", "then"}


async def test_a_closed_file_takes_nothing_more(tmp_path: Path) -> None:
    async with opened(tmp_path) as file:
        pass
    with pytest.raises(NotSent, match="closed"):
        await file.write(insert("late"))


async def test_the_log_beside_the_file_stays_bounded(tmp_path: Path) -> None:
    async with counted(tmp_path) as (store, _):
        for number in range(300):
            await store.transact(put(f"big{number % 7}", b"x" * 100_000))
        assert (tmp_path / "x.db-wal").stat().st_size < 12 << 20
    assert not (tmp_path / "x.db-wal").exists() or (tmp_path / "x.db-wal").stat().st_size == 0
