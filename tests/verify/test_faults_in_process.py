"""A6: faults by hand, a coroutine cancelled at every await, and the broken recipes they catch."""

from __future__ import annotations

import asyncio

import pytest

from atoll import clock
from atoll.engines.memory import MemoryBroker, MemoryStore, MemoryTier
from atoll.errors import ConfigurationError, NotSent, OutcomeUnknown
from atoll.ports.broker import Message
from atoll.ports.store import put
from atoll.verify.faults_in_process import (
    Duplicated,
    HalfOpen,
    ReplyLost,
    RequestLost,
    cancel_at_every_await,
    through,
)


async def test_each_fault_breaks_the_call_it_counts_to() -> None:
    inner = MemoryStore()
    store = through(inner, ReplyLost("transact", nth=2))
    await store.transact(put("k", b"1"))
    with pytest.raises(OutcomeUnknown):
        await store.transact(put("k", b"2"))
    await store.transact(put("k", b"3"))
    assert (await inner.get("k")).revision == 3

    lost = through(inner, RequestLost("transact"))
    with pytest.raises(OutcomeUnknown):
        await lost.transact(put("k", b"4"))
    assert (await inner.get("k")).revision == 3

    await through(inner, Duplicated("transact")).transact(put("k", b"5"))
    assert (await inner.get("k")).revision == 5

    silent = through(inner, HalfOpen("get"))
    with clock.deadline(0.02), pytest.raises(OutcomeUnknown):
        await silent.get("k")


async def test_any_port_can_be_wrapped_and_nothing_else() -> None:
    broker = through(MemoryBroker(), ReplyLost("put"))
    with pytest.raises(OutcomeUnknown):
        await broker.put("q", [Message(id="1", body=b"")])
    tier = through(MemoryTier(), RequestLost("get_many"))
    with pytest.raises(OutcomeUnknown):
        await tier.get_many(["a"])
    with pytest.raises(ConfigurationError, match="a store, a broker, a tier or a database"):
        through(object(), ReplyLost("put"))


async def test_a_coroutine_is_cancelled_at_each_of_its_awaits_in_turn() -> None:
    reached = list[int]()

    async def steps() -> None:
        at = 0
        try:
            for step in range(4):
                at = step
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            reached.append(at)
            raise

    assert await cancel_at_every_await(steps) == 4
    assert reached == [0, 1, 2, 3]


async def test_awaits_inside_awaits_and_real_waits_are_counted() -> None:
    async def inner() -> None:
        await asyncio.sleep(0.001)
        await asyncio.gather(asyncio.sleep(0.001), asyncio.sleep(0))

    async def outer() -> None:
        await inner()
        await asyncio.wait_for(inner(), 5)

    assert await cancel_at_every_await(outer) >= 3


class Guarded:
    """A thing to hold. Released in `finally`, or, broken, only when all goes well."""

    def __init__(self, broken: bool) -> None:
        self.broken, self.held = broken, False

    async def use(self) -> None:
        self.held = True
        if self.broken:
            await asyncio.sleep(0)
            self.held = False
            return
        try:
            await asyncio.sleep(0)
        finally:
            self.held = False


async def test_a_recipe_that_leaks_when_it_is_cancelled_is_caught() -> None:
    for broken in (False, True):
        thing = Guarded(broken)

        async def check(thing: Guarded = thing) -> None:
            assert not thing.held

        if broken:
            with pytest.raises(AssertionError) as raised:
                await cancel_at_every_await(thing.use, check)
            assert raised.value.__notes__ == ["cancelled at await 1"]
        else:
            assert await cancel_at_every_await(thing.use, check) == 1


async def test_atolls_own_errors_may_end_a_cancelled_run_and_others_may_not() -> None:
    async def unknown() -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise OutcomeUnknown("it was sent") from None

    async def clumsy() -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise KeyError("lost") from None

    async def broken() -> None:
        raise NotSent("always")

    assert await cancel_at_every_await(unknown) == 1
    with pytest.raises(KeyError):
        await cancel_at_every_await(clumsy)
    with pytest.raises(NotSent):
        await cancel_at_every_await(broken)


async def test_a_coroutine_without_end_is_given_up() -> None:
    async def endless() -> None:
        while True:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                raise

    with pytest.raises(AssertionError, match="still awaiting after 25"):
        await cancel_at_every_await(endless, most=25)
