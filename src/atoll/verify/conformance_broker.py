"""Conformance of a Broker: every sentence of the port is a question to the engine.

`make()` gives a handle on a broker; the cases keep to queues of their own, so it may be in use. A
broken promise raises Violation, one that the engine does not claim raises NotTested.
"""

from __future__ import annotations

import asyncio

from atoll import clock
from atoll.errors import ConfigurationError, LimitReached
from atoll.ports.broker import Accepted, Message, Settled
from atoll.verify import conformance_attempts
from atoll.verify.conformance import Cases, NotTested, case, expect, expect_raises, place, sleep_until
from atoll.verify.conformance_rack import (
    LEASE_S,
    LONG_S,
    WAIT_S,
    Make,
    depth,
    empty,
    inspecting,
    leased,
    message,
    one,
    put,
    settled,
)

CASES: Cases = [*conformance_attempts.CASES]


@case(CASES)
async def a_message_comes_as_it_was_put(make: Make) -> None:
    async with make() as broker:
        queue, before = place(), clock.wall_now()
        sent = Message(
            id=clock.unique_id(), body=bytes(range(64)), key="k/é", headers={"traceparent": "00-1", "ü": "ß"}
        )
        await put(broker, queue, sent)
        taken = await one(broker, queue)
        expect(taken.message == sent, f"{sent} came as {taken.message}")
        expect(taken.queue == queue and taken.attempt == 1 and taken.receipt, f"it came as {taken}")
        expect(before - 5 <= taken.put_at <= clock.wall_now() + 5, f"put_at is {taken.put_at}")
        await settled(await broker.acknowledge(queue, [taken.receipt]), Settled.ACKED)
        await empty(broker, queue)


@case(CASES)
async def a_queue_never_put_to_is_empty(make: Make) -> None:
    async with make() as broker:
        queue = place()
        await empty(broker, queue)
        await settled(await broker.acknowledge(queue, ["nobody"]), Settled.UNKNOWN)
        if broker.inspecting:
            expect(list(await broker.inspecting.dead(queue)) == [], "an unknown queue has dead messages")


@case(CASES)
async def every_message_is_handed_out_once(make: Make) -> None:
    async with make() as broker:
        queue = place()
        ids = [f"{number}" for number in range(60)]
        await put(broker, queue, *(message(id=id) for id in ids))

        async def work() -> list[str]:
            done: list[str] = []
            while taken := await broker.take(queue, 7, lease_s=LONG_S):
                expect(len(taken) <= 7, f"at most 7 were asked for, {len(taken)} came")
                done += [t.message.id for t in taken]
                answers = await broker.acknowledge(queue, [t.receipt for t in taken])
                expect(set(answers) == {Settled.ACKED}, f"acknowledging answered {answers}")
            return done

        done = [id for part in await asyncio.gather(*(work() for _ in range(5))) for id in part]
        expect(sorted(done) == sorted(ids), f"60 messages were handed out as {len(done)}")


@case(CASES)
async def a_message_in_hand_is_nobody_elses(make: Make) -> None:
    async with make() as broker:
        queue = place()
        await put(broker, queue, message())
        taken = await one(broker, queue)
        await empty(broker, queue)
        await settled(await broker.acknowledge(queue, [taken.receipt]), Settled.ACKED)


@case(CASES)
async def acknowledging_twice_says_the_same(make: Make) -> None:
    async with make() as broker:
        queue = place()
        await put(broker, queue, message(), message())
        first, second = await one(broker, queue), await one(broker, queue)
        answers = await broker.acknowledge(queue, [first.receipt, "nobody", second.receipt])
        await settled(answers, Settled.ACKED, Settled.UNKNOWN, Settled.ACKED)
        await settled(await broker.acknowledge(queue, [first.receipt]), Settled.ACKED)
        expect(list(await broker.acknowledge(queue, [])) == [], "acknowledging nothing answered something")


