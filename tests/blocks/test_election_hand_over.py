"""A leader resigns, or hands over to a named candidate; the token rises, and nobody leads beside it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from recipe_weather import LONG, STORMS, WEAK, Judge, emptied, keys, until

import atoll
from atoll import Election, LeaderLost, NotReady, NotSent, OutcomeUnknown, Refused, Taken, Term, put
from atoll.ports.register import Applied
from atoll.ports.store import Operation, Put, Store, Token, delete
from atoll.sync import Election as SyncElection
from atoll.sync import Term as SyncTerm
from atoll.sync import store as sync_store
from atoll.testing import Duplicated, ReplyLost, RequestLost, World, simulated, through


class Stage:
    """Candidates on one store, each in a task; who led, in order."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.order: list[str] = []
        self.tokens: list[Token] = []
        self.terms: dict[str, Term] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def candidate(self, name: str, **options: float) -> None:
        async def serve(term: Term) -> None:
            self.order.append(name)
            self.tokens.append(term.token)
            self.terms[name] = term
            await asyncio.Event().wait()

        before = await self.waiting()
        self.tasks[name] = asyncio.create_task(Election(self.store, "x", owner=name).lead(serve))
        while name not in self.terms and await self.waiting() == before:
            await asyncio.sleep(0.001)

    async def waiting(self) -> int:
        leader = await Election(self.store, "x").leader()
        return leader.waiting if leader else 0

    async def end(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def test_the_named_candidate_leads_next_whatever_its_place() -> None:
    stage = Stage(atoll.store("memory://?observe=coalesced"))
    for name in ("a", "b", "c, pid 7", "d"):
        await stage.candidate(name)
    await stage.terms["a"].hand_over("c")
    await until(lambda: "c, pid 7" in stage.terms)
    await stage.terms["c, pid 7"].resign()
    await until(lambda: "b" in stage.terms)
    assert stage.order == ["a", "c, pid 7", "b"]
    assert stage.tokens == sorted(set(stage.tokens))
    await stage.end()
    assert await keys(stage.store, "election/x/queue/") == []


async def test_without_such_a_candidate_nothing_changes_and_the_waiting_are_named() -> None:
    stage = Stage(atoll.store("memory://"))
    await stage.candidate("a")
    with pytest.raises(NotReady, match=r"'z' does not wait to lead x; waiting: nobody"):
        await stage.terms["a"].hand_over("z")
    await stage.candidate("b")
    with pytest.raises(NotReady, match=r"waiting: b\. Nothing has changed"):
        await stage.terms["a"].hand_over("z")
    stage.terms["a"].check()
    await stage.end()


async def test_the_function_itself_steps_down_and_its_answer_comes_out() -> None:
    store = atoll.store("memory://")

    async def serve(term: Term) -> str:
        await term.resign()
        with pytest.raises(LeaderLost, match="was left"):
            term.check()
        with pytest.raises(LeaderLost):
            await store.transact(put("a", b""), guard=term)
        with pytest.raises(LeaderLost):
            await term.resign()
        assert await Election(store, "x").leader() is None
        return "done"

    assert await Election(store, "x").lead(serve) == "done"


async def test_asked_from_elsewhere_the_function_is_stopped_first_and_campaigns_again() -> None:
    stage, ended = Stage(atoll.store("memory://")), []
    await stage.candidate("a")
    await stage.candidate("b")
    term = stage.terms["a"]
    stage.tasks["a"].add_done_callback(ended.append)
    await term.resign()
    await until(lambda: "b" in stage.terms)
    with pytest.raises(LeaderLost, match="it resigned"):
        term.check()
    await stage.terms["b"].hand_over("a")
    await until(lambda: stage.order == ["a", "b", "a"])
    assert ended == [] and stage.tokens == sorted(set(stage.tokens))
    await stage.end()


async def test_an_old_term_is_refused_after_the_hand_over() -> None:
    store = atoll.store("memory://")
    stage = Stage(store)

    async def first(term: Term) -> None:
        await stage.candidate("b")
        await term.hand_over("b")
        await until(lambda: "b" in stage.terms)
        term.check = lambda: None  # type: ignore[method-assign]
        with pytest.raises(Refused):
            await store.transact(put("a", b""), guard=term)

    await Election(store, "x", owner="a").lead(first)
    await stage.end()


async def test_an_heir_that_dies_before_it_leads_is_passed_over() -> None:
    stage = Stage(atoll.store("memory://"))
    for name in ("a", "b", "c"):
        await stage.candidate(name)
    places = sorted((await stage.store.range("election/x/queue/")).entries, key=lambda e: e.create_revision)
    nonce = places[1].key.rpartition("/")[2]
    await stage.store.transact(
        delete(places[1].key), delete("election/x/owner"), put("election/x/heir", nonce.encode())
    )
    await until(lambda: "b" in stage.terms)
    assert await keys(stage.store, "election/x/heir") == []
    await stage.end()


@simulated(seeds=20)
async def test_an_heir_that_is_killed_is_waited_for_no_longer_than_its_lease(world: World) -> None:
    order: list[str] = []
    terms: dict[str, Term] = {}

    async def serve(term: Term, name: str) -> None:
        order.append(name)
        terms[name] = term
        if name == "a":
            await asyncio.sleep(5)
            world.process("c").freeze()
            await term.hand_over("c")
            return
        await asyncio.Event().wait()

    for name in ("a", "b", "c"):
        world.process(name).run(campaign(world, serve, name))
        await asyncio.sleep(0.7)
    async with asyncio.timeout(60):
        while "b" not in order:
            await asyncio.sleep(0.1)
    assert order == ["a", "b"]


async def campaign(world: World, serve: object, name: str) -> None:
    await Election(world.store(knobs=WEAK), "x", ttl_s=10, owner=name).lead(serve, name)  # type: ignore[arg-type]


@simulated(seeds=10)
async def test_a_candidate_whose_lease_is_taken_away_campaigns_on(world: World) -> None:
    """Also the one that was named: its place is gone, so the first in line leads, and it stands behind."""
    store, order = world.store(knobs=WEAK), list[str]()

    async def serve(term: Term, name: str) -> None:
        order.append(name)
        if name == "a":
            await asyncio.sleep(3)
            places = (await store.range("election/x/queue/")).entries
            last = max(places, key=lambda entry: entry.create_revision)
            assert store.leasing is not None and last.lease is not None
            await term.hand_over("c")
            await store.leasing.revoke(last.lease)

    tasks = []
    for name in ("a", "b", "c"):
        tasks.append(world.process(name).run(campaign(world, serve, name)))
        await asyncio.sleep(0.7)
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks)
    assert sorted(order) == ["a", "b", "c"]


