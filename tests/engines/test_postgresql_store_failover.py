"""3.1: a primary dies. With its standby promoted, clients that know both go on; what was lost is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

import atoll.urls
from atoll import EpochChanged, EpochUncertain, Lock, NotApplied, NotSent, OutcomeUnknown, ReadOnly, deadline
from atoll.ports.register import Applied
from atoll.ports.store import Durable, Token, put
from atoll.verify.conformance_guard import Held
from atoll.verify.servers import postgresql
from atoll.verify.servers.cluster import Cluster
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
    found: dict[str, int] = {}
    start = "load/"
    while True:
        page = await store.range(start=start, end="load0", limit=1000)
        found |= {entry.key: entry.revision for entry in page.entries}
        if not page.more:
            return found
        start = page.entries[-1].key + "\0"


async def until_more(acknowledged: dict[str, int], than: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        while len(acknowledged) <= than:
            await asyncio.sleep(0.01)


async def fail_over(cluster: Cluster) -> None:
    """kill -9 the primary, promote the standby."""
    cluster.members[0].kill()
    await cluster.facts["promote"](1)


async def test_a_synchronous_standby_loses_nothing_that_was_acknowledged() -> None:
    async with server("postgresql", nodes=2, sync=True) as cluster:
        acknowledged: dict[str, int] = {}
        async with atoll.urls.store(cluster.url) as store:
            assert (await store.open()).durable is Durable.QUORUM
            async with writing(store, acknowledged):
                await until_more(acknowledged, 50)
                await fail_over(cluster)
                before = len(acknowledged)
                await until_more(acknowledged, before + 50)
            found = await there(store)
            assert {key: found.get(key) for key in acknowledged} == acknowledged
            assert (await store.open()).durable is Durable.NODE, "the new primary has no standby"


async def test_after_a_promotion_exclusive_use_is_refused_until_somebody_bumps() -> None:
    async with server("postgresql", nodes=2) as cluster:
        async with atoll.urls.store(cluster.url) as store, atoll.urls.store(cluster.url) as other:
            epoch = await store.epoch()
            async with Lock(store, "warm", ttl_s=60):
                pass
            assert store.leasing is not None and store.moving is not None
            lease = await store.leasing.grant(60)
            owner = (await store.transact(put("owner", b"{}"))).revision
            held = Held("owner", Token(epoch, owner))
            await postgresql.ask(cluster.facts["ports"][0], "SELECT pg_current_wal_lsn()")
            await _caught_up(cluster)
            await fail_over(cluster)
            assert isinstance(await at_last(lambda: store.transact(put("free", b""))), Applied)
            for call in (
                lambda: store.epoch(),
                lambda: store.leasing.grant(5),
                lambda: store.leasing.keep_alive(lease.lease),
                lambda: store.transact(put("k", b""), guard=held),
                lambda: store.transact(put("k", b"", lease=lease.lease)),
                lambda: other.epoch(),
            ):
                with pytest.raises(EpochUncertain, match=r"timeline was 1 and is 2.*atoll store bump"):
                    await at_last(call)
            with pytest.raises(EpochUncertain):
                async with Lock(other, "new"):
                    pass
            assert await store.moving.bump() == epoch + 1
            async with Lock(other, "new") as mine:
                assert mine.token.epoch == epoch + 1


async def _caught_up(cluster: Cluster) -> None:
    """Until the standby has all that the primary has written."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            rows = await postgresql.ask(
                cluster.facts["ports"][0],
                "SELECT 1 FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()",
            )
            if rows:
                return
            await asyncio.sleep(0.02)


async def _cut_off(cluster: Cluster) -> None:
    """The standby follows nobody any more."""
    first, second = cluster.facts["ports"]
    await postgresql.ask(second, "ALTER SYSTEM SET primary_conninfo = ''")
    await postgresql.ask(second, "SELECT pg_reload_conf()")
    async with asyncio.timeout(WITHIN_S):
        while await postgresql.ask(first, "SELECT 1 FROM pg_stat_replication"):
            await asyncio.sleep(0.02)


async def test_an_asynchronous_standby_forgets_and_no_lock_is_given_twice() -> None:
    """The standby is cut off while a lock is taken on the primary; then it is promoted without it."""
    async with server("postgresql", nodes=2) as cluster:
        async with atoll.urls.store(cluster.url) as holder, atoll.urls.store(cluster.url) as rival:
            async with Lock(holder, "warm", ttl_s=60):
                pass
            async with Lock(rival, "warm", ttl_s=60):
                pass
            await _caught_up(cluster)
            await _cut_off(cluster)
            async with Lock(holder, "bill", ttl_s=60) as held:
                await holder.transact(put("seen", b""), guard=held)
                cluster.members[0].kill()
                await cluster.facts["promote"](1)
                assert (await at_last(lambda: rival.get("seen"))).entry is None, "nothing was lost: no test"
                with pytest.raises(EpochUncertain):
                    async with Lock(rival, "bill", ttl_s=60):
                        raise AssertionError("two hold the lock")
                with pytest.raises(EpochUncertain):
                    await at_last(lambda: holder.transact(put("late", b""), guard=held))