@case(CASES)
async def a_duplicate_is_noticed(make: Make) -> None:
    async with make() as broker:
        claims, queue = await broker.open(), place()
        if claims.dedupe_window_s == 0:
            raise NotTested("duplicates are never noticed")
        again = message(b"first")
        put_at = clock.lease_now()
        await put(broker, queue, again)
        outcomes = await broker.put(queue, [message(b"second", id=again.id), message(b"new")])
        if clock.lease_now() < put_at + claims.dedupe_window_s:
            expect(list(outcomes) == [Accepted.DUPLICATE, Accepted.ACCEPTED], f"a duplicate is {outcomes}")
        bodies = {(await one(broker, queue)).message.body, (await one(broker, queue)).message.body}
        expect(bodies == {b"first", b"new"}, f"a duplicate was put: {bodies}")
        await empty(broker, queue)
        elsewhere = await broker.put(place(), [message(id=again.id)])
        expect(list(elsewhere) == [Accepted.ACCEPTED], "an id is noticed across queues")


@case(CASES)
async def a_duplicate_is_noticed_after_its_message_is_done(make: Make) -> None:
    async with make() as broker:
        claims, queue = await broker.open(), place()
        if claims.dedupe_window_s < 5:
            raise NotTested("duplicates are noticed for less than 5 s")
        done = message()
        await put(broker, queue, done)
        await broker.acknowledge(queue, [(await one(broker, queue)).receipt])
        outcomes = await broker.put(queue, [done, done])
        expect(list(outcomes) == [Accepted.DUPLICATE] * 2, f"a message done a moment ago was {outcomes}")
        await empty(broker, queue)


@case(CASES)
async def a_duplicate_inside_one_put_is_noticed(make: Make) -> None:
    async with make() as broker:
        if (await broker.open()).dedupe_window_s == 0:
            raise NotTested("duplicates are never noticed")
        queue, twice = place(), message()
        outcomes = list(await broker.put(queue, [twice, twice]))
        expect(outcomes == [Accepted.ACCEPTED, Accepted.DUPLICATE], f"the same id twice is {outcomes}")


@case(CASES)
async def a_put_is_all_or_none_within_its_limits(make: Make) -> None:
    async with make() as broker:
        claims, queue = await broker.open(), place()
        if claims.body_bytes_max <= 64 << 20:
            long = message(b"x" * (claims.body_bytes_max + 1))
            await expect_raises(LimitReached, broker.put(queue, [message(), long]), "a body too long")
        if claims.messages_max <= 100_000:
            many = [message() for _ in range(claims.messages_max + 1)]
            await expect_raises(LimitReached, broker.put(queue, many), "too many messages in one put")
        headers = Message(id="1", body=b"", headers={str(n): "" for n in range(33)})
        await expect_raises(LimitReached, broker.put(queue, [message(), headers]), "33 headers")
        headers = Message(id="1", body=b"", headers={"a": "x" * 4096})
        await expect_raises(LimitReached, broker.put(queue, [message(), headers]), "headers of 4097 bytes")
        await empty(broker, queue)
        await put(broker, queue, message(b"x" * min(claims.body_bytes_max, 1 << 20)))


@case(CASES)
async def senseless_wishes_are_refused(make: Make) -> None:
    async with make() as broker:
        queue = place()
        await expect_raises(ConfigurationError, broker.take(queue, 0, lease_s=1), "taking 0")
        await expect_raises(ConfigurationError, broker.take(queue, 1, lease_s=0), "a lease of 0 s")


@case(CASES)
async def a_waiting_taker_is_woken_by_a_put(make: Make) -> None:
    async with make() as broker:
        queue = place()
        takers = [asyncio.create_task(one(broker, queue)) for _ in range(3)]
        await asyncio.sleep(0.02)
        messages = [message() for _ in range(3)]
        await put(broker, queue, *messages)
        taken = await asyncio.gather(*takers)
        expect({t.message.id for t in taken} == {m.id for m in messages}, "three takers shared messages")


@case(CASES)
async def a_taker_waits_no_longer_than_it_said(make: Make) -> None:
    async with make() as broker:
        async with asyncio.timeout(WAIT_S):
            taken = await broker.take(place(), 1, lease_s=1, wait_s=0.05)
        expect(len(taken) == 0, f"an empty queue handed out {taken}")