@pytest.mark.parametrize("storm", STORMS)
def test_there_is_one_leader_at_a_time_and_always_one_again_when(storm: str) -> None:
    @simulated(seeds=8 * LONG, weather=STORMS[storm])
    async def run(world: World) -> None:
        judge, tokens = Judge(lambda crowd: crowd["in"] <= 1), list[Token]()
        handed = 0

        async def serve(term: Term, name: str, other: str) -> None:
            nonlocal handed
            judge.enter(name)
            assert not tokens or term.token > tokens[-1]
            tokens.append(term.token)
            try:
                await asyncio.sleep(0.05)
            finally:
                judge.leave(name)
            try:
                await term.hand_over(other)
                handed += 1
            except (NotReady, OutcomeUnknown, NotSent):
                await term.resign()

        async def run_for(name: str, other: str) -> None:
            for _ in range(8):
                try:
                    await Election(world.store(knobs=WEAK), "x", ttl_s=10, owner=name).lead(
                        serve, name, other
                    )
                except (LeaderLost, OutcomeUnknown, NotSent, Taken):
                    pass

        names = ["a", "b", "c", "d"]
        async with asyncio.timeout(600):
            await asyncio.gather(
                *[world.process(n).run(run_for(n, names[(at + 2) % 4])) for at, n in enumerate(names)]
            )
        assert judge.turns >= 20 and handed >= 1
        await emptied(world, "election/", but=["election/x/line", "election/x/heir"])

    run()


