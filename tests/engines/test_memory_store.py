"""The memory store: worlds and names, its knobs, and what a lost or cancelled call leaves behind."""

from __future__ import annotations

import asyncio
import contextvars
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import atoll.urls
from atoll import clock
from atoll.engines.memory import BrokerKnobs, MemoryStore, StoreKnobs, TierKnobs
from atoll.engines.memory.feed import FEED_MAX
from atoll.errors import (
    Compacted,
    ConfigurationError,
    EpochChanged,
    LeaseOver,
    NotSent,
    OutcomeUnknown,
    Refused,
    WatchLost,
)
from atoll.ports.register import Applied
from atoll.ports.store import Bookmark, Token, put
from atoll.verify import virtual_time


def store(**knobs: Any) -> MemoryStore:
    return MemoryStore(knobs=StoreKnobs(**knobs))


def leases(of: MemoryStore) -> Any:
    assert of.leasing is not None
    return of.leasing


async def test_each_nameless_handle_is_a_world_of_its_own() -> None:
    one, other = atoll.urls.store("memory://"), atoll.urls.store("memory://")
    await one.put_if("k", b"", 0)
    assert (await other.get("k")).entry is None


async def test_handles_of_one_name_share_a_world_and_its_news() -> None:
    name = clock.unique_id()
    one, other = atoll.urls.store(f"memory://{name}"), atoll.urls.store(f"memory://{name}?latency_s=0.001")
    items = other.observe("")
    assert (await anext(items)).reset
    await one.put_if("k", b"1", 0)
    assert (await anext(items)).changed[0].value == b"1"


async def test_handles_of_one_name_must_agree_on_what_they_share() -> None:
    name = clock.unique_id()
    await atoll.urls.store(f"memory://{name}?expiry_late_s=1").open()
    with pytest.raises(ConfigurationError, match="other options"):
        await atoll.urls.store(f"memory://{name}").open()


async def test_a_forked_child_has_an_empty_world_of_its_own() -> None:
    mine = store()
    await mine.put_if("k", b"", 0)
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if mine.world.get("k").entry is None else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (await mine.get("k")).entry is not None


def test_a_knob_misspelt_or_senseless_is_refused() -> None:
    for url in ("memory://?replyloss=1", "memory://?reply_loss=2", "memory://?operations_max=0"):
        with pytest.raises(ConfigurationError):
            atoll.urls.store(url)
    for knobs in ({"granted_ttl_factor": 0.0}, {"latency_s": -1.0}, {"ceiling_s": 0.0}):
        with pytest.raises(ConfigurationError):
            StoreKnobs(**knobs)


async def test_a_lost_reply_was_done_and_a_lost_request_was_not() -> None:
    name = clock.unique_id()
    sure = atoll.urls.store(f"memory://{name}")
    for loss, key in (("reply_loss=1", "done"), ("request_loss=1", "not done")):
        weak = atoll.urls.store(f"memory://{name}?{loss}")
        with pytest.raises(OutcomeUnknown) as unknown:
            await weak.transact(put(key, b""), request_id=f"id of {key}")
        assert unknown.value.id == f"id of {key}"
    assert (await sure.get("done")).entry is not None
    assert (await sure.get("not done")).entry is None
    again = await sure.transact(put("done", b""), request_id="id of done")
    assert isinstance(again, Applied) and again.replayed


async def test_losses_come_as_often_as_asked() -> None:
    weak = store(reply_loss=0.2, request_loss=0.2)
    answers = await asyncio.gather(*(weak.put_if(f"{n}", b"", 0) for n in range(300)), return_exceptions=True)
    lost = sum(isinstance(answer, OutcomeUnknown) for answer in answers)
    done = len(weak.world.entries)
    assert 50 < lost < 170 and 300 - lost < done < 290


async def test_a_past_deadline_is_not_sent() -> None:
    mine = store()
    with clock.deadline(0.001):
        while clock.remaining_s(1) > 0:
            await asyncio.sleep(0.001)
        with pytest.raises(NotSent):
            await mine.put_if("k", b"", 0)
    assert (await mine.get("k")).entry is None


def test_a_deadline_met_on_the_way_is_unknown_and_it_may_happen_yet() -> None:
    async def body() -> None:
        slow = store(latency_s=2.0)
        started = clock.loop_now()
        with clock.deadline(0.5), pytest.raises(OutcomeUnknown):
            await slow.put_if("k", b"", 0)
        assert clock.loop_now() - started == pytest.approx(0.5)
        assert slow.world.get("k").entry is None
        await asyncio.sleep(1)
        assert slow.world.get("k").entry is not None

    virtual_time.run(body)


