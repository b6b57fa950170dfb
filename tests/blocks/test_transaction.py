"""One change over two databases happens everywhere or nowhere, and every error says which."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import atoll
from atoll import ConfigurationError, Conflict, NotApplied, OutcomeUnknown, Transactions
from atoll.blocks import decision
from atoll.blocks import transaction as block
from atoll.ports.joined import Database
from atoll.ports.observer import Event, TransactionDecided, subscribe
from atoll.ports.participant import Outcome
from atoll.ports.store import Store
from atoll.verify.faults import FaultDoor, Point, through


@dataclass
class Shop:
    """Two files with a row each, a state store, and who hears what happens."""

    state: Any
    orders: Any
    stock: Any
    moves: Transactions

    async def amounts(self) -> tuple[int, int]:
        found = []
        for database in (self.orders, self.stock):
            async with database.read() as db:
                found.append((await db.execute("SELECT n FROM row WHERE id = 'x'"))[0][0])
        return found[0], found[1]

    async def move(self, tx: Any) -> None:
        a, b = await tx.join(self.orders), await tx.join(self.stock)
        await a.execute("UPDATE row SET n = n - 1 WHERE id = 'x'")
        await b.execute("UPDATE row SET n = n + 1 WHERE id = 'x'")

    async def settled(self) -> None:
        """Recover until nothing waits."""
        async with asyncio.timeout(20):
            while await self.moves.in_doubt():
                await self.moves._recovery.round()
                await asyncio.sleep(0.02)


@asynccontextmanager
async def shop(
    folder: Path, wrap: Callable[[str, Any], Any] = lambda _, port: port, **words: Any
) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        state = wrap("state", atoll.store(f"sqlite:///{folder}/state.db"))
        orders, stock = (wrap(n, atoll.database(f"sqlite:///{folder}/{n}.db")) for n in ("orders", "stock"))
        for handle in (state, orders, stock):
            await stack.enter_async_context(handle)
        for database in (orders, stock):
            async with database.begin() as db:
                await db.execute("CREATE TABLE IF NOT EXISTS row(id TEXT PRIMARY KEY, n INTEGER NOT NULL)")
                await db.execute("INSERT OR IGNORE INTO row VALUES ('x', 0)")
        yield Shop(state, orders, stock, Transactions(state, orders, stock, **{"grace_s": 0.5, **words}))


@asynccontextmanager
async def faulty(folder: Path, **points: str) -> AsyncIterator[Shop]:
    """The same, with faults in the doorways: state="reply_lost=transact~transaction/:1"."""

    def wrap(name: str, port: Any) -> Any:
        if name not in points:
            return port
        action, _, rest = points[name].partition("=")
        rest, _, nth = rest.partition(":")
        verb, _, prefix = rest.partition("~")
        return through(port, FaultDoor([Point(action=action, verb=verb, prefix=prefix, nth=int(nth or 0))]))

    async with shop(folder, wrap) as found:
        yield found


async def test_both_databases_follow(tmp_path: Path) -> None:
    heard: list[Event] = []
    stop = subscribe(heard.append)
    async with shop(tmp_path) as s:
        async with s.moves.begin() as tx:
            await s.move(tx)
            assert await s.moves.outcome(tx.id) is None
        assert await s.amounts() == (-1, 1)
        assert await s.moves.outcome(tx.id) is Outcome.COMMIT
        assert await s.moves.in_doubt() == []
    stop()
    assert [(e.outcome, e.by, e.databases) for e in heard if isinstance(e, TransactionDecided)] == [
        ("commit", "coordinator", ("orders", "stock"))
    ]


async def test_an_error_in_the_body_undoes_both(tmp_path: Path) -> None:
    async with shop(tmp_path) as s:
        with pytest.raises(ZeroDivisionError):
            async with s.moves.begin() as tx:
                await s.move(tx)
                1 / 0
        assert await s.amounts() == (0, 0)
        assert await s.moves.outcome(tx.id) is Outcome.ABORT
        await s.moves.run(s.move)
        assert await s.amounts() == (-1, 1)


async def test_a_cancelled_body_undoes_both_and_leaves_the_files_free(tmp_path: Path) -> None:
    async with shop(tmp_path) as s:

        async def slow() -> None:
            async with s.moves.begin() as tx:
                await s.move(tx)
                await asyncio.sleep(60)

        task = asyncio.create_task(slow())
        while not s.moves._presences.here().active:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await s.moves.run(s.move)
        assert await s.amounts() == (-1, 1)


@pytest.mark.parametrize("steps", range(0, 24, 2))
async def test_cancelled_anywhere_it_is_all_or_nothing(tmp_path: Path, steps: int) -> None:
    async with shop(tmp_path) as s:
        task = asyncio.create_task(s.moves.run(s.move))
        for _ in range(steps):
            await asyncio.sleep(0.0005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await s.settled()
        assert await s.amounts() in [(0, 0), (-1, 1)]
        await s.moves.run(s.move)


async def test_one_no_aborts_all(tmp_path: Path) -> None:
    async with shop(tmp_path) as s:
        async with s.stock.begin() as db:
            await db.execute("CREATE TABLE loose(x)")
        with pytest.raises(ConfigurationError, match="no primary key"):
            async with s.moves.begin() as tx:
                await s.move(tx)
                await (await tx.join(s.stock)).execute("INSERT INTO loose VALUES (1)")
        assert await s.amounts() == (0, 0)
        await s.moves.run(s.move)
        assert await s.amounts() == (-1, 1)


async def test_who_only_read_is_not_held(tmp_path: Path) -> None:
    async with shop(tmp_path) as s:
        async with s.moves.begin() as tx:
            await (await tx.join(s.orders)).execute("SELECT * FROM row")
            await (await tx.join(s.stock)).execute("UPDATE row SET n = 5")
        record, _ = await decision.lookup(s.state, tx.id) or (None, 0)
        assert record is not None and record.databases == ("stock",)
        assert await s.amounts() == (0, 5)


async def test_twenty_at_once_all_arrive(tmp_path: Path) -> None:
    async with shop(tmp_path) as s:
        await asyncio.gather(*(s.moves.run(s.move, attempts=50) for _ in range(20)))
        assert await s.amounts() == (-20, 20)


async def test_crossed_orders_end_in_conflict_and_not_in_a_standstill(tmp_path: Path) -> None:
    def hasty(name: str, port: Any) -> Any:
        return port if name == "state" else atoll.database(f"sqlite:///{tmp_path}/{name}.db?wait_s=0.3")

    async with shop(tmp_path, hasty) as s:
        met = asyncio.Barrier(2)

        async def crossed(first: Database, second: Database) -> None:
            async with s.moves.begin() as tx:
                await (await tx.join(first)).execute("UPDATE row SET n = n + 1")
                await met.wait()
                await (await tx.join(second)).execute("UPDATE row SET n = n + 1")

        ends = await asyncio.gather(
            crossed(s.orders, s.stock), crossed(s.stock, s.orders), return_exceptions=True
        )
        assert [e for e in ends if isinstance(e, Conflict)]
        assert await s.amounts() in [(0, 0), (1, 1)]


async def test_a_lost_answer_to_the_decision_is_asked_again(tmp_path: Path) -> None:
    async with faulty(tmp_path, state="reply_lost=transact~transaction/:1") as s:
        await s.moves.run(s.move)
        assert await s.amounts() == (-1, 1)


async def test_a_decision_never_sent_is_a_plain_no(tmp_path: Path) -> None:
    async with faulty(tmp_path, state="not_sent=transact~transaction/") as s:
        with pytest.raises(NotApplied):
            await s.moves.run(s.move)
        assert await s.amounts() == (0, 0)
        assert await s.moves.in_doubt() == []


@pytest.mark.parametrize(("point", "ends"), [("reply_lost", (-1, 1)), ("request_lost", (0, 0))])
async def test_an_unknown_decision_is_said_and_recovery_settles_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, ends: tuple[int, int]
) -> None:
    monkeypatch.setattr(block, "CEILING_S", 0.3)
    async with faulty(tmp_path, state=f"{point}=transact~transaction/") as s:
        with pytest.raises(OutcomeUnknown, match="atoll transactions show") as unknown:
            await s.moves.run(s.move)
        assert unknown.value.id
        doubts = await s.moves.in_doubt()
        assert [d.databases for d in doubts] == [("orders", "stock")]
        assert "row(id='x')" in doubts[0].locks
    async with shop(tmp_path) as s:
        await s.settled()
        assert await s.amounts() == ends
        assert (await s.moves.outcome(unknown.value.id) is Outcome.COMMIT) is (ends == (-1, 1))


@pytest.mark.parametrize("name", ["orders", "stock"])
@pytest.mark.parametrize("point", ["reply_lost=prepare", "request_lost=prepare", "not_sent=prepare"])
async def test_a_vote_that_does_not_come_back_aborts_and_says_so(
    tmp_path: Path, name: str, point: str
) -> None:
    async with faulty(tmp_path, **{name: point}) as s:
        with pytest.raises(NotApplied):
            await s.moves.run(s.move)
        assert await s.amounts() == (0, 0)
        await s.settled()
        async with s.orders.begin() as db, s.stock.begin() as other:
            await db.execute("UPDATE row SET n = 3")
            await other.execute("UPDATE row SET n = 3")


async def test_a_phase_two_that_fails_is_not_the_callers_trouble(tmp_path: Path) -> None:
    async with faulty(tmp_path, stock="not_sent=finish-commit:1") as s:
        await s.moves.run(s.move)
        assert await s.amounts() == (-1, 1)


async def test_a_weak_store_is_refused_with_the_way_out(tmp_path: Path) -> None:
    moves = Transactions(atoll.store("memory://"), atoll.database(f"sqlite:///{tmp_path}/a.db"))
    with pytest.raises(ConfigurationError, match="durable store"):
        async with moves.begin():
            pass
    weak = Transactions(moves.state, *moves.databases.values(), best_effort=True)
    async with weak.begin() as tx:
        await tx.join(moves.databases["a"])


async def test_what_cannot_take_part_is_refused_with_the_way_out(tmp_path: Path) -> None:
    state: Store = atoll.store(f"sqlite:///{tmp_path}/s.db")
    a, b = atoll.database(f"sqlite:///{tmp_path}/a.db"), atoll.database(f"sqlite:///{tmp_path}/b.db")
    with pytest.raises(ConfigurationError, match="not one of the databases"):
        async with Transactions(state, a).begin() as tx:
            await tx.join(b)
    with pytest.raises(ConfigurationError, match="two databases are called"):
        Transactions(state, a, atoll.database(f"sqlite:///{tmp_path}/c.db", name="a"))
    with pytest.raises(ConfigurationError, match="app="):
        Transactions(state, a, app="a/b")
    with pytest.raises(ConfigurationError, match="CREATE TABLE cannot be part"):
        async with Transactions(state, a).begin() as tx:
            await (await tx.join(a)).execute("CREATE TABLE t(x)")
    for handle in (state, a, b):
        await handle.close()


async def test_a_deadline_bounds_the_whole(tmp_path: Path) -> None:
    async with faulty(tmp_path, state="request_lost=transact~transaction/") as s:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with atoll.deadline(0.5), pytest.raises(OutcomeUnknown):
            await s.moves.run(s.move)
        assert loop.time() - began < 10
