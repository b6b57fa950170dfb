"""A8: a queue in virtual time: attempts, leases, late acknowledgements, dead letters, delay, drain."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from atoll import Delivery, DeliveryLost, Queue
from atoll.blocks.work import work
from atoll.clock import lease_now
from atoll.errors import ConfigurationError
from atoll.ports.broker import Dead
from atoll.testing import World, simulated
from atoll.verify.virtual_network import Weather


async def until(true: Callable[[], bool | Awaitable[bool]], seconds: float = 600.0) -> None:
    """Wait in virtual time until `true`, at most `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            answer = true()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.05)


async def dead(queue: Queue[Any], name: str | None = None) -> list[Dead]:
    inspecting = queue.broker.inspecting
    assert inspecting is not None
    return list(await inspecting.dead(name or queue.name))


async def empty(queue: Queue[Any]) -> bool:
    inspecting = queue.broker.inspecting
    assert inspecting is not None
    return all(d.ready + d.delayed + d.leased == 0 for d in await inspecting.depths())


@simulated(seeds=20)
async def test_every_message_is_worked_on_and_leaves(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    done: list[int] = []

    @queue.worker(concurrency=4)
    async def note(n: int, delivery: Delivery) -> None:
        await asyncio.sleep(0.01)
        done.append(n)

    await queue.put_many(list(range(20)))
    working = world.process("worker").run(queue.work())
    await until(lambda: empty(queue))
    working.cancel()
    assert sorted(done) == list(range(20))


@simulated(seeds=20)
async def test_a_worker_stays_a_plain_function(world: World) -> None:
    queue = Queue(world.broker(), "n", int)

    @queue.worker()
    async def double(n: int, delivery: Delivery) -> None:
        seen.append(2 * n)

    seen: list[int] = []
    await double(4, None)  # type: ignore[arg-type]
    assert seen == [8]


@simulated(seeds=20)
async def test_a_killed_worker_costs_recovery_s_and_no_message(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    attempts: list[tuple[int, float]] = []
    began = lease_now()

    def worker(place: Queue[int], sleep_s: float) -> None:
        @place.worker(recovery_s=10)
        async def slow(n: int, delivery: Delivery) -> None:
            attempts.append((delivery.attempt, lease_now() - began))
            await asyncio.sleep(sleep_s)

    worker(queue, 3600)
    await queue.put(1)
    world.process("first").run(queue.work())
    await until(lambda: bool(attempts))

    async def second() -> None:
        mine = Queue(world.broker(), "n", int)
        worker(mine, 0)
        await mine.work()

    world.kill("first")
    working = world.process("second").run(second())
    await until(lambda: empty(queue))
    working.cancel()
    assert [a for a, _ in attempts] == [1, 2]
    assert attempts[1][1] <= 12.5


@simulated(seeds=20)
async def test_a_kill_counts_as_an_attempt_and_the_last_one_buries(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    ran: list[int] = []

    async def die(name: str) -> None:
        mine = Queue(world.broker(), "n", int)

        @mine.worker(attempts=3, recovery_s=1)
        async def deadly(n: int, delivery: Delivery) -> None:
            ran.append(delivery.attempt)
            world.kill(name)
            await asyncio.sleep(0)

        await mine.work()

    await queue.put(1)
    for life in range(4):
        world.process(f"life{life}").run(die(f"life{life}"))
        if life < 3:
            await until(lambda life=life: len(ran) == life + 1)  # type: ignore[misc]
    await until(lambda: has_dead(queue))
    assert ran == [1, 2, 3]
    assert "died or lost its lease" in (await dead(queue))[0].reason


async def has_dead(queue: Queue[Any]) -> bool:
    return bool(await dead(queue))


@simulated(seeds=20)
async def test_a_failing_body_is_tried_again_later_then_buried_with_the_reason(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    tried: list[float] = []

    @queue.worker(attempts=3, retry_s=4)
    async def fail(n: int, delivery: Delivery) -> None:
        tried.append(lease_now())
        raise ValueError("no such order")

    await queue.put(1)
    working = world.process("worker").run(queue.work())
    await until(lambda: has_dead(queue))
    working.cancel()
    [letter] = await dead(queue)
    assert letter.attempts == 3 and letter.reason.startswith("ValueError: no such order")
    assert 2 <= tried[1] - tried[0] <= 6 and 4 <= tried[2] - tried[1] <= 10


@simulated(seeds=20)
async def test_what_cannot_be_decoded_is_buried_at_once_with_its_bytes(world: World) -> None:
    texts = Queue(world.broker(), "n", str)
    numbers = Queue(world.broker(), "n", int)
    ran: list[int] = []

    @numbers.worker()
    async def note(n: int, delivery: Delivery) -> None:
        ran.append(n)

    await texts.put("not a number")
    working = world.process("worker").run(numbers.work())
    await until(lambda: has_dead(numbers))
    working.cancel()
    [letter] = await dead(numbers)
    assert letter.message.body == b'"not a number"' and "int" in letter.reason and ran == []


@simulated(seeds=20)
async def test_a_body_longer_than_its_lease_keeps_it_by_renewing(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    ran: list[int] = []

    @queue.worker(recovery_s=2)
    async def slow(n: int, delivery: Delivery) -> None:
        ran.append(delivery.attempt)
        await asyncio.sleep(60)
        delivery.check()

    await queue.put(1)
    working = world.process("worker").run(queue.work())
    await until(lambda: empty(queue))
    working.cancel()
    assert ran == [1]


@simulated(seeds=20)
async def test_a_hung_body_keeps_its_message_for_run_s_max_and_no_longer(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    stopped: list[float] = []

    @queue.worker(recovery_s=5, run_s_max=30, attempts=1)
    async def hang(n: int, delivery: Delivery) -> None:
        began = lease_now()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(lease_now() - began)

    await queue.put(1)
    working = world.process("worker").run(queue.work())
    await until(lambda: has_dead(queue))
    working.cancel()
    [letter] = await dead(queue)
    assert "run_s_max=30" in letter.reason and stopped[0] <= 30.5


@simulated(seeds=50)
async def test_a_frozen_worker_is_told_and_its_late_acknowledgement_changes_nothing(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    finished: list[str] = []
    told: list[str] = []

    async def one(name: str) -> None:
        mine = Queue(world.broker(), "n", int)

        @mine.worker(recovery_s=4)
        async def pay(n: int, delivery: Delivery) -> None:
            if name == "frozen":
                world.process(name).freeze(20)
                await asyncio.sleep(0.1)
            try:
                delivery.check()
            except DeliveryLost:
                told.append(name)
                raise
            finished.append(name)

        await mine.work()

    await queue.put(1)
    first = world.process("frozen").run(one("frozen"))
    await asyncio.sleep(2)
    second = world.process("healthy").run(one("healthy"))
    await asyncio.sleep(40)
    first.cancel(), second.cancel()
    assert finished == ["healthy"] and await empty(queue) and not await has_dead(queue)


@simulated(seeds=20)
async def test_a_delayed_message_is_not_handed_out_before(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    at: list[float] = []

    @queue.worker()
    async def note(n: int, delivery: Delivery) -> None:
        at.append(lease_now())

    began = lease_now()
    working = world.process("worker").run(queue.work())
    await queue.put(1, delay_s=30)
    await until(lambda: bool(at))
    working.cancel()
    assert 30 <= at[0] - began <= 32


@simulated(seeds=20)
async def test_the_same_id_put_twice_is_one_message(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    done: list[int] = []

    @queue.worker()
    async def note(n: int, delivery: Delivery) -> None:
        done.append(n)

    await queue.put(1, id="order-1")
    working = world.process("worker").run(queue.work())
    await until(lambda: empty(queue))
    await queue.put(1, id="order-1")
    await asyncio.sleep(5)
    working.cancel()
    assert done == [1]


@simulated(seeds=20)
async def test_two_functions_on_one_queue_each_get_every_message(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    seen: Counter[tuple[str, int, str]] = Counter()

    @queue.worker(concurrency=3)
    async def receipt(n: int, delivery: Delivery) -> None:
        seen["receipt", n, delivery.id] += 1

    @queue.worker(attempts=1)
    async def reserve(n: int, delivery: Delivery) -> None:
        seen["reserve", n, delivery.id] += 1
        if n == 3:
            raise ValueError("out of stock")

    ids = await queue.put_many([1, 2, 3, 4])
    working = world.process("worker").run(queue.work())
    await until(lambda: empty(queue))
    working.cancel()
    assert seen == Counter(
        {(w, n, i): 1 for w in ("receipt", "reserve") for n, i in zip([1, 2, 3, 4], ids, strict=True)}
    )
    assert [d.message.id for d in await dead(queue, "n/reserve")] == [f"{ids[2]}/reserve"]


@simulated(seeds=20)
async def test_a_worker_takes_the_next_message_as_soon_as_it_is_free(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    done: list[int] = []

    @queue.worker()
    async def note(n: int, delivery: Delivery) -> None:
        await asyncio.sleep(0.01)
        done.append(n)

    await queue.put_many(list(range(50)))
    began = lease_now()
    working = world.process("worker").run(queue.work())
    await until(lambda: len(done) == 50)
    working.cancel()
    assert lease_now() - began < 2


@simulated(seeds=20)
async def test_what_waits_for_a_worker_that_has_a_colleague_no_more_is_done(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    done: list[tuple[str, int]] = []
    await world.broker().put("n/note", [queue.message(7, id="m/note")])

    @queue.worker()
    async def note(n: int, delivery: Delivery) -> None:
        done.append((delivery.id, n))

    working = world.process("worker").run(queue.work())
    await until(lambda: bool(done))
    working.cancel()
    assert done == [("m", 7)]


@simulated(seeds=20)
async def test_drain_takes_nothing_new_and_lets_the_hands_finish(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    began: list[int] = []
    done: list[int] = []

    @queue.worker(concurrency=2, recovery_s=5)
    async def slow(n: int, delivery: Delivery) -> None:
        began.append(n)
        await asyncio.sleep(8)
        done.append(n)

    await queue.put_many([1, 2, 3, 4, 5])
    stop = asyncio.Event()
    working = world.here.run(work([queue], stop=stop, drain_s=20))
    await until(lambda: len(began) == 2)
    stop.set()
    await working
    assert sorted(done) == sorted(began) and len(began) == 2


@simulated(seeds=20)
async def test_a_drain_that_runs_out_gives_the_message_back_at_once(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    began: list[float] = []

    @queue.worker(recovery_s=300)
    async def endless(n: int, delivery: Delivery) -> None:
        began.append(lease_now())
        await asyncio.sleep(3600 if len(began) == 1 else 0)

    await queue.put(1)
    stop = asyncio.Event()
    working = world.here.run(work([queue], stop=stop, drain_s=3))
    await until(lambda: bool(began))
    stop.set()
    await working
    again = world.here.run(queue.work())
    await until(lambda: empty(queue))
    again.cancel()
    assert len(began) == 2 and began[1] - began[0] < 10


@simulated(seeds=20)
async def test_a_body_stopped_by_deploys_again_and_again_is_not_buried(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    attempts: list[int] = []

    @queue.worker(recovery_s=300, attempts=2)
    async def long(n: int, delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        await asyncio.sleep(3600 if len(attempts) < 6 else 0)

    await queue.put(1)
    for deploys in range(1, 6):
        stop = asyncio.Event()
        working = world.here.run(work([queue], stop=stop, drain_s=1))
        await until(lambda deploys=deploys: len(attempts) == deploys)  # type: ignore[misc]
        stop.set()
        await working
    again = world.here.run(queue.work())
    await until(lambda: empty(queue))
    again.cancel()
    assert attempts == [1] * 6 and await dead(queue) == []


@simulated(seeds=20)
async def test_a_cancelled_worker_gives_its_message_back_at_once_uncounted(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    seen: list[tuple[int, float]] = []

    @queue.worker(recovery_s=300, attempts=1)
    async def long(n: int, delivery: Delivery) -> None:
        seen.append((delivery.attempt, lease_now()))
        await asyncio.sleep(3600 if len(seen) == 1 else 0)

    await queue.put(1)
    working = world.here.run(queue.work())
    await until(lambda: len(seen) == 1)
    working.cancel()
    await asyncio.wait([working])
    again = world.here.run(queue.work())
    await until(lambda: empty(queue))
    again.cancel()
    assert [attempt for attempt, _ in seen] == [1, 1] and seen[1][1] - seen[0][1] < 20
    assert await dead(queue) == []


@simulated(seeds=20)
async def test_a_body_that_ran_too_long_counts_also_when_its_worker_is_stopped(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    attempts: list[int] = []

    @queue.worker(recovery_s=2, run_s_max=2, attempts=5, retry_s=0)
    async def stubborn(n: int, delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        if delivery.attempt > 1:
            return
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(30)

    await queue.put(1)
    working = world.here.run(queue.work())
    await until(lambda: attempts == [1])
    await asyncio.sleep(5)
    working.cancel()
    await asyncio.wait([working])
    again = world.here.run(queue.work())
    await until(lambda: empty(queue))
    again.cancel()
    assert attempts == [1, 2]


@simulated(seeds=60, weather=Weather(request_lost=0.05, reply_lost=0.05, duplicated=0.05))
async def test_no_message_is_lost_in_bad_weather(world: World) -> None:
    queue = Queue(world.broker(), "n", int)
    done: Counter[int] = Counter()

    async def worker() -> None:
        mine = Queue(world.broker(), "n", int)

        @mine.worker(concurrency=3, recovery_s=5, attempts=50, retry_s=0.1)
        async def note(n: int, delivery: Delivery) -> None:
            await asyncio.sleep(0.5)
            delivery.check()
            done[n] += 1

        await mine.work()

    for n in range(15):
        await put_surely(queue, n)
    workings = [world.process(f"w{i}").run(worker()) for i in range(3)]
    await until(lambda: len(done) == 15)
    for working in workings:
        working.cancel()
    assert set(done) == set(range(15))


async def put_surely(queue: Queue[int], n: int) -> None:
    from atoll import NotApplied, OutcomeUnknown

    while True:
        try:
            await queue.put(n, id=f"m{n}")
            return
        except (NotApplied, OutcomeUnknown):
            await asyncio.sleep(0.1)


def test_wrong_words_are_refused_where_they_stand() -> None:
    import atoll

    broker = atoll.broker("memory://")
    with pytest.raises(ConfigurationError, match="without '/'"):
        Queue(broker, "a/b", int)
    queue = Queue(broker, "n", int)
    with pytest.raises(ConfigurationError, match="attempts=0"):
        queue.worker(attempts=0)(note_nothing)
    with pytest.raises(ConfigurationError, match="recovery_s=700"):
        queue.worker(recovery_s=700)(note_nothing)
    queue.worker()(note_nothing)
    with pytest.raises(ConfigurationError, match="has a worker named note_nothing"):
        queue.worker()(note_nothing)


async def note_nothing(n: int, delivery: Delivery) -> None: ...


async def test_a_queue_without_a_worker_cannot_work() -> None:
    import atoll

    with pytest.raises(ConfigurationError, match="has no worker"):
        await Queue(atoll.broker("memory://"), "n", int).work()