def test_a_cancelled_call_happens_all_the_same_once_it_is_sent() -> None:
    async def body() -> None:
        slow = store(latency_s=2.0)
        task = asyncio.create_task(slow.put_if("k", b"", 0))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert slow.world.get("k").entry is None
        await asyncio.sleep(1)
        assert slow.world.get("k").entry is not None

    virtual_time.run(body)


def test_a_lease_ends_to_the_moment_and_late_by_the_knob() -> None:
    async def body(late_s: float) -> None:
        mine = store(expiry_late_s=late_s)
        items = mine.observe("")
        await anext(items)
        lease = await leases(mine).grant(10)
        started = clock.loop_now()
        await mine.transact(put("k", b"", lease=lease.lease))
        assert (await anext(items)).changed
        assert (await anext(items)).removed == ("k",)
        assert clock.loop_now() - started == pytest.approx(10 + late_s, abs=0.01)

    virtual_time.run(lambda: body(0.0))
    virtual_time.run(lambda: body(3.0))


def test_a_lease_over_is_over_though_its_keys_still_stand() -> None:
    async def body() -> None:
        mine = store(expiry_late_s=5)
        lease = await leases(mine).grant(1)
        await mine.transact(put("k", b"", lease=lease.lease))
        await asyncio.sleep(2)
        assert (await mine.get("k")).entry is not None
        with pytest.raises(LeaseOver):
            await leases(mine).keep_alive(lease.lease)
        with pytest.raises(LeaseOver):
            await mine.transact(put("j", b"", lease=lease.lease))
        await asyncio.sleep(5)
        assert (await mine.get("k")).entry is None

    virtual_time.run(body)


def test_a_lease_may_be_granted_for_another_time_than_wished() -> None:
    async def body() -> None:
        assert (await leases(store(granted_ttl_factor=0.5)).grant(8)).ttl_s == 4
        assert (await leases(store(granted_ttl_factor=2)).grant(8)).ttl_s == 16
        assert (await leases(store(ttl_min_s=5)).grant(1)).ttl_s == 5
        odd = store(granted_ttl_factor=0.5)
        lease = await leases(odd).grant(8)
        await asyncio.sleep(3)
        assert await leases(odd).keep_alive(lease.lease) == 4

    virtual_time.run(body)


def test_hundred_leases_end_in_the_order_of_their_time() -> None:
    async def body() -> None:
        mine = store()
        for number in range(100):
            lease = await leases(mine).grant(1 + (number * 37 % 100) / 10)
            await mine.transact(put(f"{number:03}", b"", lease=lease.lease))
        await asyncio.sleep(20)
        ended = [change.removed[0] for change in mine.world.history if change.removed]
        assert ended == sorted(ended, key=lambda key: int(key) * 37 % 100)

    virtual_time.run(body)


async def test_the_timer_of_a_lease_knows_nothing_of_its_first_caller() -> None:
    secret: contextvars.ContextVar[str] = contextvars.ContextVar("secret")
    mine = store()

    async def caller() -> None:
        secret.set("mine")
        await leases(mine).grant(60)

    await asyncio.create_task(caller())
    assert secret not in mine.world.context
    assert len(mine.world.timers) == 1


async def test_coalesced_news_skips_what_was_short() -> None:
    mine = atoll.urls.store("memory://?observe=coalesced")
    items = mine.observe("")
    await anext(items)
    await mine.put_if("short", b"", 0)
    await mine.delete_if("short", 1)
    for number in range(5):
        await mine.transact(put("k", b"%d" % number))
    item = await anext(items)
    assert [entry.value for entry in item.changed] == [b"4"] and item.removed == ()


async def test_late_news_is_late_and_whole() -> None:
    mine = atoll.urls.store("memory://?observe_late_s=0.05&observe_reset=1")
    items = mine.observe("")
    await anext(items)
    await mine.put_if("a", b"", 0)
    waiting = asyncio.ensure_future(anext(items))
    await mine.put_if("b", b"", 0)
    assert not waiting.done()
    item = await waiting
    assert item.reset and len(item.changed) == 2


