"""An operator breaks a lock: the holder is stopped, its lease waited out, and it stands in the book."""

from __future__ import annotations

import asyncio
import logging

import pytest
from recipe_weather import LONG, WEAK, Judge, keys

import atoll
from atoll import ConfigurationError, Conflict, Election, Lock, LockLost, NotReady, Refused, Taken, Term, put
from atoll.blocks import break_lock, breaks
from atoll.blocks import breaking as breakings
from atoll.blocks import notice as notices
from atoll.blocks import session as sessions
from atoll.blocks.lock import holders
from atoll.ports.store import Store, Token
from atoll.testing import Duplicated, ReplyLost, RequestLost, World, simulated, through


def one_at_a_time() -> Judge:
    return Judge(lambda crowd: crowd["in"] <= 1)


async def hold(world: World, name: str, judge: Judge, tokens: list[Token], seconds: float = 3600) -> None:
    async with Lock(world.store(knobs=WEAK), "x", ttl_s=20, owner=name) as held:
        judge.enter(name)
        tokens.append(held.token)
        try:
            await asyncio.sleep(seconds)
        finally:
            judge.leave(name)


async def until_held(store: Store, owner: str) -> None:
    async with asyncio.timeout(120):
        while not [h for h in await holders(store) if h.owner == owner]:
            await asyncio.sleep(0.2)


@simulated(seeds=30 * LONG)
async def test_a_living_holder_is_stopped_before_the_next_one_has_it(world: World) -> None:
    """The next one is in line, the holder renews all the while; they never believe in it together."""
    store, judge, tokens = world.store(knobs=WEAK), one_at_a_time(), list[Token]()
    a = world.process("a").run(hold(world, "a", judge, tokens))
    await until_held(store, "a")
    b = world.process("b").run(hold(world, "b", judge, tokens, 1))
    await asyncio.sleep(1 + world.seed * 0.37)
    broken = await break_lock(store, "x", by="ann", reason="it hangs")
    assert broken.owner == "a" and broken.free_in_s >= 10
    with pytest.raises(LockLost, match="broken by ann: it hangs"):
        await a
    await b
    assert judge.order == ["a", "b"] and tokens[1] > tokens[0]


@simulated(seeds=20)
async def test_a_holder_that_cannot_be_told_is_waited_out_all_the_same(world: World) -> None:
    """It was cut off, or froze: its belief ends with its lease, and not before that the next one has it."""
    store, judge, tokens = world.store(knobs=WEAK), one_at_a_time(), list[Token]()
    a = world.process("a").run(hold(world, "a", judge, tokens))
    await until_held(store, "a")
    await asyncio.sleep(world.seed * 0.5)
    world.cut("a")
    await break_lock(store, "x", by="ann")
    await world.process("b").run(hold(world, "b", judge, tokens, 1))
    with pytest.raises(LockLost):
        await a
    assert judge.order == ["a", "b"]


@simulated(seeds=10)
async def test_now_lets_the_next_one_in_at_once_and_guards_refuse_the_old_one(world: World) -> None:
    store = world.store(knobs=WEAK)
    refused: list[str] = []

    async def old() -> None:
        mine = world.store()
        async with Lock(mine, "x", ttl_s=20, owner="a") as held:
            while True:
                try:
                    await mine.transact(put("done-by", b"a"), guard=held)
                except Refused as error:
                    refused.append(str(error))
                await asyncio.sleep(0.2)

    a = world.process("a").run(old())
    await until_held(store, "a")
    began = world.clock.loop_now()
    await break_lock(store, "x", by="ann", now=True)
    async with Lock(store, "x", owner="b", wait_s=5):
        assert world.clock.loop_now() - began < 1
        with pytest.raises(LockLost, match="broken by ann"):
            await a
    assert refused


@simulated(seeds=20)
async def test_a_holder_whose_taking_was_answered_late_never_believes_in_it_beside_the_next(
    world: World,
) -> None:
    """It was broken, and the renewals of its neighbour read so, before it even knew that it had it."""
    store, judge, tokens = world.store(knobs=WEAK), one_at_a_time(), list[Token]()
    late = asyncio.Event()

    async def old() -> None:
        mine = world.store()
        transact = mine.transact

        async def answered_late(*then: object, **options: object) -> object:
            answer = await transact(*then, **options)  # type: ignore[arg-type]
            if any(getattr(operation, "key", "") == "lock/x/owner" for operation in then):
                await late.wait()
            return answer

        async with Lock(mine, "steady", ttl_s=20):
            mine.transact = answered_late  # type: ignore[method-assign, assignment]
            try:
                await hold(world, "a", judge, tokens, 1)
            except LockLost:  # no renewal had read of it yet
                await hold(world, "a", judge, tokens, 1)

    a = world.process("a").run(old())
    await until_held(store, "a")
    await break_lock(store, "x", by="ann")
    b = world.process("b").run(hold(world, "b", judge, tokens, 3))
    await asyncio.sleep(1 + world.seed)
    late.set()
    await asyncio.gather(a, b)
    assert set(judge.order) == {"a", "b"} and tokens == sorted(tokens)