@case(CASES)
async def a_message_given_back_comes_again(make: Make) -> None:
    async with make() as broker:
        queue = place()
        await put(broker, queue, message())
        first = await one(broker, queue)
        await settled([await broker.give_back(queue, first.receipt)], Settled.ACKED)
        again = await one(broker, queue)
        expect(again.message == first.message and again.attempt == 2, f"given back, it came as {again}")
        expect(again.receipt != first.receipt, "two hand-outs have one receipt")
        expect(again.put_at == first.put_at, "given back, it has another put_at")
        await settled(await broker.acknowledge(queue, [first.receipt]), Settled.LATE)
        await settled(await broker.acknowledge(queue, [again.receipt]), Settled.ACKED)
        await settled([await broker.give_back(queue, "nobody")], Settled.UNKNOWN)


@case(CASES)
async def a_delay_is_kept(make: Make) -> None:
    async with make() as broker:
        if not broker.delaying:
            raise NotTested("delays are not kept")
        queue = place()
        sent = clock.lease_now()
        await put(broker, queue, message(delay_s=0.3))
        first = await one(broker, queue)
        expect(clock.lease_now() >= sent + 0.3, "it came before its delay was over")
        sent = clock.lease_now()
        await broker.give_back(queue, first.receipt, delay_s=0.3)
        await put(broker, queue, message(b"at once"))
        expect(
            (await one(broker, queue)).message.body == b"at once", "one delayed message holds up the queue"
        )
        again = await one(broker, queue)
        expect(clock.lease_now() >= sent + 0.3, "given back with a delay it came at once")
        expect(again.attempt == 2, f"given back with a delay it is attempt {again.attempt}")


@case(CASES)
async def a_lease_that_ends_gives_the_message_to_somebody_else(make: Make) -> None:
    async with make() as broker:
        leased(broker)
        queue, sent = place(), clock.lease_now()
        await put(broker, queue, message())
        first = await one(broker, queue, lease_s=LEASE_S)
        until = first.lease_until
        expect(until is not None and sent + LEASE_S <= until <= clock.lease_now() + LEASE_S, f"{until}")
        second = await one(broker, queue)
        expect(clock.lease_now() >= sent + LEASE_S, "its lease ended early")
        expect(second.message == first.message and second.attempt == 2, f"it came again as {second}")
        await settled(await broker.acknowledge(queue, [first.receipt]), Settled.LATE)
        await settled([await broker.give_back(queue, first.receipt)], Settled.LATE)
        await settled([await broker.bury(queue, first.receipt, "late")], Settled.LATE)
        expect(await leased(broker).extend(queue, first.receipt, LONG_S) is None, "a lease over was extended")
        await empty(broker, queue)
        await settled(await broker.acknowledge(queue, [second.receipt]), Settled.ACKED)


@case(CASES)
async def a_late_acknowledgement_is_late_though_nobody_took_it(make: Make) -> None:
    async with make() as broker:
        leased(broker)
        queue = place()
        await put(broker, queue, message())
        first = await one(broker, queue, lease_s=LEASE_S)
        await sleep_until(clock.lease_now() + LEASE_S)
        await settled(await broker.acknowledge(queue, [first.receipt]), Settled.LATE)
        expect((await one(broker, queue)).attempt == 2, "a message acknowledged late is gone")


@case(CASES)
async def extending_keeps_a_message(make: Make) -> None:
    async with make() as broker:
        queue, leases = place(), leased(broker)
        await put(broker, queue, message())
        first = await one(broker, queue, lease_s=0.5)
        got = await leases.extend(queue, first.receipt, LONG_S)
        expect(got is not None and got > 0.5, f"extending by {LONG_S} s granted {got}")
        taken = await broker.take(queue, 1, lease_s=LONG_S, wait_s=0.6)
        expect(len(taken) == 0, "an extended message was handed to somebody else")
        await settled(await broker.acknowledge(queue, [first.receipt]), Settled.ACKED)
        expect(await leases.extend(queue, first.receipt, LONG_S) is None, "a settled receipt was extended")
        expect(await leases.extend(queue, "nobody", LONG_S) is None, "an unknown receipt was extended")