async def test_an_observer_far_behind_is_told_to_look_again() -> None:
    mine = store()
    items = mine.observe("")
    await anext(items)
    for number in range(FEED_MAX + 5):
        mine.world.apply([put(f"{number % 50}", b"%d" % number)])
    item = await anext(items)
    assert item.reset and len(item.changed) == 50


async def test_closing_ends_what_is_observed() -> None:
    mine = store()
    items = mine.observe("")
    await anext(items)
    await mine.close()
    with pytest.raises(WatchLost):
        await anext(items)
    assert not mine.world.feeds
    assert (await mine.get("k")).revision == 0


async def test_a_history_has_an_end_and_says_so() -> None:
    mine = store(history_max=5)
    assert mine.history is not None
    for number in range(12):
        await mine.transact(put("k", b"%d" % number))
    with pytest.raises(Compacted) as compacted:
        await anext(mine.history.changes("", Bookmark(1, 3)))
    assert compacted.value.oldest == 8
    first = await anext(mine.history.changes("", Bookmark(1, 7)))
    assert first.at.revision == 8


async def test_a_long_silence_is_told_by_bookmarks() -> None:
    mine = store()
    assert mine.history is not None
    for _ in range(1500):
        mine.world.apply([put("other", b"")])
    first = await anext(mine.history.changes("mine", Bookmark(1, 0)))
    assert first.at.revision == 1000 and not first.changed and not first.removed


async def test_a_bump_makes_old_tokens_and_bookmarks_worthless() -> None:
    class Held:
        owner_key = "owner"
        token = Token(1, 1)

        def check(self) -> None:
            return None

    mine = store()
    assert mine.history is not None
    await mine.put_if("owner", b"", 0)
    await mine.transact(put("k", b""), guard=Held())
    bookmark = await mine.history.now()
    observed, changes = mine.observe(""), mine.history.changes("", bookmark)
    assert (await anext(observed)).reset
    reading = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    assert await mine.moving.bump() == 2 == await mine.epoch()
    with pytest.raises(Refused):
        await mine.transact(put("k", b"late"), guard=Held())
    assert (await anext(observed)).reset
    with pytest.raises(EpochChanged):
        await reading


async def test_a_refusal_names_the_holder() -> None:
    class Held:
        owner_key = "lock/a/owner"
        token = Token(1, 1)

        def check(self) -> None:
            return None

    mine = store()
    await mine.put_if("lock/a/owner", b'{"owner":"api-1","since":1.5,"nonce":"x"}', 0)
    await mine.transact(put("lock/a/owner", b'{"owner":"api-2, pid 812","since":2.5,"nonce":"y"}'))
    with pytest.raises(Refused, match=r"1:1, but api-2, pid 812 holds it with token 1:2"):
        await mine.transact(put("k", b""), guard=Held())


async def test_a_guard_that_knows_better_stops_before_sending() -> None:
    class Lost(Exception):
        pass

    class Held:
        owner_key = "owner"
        token = Token(1, 1)

        def check(self) -> None:
            raise Lost

    mine = store()
    with pytest.raises(Lost):
        await mine.transact(put("k", b""), guard=Held())
    assert mine.world.revision == 0


def test_a_request_is_forgotten_after_its_window_and_beyond_its_bound() -> None:
    async def body() -> None:
        mine = store(dedupe_window_s=10, dedupe_max=3)
        await mine.transact(put("k", b""), request_id="a")
        await asyncio.sleep(9)
        again = await mine.transact(put("k", b""), request_id="a")
        assert isinstance(again, Applied) and again.replayed
        await asyncio.sleep(2)
        late = await mine.transact(put("k", b""), request_id="a")
        assert isinstance(late, Applied) and not late.replayed
        for name in "bcd":
            await mine.transact(put("k", b""), request_id=name)
        assert list(mine.world.requests) == ["b", "c", "d"]

    virtual_time.run(body)


async def test_knobs_that_take_an_ability_away_leave_none() -> None:
    bare = atoll.urls.store("memory://?history=false&leasing=false")
    assert bare.history is None and bare.leasing is None
    assert (await atoll.urls.store("memory://?forgets_at_failover=true").open()).forgets_at_failover


async def test_every_knob_says_what_it_makes_weird() -> None:

    page = (Path(__file__).parents[2] / "docs/reference/memory.md").read_text()
    for kind in (StoreKnobs, BrokerKnobs, TierKnobs):
        for knob in fields(kind):
            assert knob.metadata["weird"]
            assert f"`{knob.name}`" in page, f"{knob.name} is not on the page"
