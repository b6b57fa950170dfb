"""4.4: the raft store beside others: what it asks, what it asks again, other handles, other loops, a fork."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from typing import Any

import pytest

import atoll
import atoll.urls
from atoll import clock
from atoll.engines.raft import RaftStore, command, wire
from atoll.engines.raft.link import Link
from atoll.errors import AtollError, LimitReached, NotSent, OutcomeUnknown, ReadOnly, Refused
from atoll.ports.register import Unmet
from atoll.ports.store import Durable, Token, absent, delete, put, unchanged
from atoll.verify.proxy import Mood
from engines.raft_ways import Held, behind_doormen, lost, until
from servers import server


def place() -> str:
    return f"store-{clock.unique_id()[:8]}/"


async def line(cluster: Any, member: int) -> Link:
    """A client's bare line to one member."""
    link = Link(cluster.addresses[2 * member], lambda link, news: None)
    await link.connect("", None, 5)
    return link


async def test_a_transaction_is_one_question_and_many_that_wait_are_one_too(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = Link.put

    def counted(self: Link, verb: Any, *rest: Any) -> Any:
        asked.append(type(verb).__name__)
        return ask(self, verb, *rest)

    at = place()
    async with atoll.urls.store(shared("raft", nodes=3).url) as store:
        owner = (await store.transact(put(f"{at}owner", b"{}"))).results[0]  # type: ignore[union-attr]
        held = Held(f"{at}owner", Token(await store.epoch(), owner.revision))
        monkeypatch.setattr(Link, "put", counted)
        await store.transact(put(f"{at}k", b"1"), guard=held, request_id=at)
        await store.put_if(f"{at}k", b"2", 0)  # unmet, with its entries
        await store.get(f"{at}k")
        await store.transact(compare=[absent(f"{at}other")])
        assert asked == ["Write", "Write", "Get", "Judge"]
        asked.clear()
        await asyncio.gather(*(store.transact(put(f"{at}{n}", b"")) for n in range(100)))
        assert asked.count("Write") <= 3, "those who came while one was on its way leave together"


async def test_an_answer_that_was_lost_is_asked_for_again_and_nothing_is_done_twice() -> None:
    async with behind_doormen() as (cluster, doormen), atoll.urls.store(cluster.url) as store:
        assert store.history
        await store.transact(put("k", b"begin"))
        begin = await store.history.now()
        other = atoll.urls.store(f"raft://{','.join(cluster.addresses[::2])}")  # past the porters
        for number in range(5):
            asking = await lost(store, doormen, other, "k", b"%d" % number)
            assert (await asking).results, "it was asked again, and answered"
        await other.close()
        last = await store.transact(put("k", b"end"))
        told = []
        async for change in store.history.changes("k", begin):
            told += [entry.value for entry in change.changed]
            if change.at.revision >= last.revision:
                break
        assert told == [b"%d" % number for number in range(5)] + [b"end"]


async def test_a_write_under_a_number_that_was_used_is_not_done_again(shared: Any) -> None:
    cluster = shared("raft", nodes=3)
    link = await line(cluster, await cluster.leader())
    key, client = f"{place()}k", clock.chance().getrandbits(60)
    data = command.pack([command.Transact(((key, b"1", None),))])
    try:
        first = await link.ask(wire.Write(client, 1, data), 5, 5)
        again = await link.ask(wire.Write(client, 1, data), 5, 5)
        assert isinstance(first, wire.Done) and first == again
        # The negative control: under another number it is another write.
        third = await link.ask(wire.Write(client, 2, data), 5, 5)
        assert isinstance(third, wire.Done) and third != first
    finally:
        link.close()


async def test_a_client_that_the_members_forgot_begins_anew_and_its_write_is_done_once(shared: Any) -> None:
    async with atoll.urls.store(shared("raft", nodes=3).url) as store:
        at = await store.attached()  # type: ignore[attr-defined]
        at.lift.client, at.lift.sequence = clock.chance().getrandbits(60), 17  # never heard of there
        key = f"{place()}k"
        assert (await store.transact(put(key, b"1"), compare=[absent(key)])).results  # type: ignore[union-attr]
        entry = (await store.get(key)).entry
        assert entry and entry.revision == entry.create_revision


async def test_every_member_answers_reads_and_none_an_old_one(shared: Any) -> None:
    cluster = shared("raft", nodes=3)
    key = f"{place()}k"
    links = [await line(cluster, member) for member in range(3)]
    try:
        async with atoll.urls.store(cluster.url) as store:
            for number in range(30):
                written = await store.transact(put(key, b"%d" % number))
                answers = await asyncio.gather(*(link.ask(wire.Get(key), 5, 5) for link in links))
                for answer in answers:
                    assert isinstance(answer, wire.Rows) and answer.rows[0][1] == b"%d" % number
                    assert answer.revision >= written.revision
    finally:
        for link in links:
            link.close()


async def test_a_member_that_does_not_lead_says_who_does_and_writes_nothing(shared: Any) -> None:
    cluster = shared("raft", nodes=3)
    leader = await cluster.leader()
    link = await line(cluster, (leader + 1) % 3)
    try:
        data = command.pack([command.Transact(((f"{place()}k", b"1", None),))])
        answer = await link.ask(wire.Write(7, 1, data), 5, 5)
        assert isinstance(answer, wire.Refusal) and answer.said == wire.Said.NOT_LEADER
        assert answer.leader == cluster.addresses[2 * leader]
    finally:
        link.close()


async def test_one_member_named_is_enough_to_find_the_leader(shared: Any) -> None:
    cluster = shared("raft", nodes=3)
    leader = await cluster.leader()
    async with atoll.urls.store(f"raft://{cluster.addresses[2 * ((leader + 1) % 3)]}") as store:
        assert (await store.transact(put(f"{place()}k", b"1"))).results  # type: ignore[union-attr]


async def test_what_another_handle_freezes_and_bumps_is_obeyed_at_once() -> None:
    async with server("raft") as cluster:
        async with atoll.urls.store(cluster.url) as store, atoll.urls.store(cluster.url) as other:
            assert (await store.open()).durable is Durable.NODE, "one member is no quorum"
            owner = (await store.transact(put("owner", b"{}"))).results[0]  # type: ignore[union-attr]
            held = Held("owner", Token(await store.epoch(), owner.revision))
            await store.transact(put("k", b"1"), guard=held)
            assert other.moving
            await other.moving.freeze("to the new place")
            with pytest.raises(ReadOnly, match="to the new place"):
                await store.transact(put("k", b"2"))
            await other.moving.freeze(None)
            await store.transact(put("k", b"2"))
            assert await other.moving.bump() == 2 == await store.epoch()
            with pytest.raises(Refused):
                await store.transact(put("k", b"3"), guard=held)
            await cluster.members[0].restart()
            assert await store.epoch() == 2, "the epoch is in the log"
            newer = Held("owner", Token(2, owner.revision))
            await store.transact(put("k", b"4"), guard=newer)


async def test_what_does_not_fit_into_one_frame_comes_in_several(shared: Any) -> None:
    at = place()
    async with atoll.urls.store(shared("raft", nodes=3).url) as store:
        for part in range(6):
            await store.transact(*(put(f"{at}{part}-{n}", bytes([n]) * 300_000) for n in range(3)))
        found = await store.range(at)
        assert len(found.entries) == 18 and not found.more
        assert all(entry.value == bytes([int(entry.key[-1])]) * 300_000 for entry in found.entries)
        observed = await anext(store.observe(at))
        assert observed.reset and observed.changed == found.entries
        with pytest.raises(LimitReached, match="message_bytes_max"):
            await store.transact(*(put(f"{at}{n}", bytes(400_000)) for n in range(3)))


async def test_a_swap_that_many_handles_race_for_is_won_by_one(shared: Any) -> None:
    url, key = shared("raft", nodes=3).url, f"{place()}k"
    stores = [atoll.urls.store(url) for _ in range(5)]
    try:
        first = await stores[0].transact(put(key, b""))
        answers = await asyncio.gather(
            *(
                s.transact(put(key, b"%d" % n), compare=[unchanged(key, first.revision)])
                for n, s in enumerate(stores)
            )
        )
        assert [type(answer).__name__ for answer in answers].count("Applied") == 1
    finally:
        for store in stores:
            await store.close()


async def test_many_callers_of_stopped_members_all_come_back_by_their_deadline() -> None:
    async with server("raft") as cluster:
        store = atoll.urls.store(cluster.url)
        await store.transact(put("k", b"1"))
        fresh = atoll.urls.store(cluster.url)
        cluster.members[0].pause()

        async def one(handle: Any, number: int) -> BaseException:
            within_s = 1.5 if number == 1 else 0.5  # the first write is on its way while all others wait
            began = clock.loop_now()
            with atoll.deadline(within_s), pytest.raises(AtollError) as caught:
                await (handle.transact(put(f"k{number}", b"")) if number % 2 else handle.get("k"))
            assert clock.loop_now() - began < within_s + 1
            return caught.value

        known = await asyncio.gather(*(one(store, n) for n in range(40)))
        never = await asyncio.gather(*(one(fresh, n) for n in range(40)))
        assert isinstance(known[1], OutcomeUnknown), "it had left"
        assert all(isinstance(error, NotSent) for error in known[3::2]), "they waited for its return"
        assert all(isinstance(error, NotSent) for error in never)
        cluster.members[0].resume()
        assert (await store.get("k")).entry
        for handle in (store, fresh):
            await handle.close()


async def test_calls_in_flight_when_the_handle_is_closed_do_not_look_cancelled() -> None:
    async with server("raft") as cluster:
        store = atoll.urls.store(cluster.url)
        await store.transact(put("k", b"1"))
        cluster.members[0].pause()
        asking = asyncio.create_task(store.transact(put("k", b"2")))
        at = await store.attached()  # type: ignore[attr-defined]

        async def sent() -> bool:
            return any(link._waiting for link in at.members.links.values())

        await until(sent, "the question left")
        await store.close()
        with pytest.raises(OutcomeUnknown):
            async with asyncio.timeout(3):
                await asking
        cluster.members[0].resume()


async def test_a_store_is_made_by_hand_too(shared: Any) -> None:
    store = RaftStore([shared("raft", nodes=3).addresses[0]])
    async with store:
        assert (await store.transact(put(f"{place()}k", b"1"))).results  # type: ignore[union-attr]
    with pytest.raises(atoll.ConfigurationError):
        RaftStore([])


FORKS = """
    import asyncio, os, sys
    import atoll
    from atoll.ports.store import put

    store = atoll.store(sys.argv[1])

    async def write(who):
        with atoll.deadline(5):
            await store.transact(put(f"{who}-{os.getpid()}", b""))
            items = store.observe("")
            assert (await anext(items)).reset

    asyncio.run(write("parent"))
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(write("child"))
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    asyncio.run(write("parent"))
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_handle_used_before_a_fork_works_in_the_child_and_in_the_parent(shared: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKS), shared("raft", nodes=3).url],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def test_where_the_url_says_that_a_member_is_counts_more_than_what_members_say() -> None:
    """As behind a router: members know each other by addresses that a client may not be able to reach."""
    async with behind_doormen() as (cluster, doormen):
        doors = f"raft://{','.join(cluster.addresses[::2])}"
        doormen.mood(Mood.CUT)
        async with atoll.urls.store(doors) as store:
            at = await store.attached()  # type: ignore[attr-defined]
            leader = await cluster.leader()
            at.members._at = (leader + 1) % 3  # begin at one who has to name another
            assert (await store.transact(put("k", b"1"))).results  # type: ignore[union-attr]
            assert at.members.leader == cluster.addresses[2 * leader]
        alone = atoll.urls.store(f"raft://{cluster.addresses[2 * ((leader + 1) % 3)]}?ceiling_s=1")
        # The negative control: only the members' own words lead to the leader.
        with pytest.raises((NotSent, OutcomeUnknown)):
            await alone.transact(put("k", b"2"))
        await alone.close()


async def test_answers_that_are_larger_than_a_frame_come_in_pieces(shared: Any) -> None:
    """Many large values that were not what somebody expected, or that were removed, in one batch."""
    at = place()
    async with atoll.urls.store(shared("raft", nodes=3).url) as store:
        keys = [f"{at}{n:02}" for n in range(14)]
        for key in keys:
            await store.transact(put(key, key[-2:].encode() * 200_000))
        await store.transact(put(f"{at}last", b""))  # alone: those who come now wait for its return
        unmet = await asyncio.gather(*(store.put_if(key, b"", 0) for key in keys))
        for key, answer in zip(keys, unmet, strict=True):
            assert isinstance(answer, Unmet)
            entry = answer.entries[key]
            assert entry and entry.value == key[-2:].encode() * 200_000
        gone = await asyncio.gather(*(store.transact(delete(key)) for key in keys))
        assert all(len(one.results[0].value) == 400_000 for one in gone)  # type: ignore[union-attr]


async def test_a_text_that_utf8_cannot_write_is_its_callers_fault_alone(shared: Any) -> None:
    at = place()
    async with atoll.urls.store(shared("raft", nodes=3).url) as store:
        good = [store.transact(put(f"{at}{n}", b"")) for n in range(5)]
        bad = store.transact(put(f"{at}k", b""), request_id="\ud800")
        *answers, error = await asyncio.gather(*good, bad, return_exceptions=True)
        assert isinstance(error, atoll.ConfigurationError)
        assert all(answer.results for answer in answers)  # type: ignore[union-attr]