@simulated(seeds=5)
async def test_nobody_else_of_that_process_loses_anything(world: World) -> None:
    """All its locks hang on one lease: only the broken one goes."""
    store = world.store(knobs=WEAK)

    async def two() -> None:
        mine = world.store()
        async with Lock(mine, "steady", ttl_s=20) as steady:
            with pytest.raises(LockLost):
                async with Lock(mine, "x", ttl_s=20):
                    await asyncio.sleep(3600)
            await asyncio.sleep(60)
            steady.check()

    process = world.process("a").run(two())
    await asyncio.sleep(2)
    await break_lock(store, "x", by="ann")
    await process


async def test_who_when_and_why_is_kept_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    store = atoll.store("memory://")
    with caplog.at_level(logging.WARNING, "atoll.lock"):
        async with Lock(store, "order/81", owner="api-2"):
            first = await break_lock(store, "order/81", by="ann", reason="host is gone")
            second = await break_lock(store, "order/81", by="bob", now=True)
    assert [n.by for n in await breaks(store)] == ["ann", "bob"]
    assert (first.name, first.owner, first.reason, first.now) == ("order/81", "api-2", "host is gone", False)
    assert second.now and second.owner.startswith("broken by ann") and first.at > 1e9
    assert "order/81 was taken away from api-2 by ann: host is gone" in caplog.text
    assert await keys(store, "broken/") == ["broken/000000000001", "broken/000000000002"]


async def test_the_book_is_bounded_and_its_numbers_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakings, "NOTICES_MAX", 5)
    store = atoll.store("memory://")
    for n in range(9):
        async with Lock(store, "x"):
            await break_lock(store, "x", by=f"ann {n}", now=True)
    assert [n.by for n in await breaks(store)] == [f"ann {n}" for n in range(4, 9)]
    assert (await keys(store, "broken/"))[-1] == notices.notice_key(9)


async def test_while_it_is_waited_out_the_line_says_so() -> None:
    store = atoll.store("memory://")
    async with Lock(store, "x", owner="api-2", ttl_s=30):
        await break_lock(store, "x", by="ann")
        with pytest.raises(Taken, match="x is held by broken by ann, was api-2"):
            await asyncio.create_task(take(store))
        with pytest.raises(Conflict, match=r"broken by ann.*--now"):
            await break_lock(store, "x", by="bob")
        await break_lock(store, "x", by="bob", now=True)
        await asyncio.create_task(take(store))


async def take(store: Store) -> None:
    async with Lock(store, "x", wait_s=0):
        pass


async def test_what_nobody_holds_cannot_be_broken_and_who_breaks_has_a_name() -> None:
    store = atoll.store("memory://")
    with pytest.raises(NotReady, match="nobody holds x"):
        await break_lock(store, "x", by="ann")
    with pytest.raises(ConfigurationError, match="by='ann'"):
        await break_lock(store, "x", by="")


@simulated(seeds=5)
async def test_a_broken_leader_is_stopped_and_campaigns_again(world: World) -> None:
    store, terms = world.store(knobs=WEAK), []

    async def serve(term: Term) -> None:
        terms.append(term.token)
        if len(terms) == 1:
            await asyncio.sleep(3600)

    leading = world.process("a").run(Election(world.store(), "x", ttl_s=20).lead(serve))
    await asyncio.sleep(2)
    assert (await break_lock(store, "x", by="ann", kind="election")).kind == "election"
    await leading
    assert len(terms) == 2 and terms[1] > terms[0]


@pytest.mark.parametrize("fault", [ReplyLost, RequestLost, Duplicated])
async def test_a_break_whose_answer_is_lost_happens_once(fault: type) -> None:
    for verb in ("transact", "range", "get", "grant"):
        for nth in range(1, 4):
            store = atoll.store("memory://")
            async with Lock(store, "x", owner="api-2"):
                broken = await break_lock(through(store, fault(verb, nth=nth)), "x", by="ann")
                assert broken.owner == "api-2" and len(await breaks(store)) == 1, (verb, nth)


@simulated(seeds=30)
async def test_a_holder_that_does_not_read_the_book_is_caught(world: World) -> None:
    """Negative control: renewals that never look. Both believe to hold it, and the judge sees that."""
    store, judge = world.store(knobs=WEAK), Judge(lambda crowd: True)
    hear = sessions.Session._hear_of_breaks

    async def deaf(session: sessions.Session) -> None:
        return None

    sessions.Session._hear_of_breaks = deaf  # type: ignore[method-assign]
    try:
        world.process("a").run(hold(world, "a", judge, []))
        await until_held(store, "a")
        await break_lock(store, "x", by="ann")
        await world.process("b").run(hold(world, "b", judge, [], 1))
        assert judge.most == 2
    finally:
        sessions.Session._hear_of_breaks = hear  # type: ignore[method-assign]
