"""4.4: leases of a raft store: never early, told when they end, never renewed by a deposed leader."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import atoll
import atoll.urls
from atoll import clock
from atoll.engines.raft import wire
from atoll.engines.raft.consensus import Consensus
from atoll.engines.raft.link import Broken, Link
from atoll.errors import LeaseOver, NotSent, OutcomeUnknown
from atoll.ports.store import put
from engines.raft_ways import another_leader, behind_doormen, until
from servers import server


async def line(address: str) -> Link:
    link = Link(address, lambda link, news: None)
    await link.connect("", None, 5)
    return link


async def test_a_deposed_leader_answers_no_keep_alive() -> None:
    """It is cut off from the others and still believes that it leads; its clients still reach it."""
    async with behind_doormen() as (cluster, doormen), atoll.urls.store(cluster.url) as store:
        assert store.leasing
        granted = await store.leasing.grant(30)
        first = await cluster.leader()
        link = await line(cluster.addresses[2 * first])
        try:
            before = await link.ask(wire.KeepAlive(granted.lease), 5, 5)
            assert isinstance(before, wire.Seconds) and before.seconds == 30
            doormen.cut(cluster, first)
            asked = [asyncio.create_task(_asked(link, granted.lease)) for _ in range(5)]
            await another_leader(cluster, first)
            asked += [asyncio.create_task(_asked(link, granted.lease)) for _ in range(5)]
            for answer in await asyncio.gather(*asked):
                assert not isinstance(answer, wire.Seconds), "it renewed a lease that it no longer counts"
            assert await store.leasing.keep_alive(granted.lease) == 30, "the new leader was not found"
            doormen.heal()
        finally:
            link.close()


async def _asked(link: Link, lease: str) -> Any:
    try:
        return await link.ask(wire.KeepAlive(lease), 2, 2)
    except (Broken, TimeoutError) as error:
        return error


async def test_a_leader_without_a_majority_renews_nothing() -> None:
    async with server("raft", nodes=3) as cluster, atoll.urls.store(f"{cluster.url}?ceiling_s=1") as store:
        assert store.leasing
        granted = await store.leasing.grant(30)
        first = await cluster.leader()
        others = [cluster.members[(first + n) % 3] for n in (1, 2)]
        for member in others:
            member.pause()
        with pytest.raises((NotSent, OutcomeUnknown)):
            await store.leasing.keep_alive(granted.lease)
        for member in others:
            member.resume()

        async def renewed() -> float:
            try:
                return await store.leasing.keep_alive(granted.lease)  # type: ignore[union-attr]
            except (NotSent, OutcomeUnknown):
                return 0

        assert await until(renewed, "they lead again") == 30


def test_a_leader_that_asks_nobody_would_renew_and_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of both: the same renewal without the question to the majority."""
    from atoll.engines.raft.lease_keeper import LeaseKeeper

    class Alone:
        """Believes that it leads, and is asked while nobody hears it."""

        name, leader, leader_place, term, is_leader = "a", "a", "", 3, True
        on_became: list[Any] = []
        on_applied: list[Any] = []

        class state:
            on_leases: list[Any] = []

            @staticmethod
            def leases() -> dict[str, float]:
                return {"mine": 30.0}

        async def read_barrier(self) -> None:
            raise NotSent("nobody answers")

    async def renew(keeper: Any) -> Any:
        try:
            return await keeper.renew("mine")
        except NotSent as error:
            return error

    async def both() -> tuple[Any, Any]:
        alone: Any = Alone()
        honest = await renew(LeaseKeeper(alone))

        async def nobody(self: Any) -> None:
            return None

        monkeypatch.setattr(Alone, "read_barrier", nobody)
        return honest, await renew(LeaseKeeper(alone))

    honest, careless = asyncio.run(both())
    assert isinstance(honest, NotSent) and careless == 30.0
    assert Consensus  # what stands in Alone's place


async def test_a_change_of_leader_ends_no_lease_early_and_ends_it_in_the_end() -> None:
    async with server("raft", nodes=3) as cluster, atoll.urls.store(cluster.url) as store:
        assert store.leasing
        asked = clock.lease_now()
        granted = await store.leasing.grant(2)
        await store.transact(put("mine", b"", lease=granted.lease))
        items = store.observe("mine")
        assert (await anext(items)).changed
        first = await cluster.leader()
        cluster.members[first].kill()
        await another_leader(cluster, first)
        async with asyncio.timeout(20):
            while not (await anext(items)).removed:
                pass
        assert clock.lease_now() - asked >= granted.ttl_s
        with pytest.raises(LeaseOver):
            await store.leasing.keep_alive(granted.lease)
        assert await store.leasing.remaining(granted.lease) is None
        with pytest.raises(LeaseOver):
            await store.transact(put("mine", b"", lease=granted.lease))


async def test_a_lease_renewed_at_each_new_leader_lives_on() -> None:
    async with server("raft", nodes=3) as cluster, atoll.urls.store(cluster.url) as store:
        assert store.leasing
        granted = await store.leasing.grant(3)
        await store.transact(put("mine", b"", lease=granted.lease))
        for _ in range(2):
            first = await cluster.leader()
            cluster.members[first].kill()
            assert await _renewed(store, granted.lease) == 3
            await cluster.members[first].restart()
        assert (await store.get("mine")).entry


async def _renewed(store: Any, lease: str) -> float:
    """As a session does: until it is answered, for as long as the lease lasts."""
    due = clock.loop_now() + 3
    while True:
        try:
            return float(await store.leasing.keep_alive(lease))
        except (NotSent, OutcomeUnknown):
            assert clock.loop_now() < due, "nobody renewed it in its time"


async def test_hundreds_of_leases_end_at_once_and_each_as_a_transaction(shared: Any) -> None:
    at = f"leases-{clock.unique_id()[:8]}/"
    async with atoll.urls.store(shared("raft", nodes=3).url) as store:
        assert store.leasing and store.history
        begin = await store.history.now()
        granted = await asyncio.gather(*(store.leasing.grant(1) for _ in range(300)))
        await asyncio.gather(
            *(
                store.transact(put(f"{at}{one.lease}-{n}", b"", lease=one.lease))
                for one in granted
                for n in (0, 1)
            )
        )
        ended = 0
        async with asyncio.timeout(30):
            async for change in store.history.changes(at, begin):
                if change.removed:
                    assert len(change.removed) == 2, "half a lease ended"
                    ended += 1
                    if ended == 300:
                        break
        assert (await store.range(at)).entries == ()
