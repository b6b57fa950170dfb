"""3.6: a server that is killed, a replica that is promoted, a clock that jumps, a writer that is stopped."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
from mysql_ways import database

import atoll.urls
from atoll import (
    EpochChanged,
    EpochUncertain,
    Lock,
    LockLost,
    NotApplied,
    NotSent,
    OutcomeUnknown,
    ReadOnly,
    Refused,
    deadline,
)
from atoll.ports.register import Applied
from atoll.ports.store import Bookmark, Durable, Token, put
from atoll.verify.conformance_guard import Held
from atoll.verify.servers import mysql
from servers import server

WITHIN_S = 40


async def at_last(work: Any) -> Any:
    """What `work` answers once the servers do again."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                return await work()
            except (NotSent, OutcomeUnknown, ReadOnly):
                await asyncio.sleep(0.02)


@asynccontextmanager
async def writing(store: Any, acknowledged: dict[str, int]) -> AsyncIterator[None]:
    """Four writers who note what was acknowledged, and go on through every failure."""
    over = False

    async def write(name: int) -> None:
        number = 0
        while not over:
            number += 1
            key = f"load/{name}/{number:05d}"
            with suppress(NotApplied, OutcomeUnknown), deadline(2):
                answer = await store.transact(put(key, b""))
                acknowledged[key] = answer.revision

    tasks = [asyncio.create_task(write(name)) for name in range(4)]
    try:
        yield
    finally:
        over = True
        await asyncio.gather(*tasks)


async def there(store: Any) -> dict[str, int]:
    """Every key of the load, with the revision that wrote it."""
    found = await store.range("load/", limit=100_000)
    return {entry.key: entry.revision for entry in found.entries}