@case(CASES)
async def an_attempt_counts_though_its_worker_died(make: Make) -> None:
    async with make() as broker:
        leased(broker)
        queue = place()
        await put(broker, queue, message())
        for attempt in (1, 2, 3):
            taken = await one(broker, queue, lease_s=0.1)
            expect(taken.attempt == attempt, f"hand-out {attempt} is counted as {taken.attempt}")


@case(CASES)
async def the_buried_stay_buried_until_revived(make: Make) -> None:
    async with make() as broker:
        queue, looking = place(), inspecting(broker)
        bad, good = message(b"bad"), message(b"good")
        await put(broker, queue, bad)
        taken = await one(broker, queue)
        await broker.give_back(queue, taken.receipt)
        taken = await one(broker, queue)
        await settled([await broker.bury(queue, taken.receipt, "cannot be read")], Settled.ACKED)
        await settled([await broker.bury(queue, taken.receipt, "again")], Settled.ACKED)
        await settled([await broker.bury(queue, "nobody", "?")], Settled.UNKNOWN)
        await empty(broker, queue)
        dead = list(await looking.dead(queue))
        expect(len(dead) == 1, f"one message was buried, {len(dead)} are dead")
        told = (dead[0].queue, dead[0].message.id, dead[0].message.body, dead[0].attempts, dead[0].reason)
        expect(told == (queue, bad.id, b"bad", 2, "cannot be read"), f"the dead message is {dead[0]}")
        await put(broker, queue, good)
        expect(await looking.revive(queue, ["nobody", good.id]) == 0, "what is not dead was revived")
        expect(await looking.revive(queue, [bad.id]) == 1, "a dead message was not revived")
        back = [await one(broker, queue), await one(broker, queue)]
        attempts = {t.message.id: t.attempt for t in back}
        expect(attempts == {bad.id: 1, good.id: 1}, f"revived, the attempts are {attempts}")
        expect(list(await looking.dead(queue)) == [], "a revived message is still dead")


@case(CASES)
async def depths_tell_what_waits(make: Make) -> None:
    async with make() as broker:
        queue = place()
        inspecting(broker)
        await put(broker, queue, message(), message(), message(), message())
        if broker.delaying:
            await put(broker, queue, message(delay_s=LONG_S))
        await one(broker, queue)
        await broker.bury(queue, (await one(broker, queue)).receipt, "no")
        seen = await depth(broker, queue)
        counts = (seen.ready, seen.delayed, seen.leased, seen.dead)
        expect(counts == (2, int(broker.delaying), 1, 1), f"2 ready, 1 in hand, 1 dead are told as {seen}")
        expect(0 <= seen.oldest_age_s < 60, f"the oldest message is {seen.oldest_age_s} s old")
        await broker.acknowledge(queue, [t.receipt for t in await broker.take(queue, 9, lease_s=LONG_S)])
        left = await depth(broker, queue)
        expect(left.ready == 0 and left.leased == 1, f"after two more were done it tells {left}")


@case(CASES)
async def a_handle_is_inert_and_opens_by_itself(make: Make) -> None:
    broker = make()
    expect(broker.url and "://" in repr(broker), f"repr shows {broker!r}; expected the url in it")
    queue = place()
    await put(broker, queue, message())
    expect(await broker.open() == await broker.open(), "opening twice answers other claims")
    await broker.close()
    await broker.close()
    await broker.take(queue, 1, lease_s=1)
    await broker.close()


@case(CASES)
async def a_handle_works_from_another_event_loop(make: Make) -> None:
    async with make() as broker:
        queue = place()
        waiting = asyncio.create_task(one(broker, queue))
        await asyncio.sleep(0.02)
        await asyncio.to_thread(lambda: asyncio.run(put(broker, queue, message(b"from afar"))))
        expect((await waiting).message.body == b"from afar", "a put from another event loop woke nobody")