@pytest.mark.parametrize("fault", [ReplyLost, RequestLost, Duplicated])
async def test_a_hand_over_whose_answer_is_lost_happens_once(fault: type) -> None:
    for verb in ("transact", "range"):
        for nth in range(1, 5):
            store = atoll.store("memory://")
            stage = Stage(store)

            async def serve(term: Term, stage: Stage = stage) -> None:
                await stage.candidate("b")
                await stage.candidate("c")
                await term.hand_over("c")

            await Election(through(store, fault(verb, nth=nth)), "x", owner="a").lead(serve)
            await until(lambda stage=stage: stage.order == ["c"])
            await stage.end()


async def test_a_leader_that_does_not_know_whether_it_handed_over_believes_that_it_did() -> None:
    store = atoll.store("memory://")
    stage = Stage(store)

    async def serve(term: Term) -> None:
        await stage.candidate("b")
        with pytest.raises(OutcomeUnknown):
            await term.hand_over("b")
        with pytest.raises(LeaderLost):
            term.check()

    lossy = through(store, ReplyLost("transact", prefix="election/x/heir"))
    await Election(lossy, "x", owner="a").lead(serve)
    await until(lambda: stage.order == ["b"])
    await stage.end()


@simulated(seeds=5)
async def test_a_lease_that_ends_during_a_hand_over_ends_the_term_and_not_the_caller(world: World) -> None:
    served = 0

    async def serve(term: Term) -> str:
        nonlocal served
        served += 1
        if served == 1:
            async with asyncio.timeout(60):
                while (await Election(world.store(), "x").leader()).waiting == 0:  # type: ignore[union-attr]
                    await asyncio.sleep(0.1)
            world.process("a").cut()
            asyncio.get_running_loop().call_later(60, world.process("a").heal)
            await term.hand_over("b")
        return "led again"

    async def other(term: Term) -> None:
        await asyncio.sleep(5)

    a = world.process("a").run(Election(world.store(), "x", ttl_s=10, owner="a").lead(serve))
    await asyncio.sleep(1)
    b = world.process("b").run(Election(world.store(), "x", ttl_s=10, owner="b").lead(other))
    async with asyncio.timeout(300):
        await b
        assert await a == "led again"


async def test_a_taking_that_arrives_late_is_noticed_by_who_sent_it() -> None:
    """Given up for lost, it makes him owner while he waits for the owner to go: he must not wait on."""
    name = "memory://taking-late?observe=coalesced&observe_late_s=0.05"
    store, slow = atoll.store(name), atoll.store(name)
    stage, behind = Stage(store), Stage(slow)
    transact, held_back = slow.transact, list[tuple[tuple[Operation, ...], dict[str, Any]]]()

    async def lost(*then: Operation, **options: Any) -> object:
        taking = [o for o in then if o.key == "election/x/owner" and isinstance(o, Put)]
        if taking and len(then) > 1 and not held_back:
            held_back.append((then, options))
            raise OutcomeUnknown("no answer")
        return await transact(*then, **options)

    slow.transact = lost  # type: ignore[method-assign, assignment]
    await stage.candidate("l")
    await behind.candidate("a")
    await stage.candidate("b")
    await stage.terms["l"].hand_over("b")
    await until(lambda: "b" in stage.terms and held_back)
    while (await Election(store, "x").leader()).waiting < 2:  # type: ignore[union-attr]
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.2)
    owner = stage.terms["b"].owner_key
    await store.transact(delete(owner))
    (then, options), *_ = held_back
    assert isinstance(await store.transact(*then, **options), Applied)
    await until(lambda: behind.order == ["a"])
    await stage.end()
    await behind.end()


def test_without_an_event_loop_a_leading_function_resigns_from_its_thread() -> None:
    state = sync_store("memory://")

    def serve(term: SyncTerm) -> str:
        term.resign()
        assert SyncElection(state, "x").leader() is None
        return "done"

    assert SyncElection(state, "x").lead(serve) == "done"