async def until_more(acknowledged: dict[str, int], than: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        while len(acknowledged) <= than:
            await asyncio.sleep(0.01)


async def test_kill_9_loses_nothing_that_was_acknowledged_and_no_revision_is_given_twice() -> None:
    async with server("mysql") as cluster, atoll.urls.store(cluster.url) as store:
        assert (await store.open()).durable is Durable.NODE
        acknowledged: dict[str, int] = {}
        lease = await store.leasing.grant(60)
        await store.transact(put("leased", b"", lease=lease.lease))
        async with writing(store, acknowledged):
            for _ in range(3):
                await until_more(acknowledged, len(acknowledged) + 40)
                cluster.members[0].kill()
                await cluster.members[0].restart()
            await until_more(acknowledged, len(acknowledged) + 40)
        found = await there(store)
        assert {key: found.get(key) for key in acknowledged} == acknowledged
        assert len(set(found.values())) == len(found), "one revision for two transactions"
        assert await store.epoch() == 1, "a restart is no other life of the data"
        assert await store.leasing.keep_alive(lease.lease) == 60


async def test_a_replica_takes_no_writes_and_is_not_read() -> None:
    async with server("mysql", nodes=2) as cluster:
        port = cluster.facts["ports"][1]
        for login in (f"{mysql.USER}:{mysql.PASSWORD}", "root:"):
            store = atoll.urls.store(f"mysql://{login}@127.0.0.1:{port}/{mysql.DATABASE}")
            with pytest.raises(ReadOnly, match="takes no writes"):
                await store.get("k")
        await mysql.ask(port, "SET GLOBAL read_only = 0")
        store = atoll.urls.store(f"mysql://root@127.0.0.1:{port}/{mysql.DATABASE}")
        with pytest.raises(ReadOnly, match="follows another server"):
            await store.get("k")
        await mysql.ask(port, "SET GLOBAL read_only = 1")
        async with atoll.urls.store(cluster.url.replace("@", "@127.0.0.1:1,")) as among:
            assert isinstance(await among.transact(put("k", b"")), Applied)


async def test_after_a_promotion_exclusive_use_is_refused_until_somebody_bumps() -> None:
    async with server("mysql", nodes=2) as cluster:
        async with atoll.urls.store(cluster.url) as store, atoll.urls.store(cluster.url) as other:
            epoch = await store.epoch()
            async with Lock(store, "warm", ttl_s=60):
                pass
            assert store.leasing and store.moving and store.history
            lease = await store.leasing.grant(60)
            owner = (await store.transact(put("owner", b"{}"))).revision
            held = Held("owner", Token(epoch, owner))
            mark = await store.history.now()
            await _copied(cluster, mark.revision)
            cluster.members[0].kill()
            await cluster.facts["promote"](1)
            assert isinstance(await at_last(lambda: store.transact(put("free", b""))), Applied)
            for call in (
                lambda: store.epoch(),
                lambda: store.leasing.grant(5),
                lambda: store.leasing.keep_alive(lease.lease),
                lambda: store.transact(put("k", b""), guard=held),
                lambda: store.transact(put("k", b"", lease=lease.lease)),
                lambda: other.epoch(),
            ):
                with pytest.raises(EpochUncertain, match="atoll store bump"):
                    await at_last(call)
            with pytest.raises(EpochChanged):
                await _first_change(store, mark)
            assert await store.moving.bump() == epoch + 1
            async with Lock(other, "new") as mine:
                assert mine.token.epoch == epoch + 1
            with pytest.raises(Refused):
                await store.transact(put("k", b""), guard=held)
            await cluster.members[0].restart()  # and would take writes again, were it asked
            cluster.members[1].kill()
            with deadline(3), pytest.raises(NotSent, match="was replaced"):
                await store.get("k")


async def _first_change(store: Any, after: Bookmark) -> None:
    async for _ in store.history.changes("", after):
        return


async def _copied(cluster: Any, revision: int) -> None:
    """Until the replica has it."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            question = "SELECT revision FROM atoll_counter"
            rows = await mysql.ask(cluster.facts["ports"][1], question, database=mysql.DATABASE)
            if rows and rows[0][0] >= revision:
                return
            await asyncio.sleep(0.02)


HOLDER = """
import asyncio, sys
import atoll.urls
from atoll import Lock
from atoll.ports.store import put

async def main():
    async with atoll.urls.store(sys.argv[1]) as store:
        async with Lock(store, "one", ttl_s=1.0) as held:
            print("held", held.token, flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            try:
                await store.transact(put("written", b"late"), guard=held)
                print("wrote", flush=True)
            except BaseException as error:
                print(type(error).__name__, flush=True)

try:
    asyncio.run(main())
except BaseException as error:
    print(type(error).__name__, flush=True)
"""


@contextmanager
def holder(url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock, and tries to write when it is told to."""
    words = [sys.executable, "-c", HOLDER, url]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


async def test_a_holder_that_was_stopped_past_its_lease_writes_nothing(shared: Any) -> None:
    url = await database(shared("mysql").facts["ports"][0])
    with holder(url) as child:
        assert child.stdin and child.stdout
        first = await asyncio.to_thread(child.stdout.readline)
        assert first.startswith("held"), first
        child.send_signal(signal.SIGSTOP)
        async with atoll.urls.store(url) as store:
            async with asyncio.timeout(WITHIN_S), Lock(store, "one", ttl_s=5) as mine:
                assert str(mine.token) != first.split()[1]
                child.send_signal(signal.SIGCONT)
                child.stdin.write("\n")
                child.stdin.flush()
                said = await asyncio.to_thread(child.stdout.readline)
                assert said.strip() in ("LockLost", "Refused", "LeaseOver", "CancelledError"), said
                await store.transact(put("written", b"mine"), guard=mine)
            entry = (await store.get("written")).entry
            assert entry is not None and entry.value == b"mine"


async def test_a_clock_set_forward_ends_leases_early_and_the_claims_say_so(shared: Any) -> None:
    """The weakness is real: `timestamp` moves what UTC_TIMESTAMP says, as a stepped clock does."""
    port = shared("mysql").facts["ports"][0]
    async with atoll.urls.store(f"{await database(port)}?connections_max=1") as store:
        assert not (await store.open()).never_early
        lease = await store.leasing.grant(3600)
        await store.transact(put("k", b"", lease=lease.lease))
        await store.ask("a step", ("SET timestamp=UNIX_TIMESTAMP()+7200",), commits=1)
        assert (await store.get("k")).entry is None
        with pytest.raises(NotApplied, match="no living lease"):
            await store.leasing.keep_alive(lease.lease)


async def test_a_silent_server_among_several_does_not_keep_the_others_from_being_asked(shared: Any) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    url = await database(shared("mysql").facts["ports"][0])
    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    mute = listening.sockets[0].getsockname()[1]
    async with atoll.urls.store(url.replace("@", f"@127.0.0.1:{mute},")) as store:
        with deadline(4):
            assert isinstance(await store.transact(put("k", b"")), Applied)
    listening.close()


async def test_the_end_of_a_lease_is_heard_by_those_who_wait(shared: Any) -> None:
    url = await database(shared("mysql").facts["ports"][0])
    async with atoll.urls.store(url) as store, atoll.urls.store(url) as other:
        async with asyncio.timeout(WITHIN_S):
            with suppress(LockLost):
                async with Lock(store, "one", ttl_s=30):
                    waiting = asyncio.ensure_future(Lock(other, "one").__aenter__())
                    await asyncio.sleep(0.3)
                    assert not waiting.done()
            await waiting