async def test_an_old_primary_that_comes_back_is_not_used_again() -> None:
    async with server("postgresql", nodes=2) as cluster:
        async with atoll.urls.store(cluster.url) as store:
            await store.transact(put("a", b""))
            await _caught_up(cluster)
            await fail_over(cluster)
            await at_last(lambda: store.transact(put("b", b"")))
            await cluster.members[0].start()
            cluster.members[1].kill()
            with pytest.raises(NotSent, match="was replaced by a primary on timeline 2"), deadline(5):
                await _answered(store)


async def _answered(store: Any) -> None:
    while True:
        with suppress(OutcomeUnknown):
            await store.get("b")
            return


async def test_a_standby_alone_is_refused_with_what_to_write() -> None:
    async with server("postgresql", nodes=2) as cluster:
        alone = f"postgresql://postgres@{cluster.addresses[1]}/postgres"
        store = atoll.urls.store(alone)
        with pytest.raises(ReadOnly, match=r"is a standby.*Name the primary"):
            await store.get("k")
        for kind in ("psycopg_pool", "asyncpg"):
            from postgresql_ways import handed

            async with handed(kind, alone) as given:
                with pytest.raises(ReadOnly, match="leads to a standby"):
                    await given.get("k")


async def test_a_killed_primary_that_comes_back_has_all_that_was_acknowledged() -> None:
    async with server("postgresql") as cluster:
        acknowledged: dict[str, int] = {}
        async with atoll.urls.store(cluster.url) as store:
            epoch = await store.epoch()
            async with writing(store, acknowledged):
                for _ in range(2):
                    before = len(acknowledged)
                    await until_more(acknowledged, before + 50)
                    cluster.members[0].kill()
                    await cluster.members[0].start()
                await until_more(acknowledged, len(acknowledged) + 50)
            found = await there(store)
            assert {key: found.get(key) for key in acknowledged} == acknowledged
            assert await store.epoch() == epoch, "a restart is no new life"
            assert len(set(found.values())) == len(found), "one revision names two transactions"


async def test_what_a_killed_server_did_not_answer_is_not_known() -> None:
    """The negative control of the load above: some calls were on their way when the server died."""
    async with server("postgresql") as cluster:
        async with atoll.urls.store(cluster.url) as store:
            await store.transact(put("k", b""))
            cluster.members[0].pause()
            calls = [
                asyncio.ensure_future(store.transact(put(f"k{n}", b""), request_id=f"r{n}")) for n in range(3)
            ]
            await asyncio.sleep(0.1)
            cluster.members[0].kill()
            results = await asyncio.gather(*calls, return_exceptions=True)
            unknown = [one for one in results if isinstance(one, OutcomeUnknown)]
            assert unknown and unknown[0].id == "r0"
            assert all(isinstance(one, OutcomeUnknown | NotSent) for one in results), results


async def test_a_watcher_starts_over_and_a_history_ends_when_another_life_answers() -> None:
    """The promoted standby gives the same numbers to other transactions: nobody may read on across that."""
    async with server("postgresql", nodes=2) as cluster:
        async with atoll.urls.store(f"{cluster.url}?poll_s=0.02") as store:
            assert store.history is not None and store.moving is not None
            await store.transact(put("w/both", b""))
            await _caught_up(cluster)
            await _cut_off(cluster)
            news, past = store.observe("w/"), store.history.changes("w/", await store.history.now())
            known = {entry.key for entry in (await anext(news)).changed}
            for number in range(5):
                await store.transact(put(f"w/lost{number}", b""))
                known |= {entry.key for entry in (await anext(news)).changed}
                await anext(past)
            assert len(known) == 6
            await fail_over(cluster)
            port = cluster.facts["ports"][1]
            async with atoll.urls.store(f"postgresql://postgres@127.0.0.1:{port}/postgres") as other:
                for number in range(8):
                    await other.transact(put(f"w/new{number}", b""))
            async with asyncio.timeout(WITHIN_S):
                while not (observation := await anext(news)).reset:
                    pass
                assert {entry.key for entry in observation.changed} == {
                    "w/both",
                    *(f"w/new{n}" for n in range(8)),
                }
                with pytest.raises(EpochChanged):
                    await anext(past)
            await store.transact(put("w/last", b""))
            async with asyncio.timeout(WITHIN_S):
                assert (await anext(news)).changed[0].key == "w/last", "it hears on"
            await news.aclose()  # type: ignore[attr-defined]
