"""4.10: members find each other by real datagrams and streams, and see who joins, pauses, dies and leaves.

Some members are processes of their own, so that they can be killed and stopped. Nothing here waits for a
time: each test waits for what a user would see.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any

import pytest
from members_crowd import QUICK, Crowd, until, until_here

import atoll
from atoll.algorithms.swim import events as swim
from atoll.algorithms.swim.messages import FORMAT, Alive, Letter, Sync
from atoll.algorithms.swim.settings import Settings
from atoll.blocks import (
    MemberFailed,
    MemberJoined,
    MemberLeft,
    MemberRefuted,
    Members,
    MemberSuspected,
    MemberUpdated,
    Peer,
)
from atoll.blocks.ear import EVENTS_MAX, Ear
from atoll.blocks.envelope import Envelopes
from atoll.blocks.post import Post
from atoll.errors import ConfigurationError, NotReady, Taken
from atoll.ports.observer import Event, MemberEvent, subscribe
from atoll.verify.servers.process import free_port

SETTINGS = Settings(**QUICK)  # type: ignore[arg-type]


def member(name: str, *seeds: str, **more: Any) -> Members:
    return Members(name, **{"listen": "127.0.0.1:0", "seeds": seeds, "settings": SETTINGS, **more})


def names(members: Members) -> list[str]:
    return [peer.name for peer in members.alive()]


async def certain(news: AsyncIterator[MemberEvent]) -> MemberEvent:
    """The next event that is no suspicion: a busy machine may be slow for a moment."""
    async for event in news:
        if not isinstance(event, MemberSuspected | MemberRefuted):
            return event
    raise AssertionError("the news ended")


async def shows(states: AsyncIterator[list[Peer]], expected: list[str]) -> None:
    """Wait for a state with these names."""
    async with asyncio.timeout(40):
        async for state in states:
            if [peer.name for peer in state] == expected:
                return


@pytest.fixture
def crowds() -> Iterator[list[Crowd]]:
    """Child processes, ended with the test."""
    found: list[Crowd] = []
    yield found
    for crowd in found:
        crowd.end()


# -- joining and leaving -------------------------------------------------------------------------------


async def test_who_joins_by_a_seed_sees_all_and_is_seen_by_all() -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(member("a"))
        others = [await stack.enter_async_context(member(name, first.address)) for name in "bcde"]
        everybody = [first, *others]
        await until_here(lambda: all(names(one) == list("abcde") for one in everybody))
        assert others[0].peer("a") == first.peer("a") is not None


async def test_seeds_may_name_oneself_and_those_who_are_not_there() -> None:
    async with member("a") as a:
        nobody = reserved()
        async with member("b", nobody, a.address) as b:
            await b.ready(30)
            await until_here(lambda: names(a) == names(b) == ["a", "b"])


def reserved() -> str:
    """An address that nobody listens at, and that no other test takes meanwhile."""
    return f"127.0.0.1:{free_port()}"


async def test_members_that_start_before_their_seed_join_when_it_comes() -> None:
    seed = reserved()
    async with member("a", seed) as a:
        with pytest.raises(NotReady, match=r"none of the seeds 127.0.0.1:\d+ has let a in for 0.01 s"):
            await a.ready(0.01)
        async with member("b", listen=seed, seeds=[seed]) as b:  # itself alone: it is in at once
            await b.ready(0.01)
            await a.ready(40)
            await until_here(lambda: names(a) == names(b) == ["a", "b"])


async def test_two_that_begin_with_each_other_as_seed_find_each_other() -> None:
    one, other = reserved(), reserved()
    async with member("a", other, listen=one) as a, member("b", one, listen=other) as b:
        await until_here(lambda: names(a) == names(b) == ["a", "b"])


async def test_who_leaves_in_order_is_told_as_left_and_not_as_failed() -> None:
    async with member("a") as a, aclosing(a.events()) as news:
        async with member("b", a.address, metadata={"zone": "1"}):
            joined = await certain(news)
        left = await certain(news)
    assert isinstance(joined, MemberJoined) and joined.metadata == {"zone": "1"}
    assert isinstance(left, MemberLeft) and (left.name, left.seen_by) == ("b", "a")


async def test_one_that_left_may_come_again_under_its_name() -> None:
    async with member("a") as a:
        for round in range(2):
            async with member("b", a.address):
                await until_here(lambda: names(a) == ["a", "b"], what=f"round {round}")
            await until_here(lambda: names(a) == ["a"])
        assert (found := a.peer("b")) is not None and found.state == "left"
        assert a.peer("nobody") is None


async def test_what_a_member_says_of_itself_reaches_the_others() -> None:
    async with member("a") as a, member("b", a.address) as b, aclosing(b.events()) as news:
        assert isinstance(await certain(news), MemberJoined)
        a.describe({"version": "2", "zone": "b"})
        event = await certain(news)
        assert isinstance(event, MemberUpdated) and event.metadata == {"version": "2", "zone": "b"}
        assert (found := b.peer("a")) is not None and found.metadata == event.metadata


async def test_watch_tells_who_is_in_now_and_after_each_change() -> None:
    async with member("a") as a, aclosing(a.watch()) as states:
        assert [peer.name for peer in await anext(states)] == ["a"]
        async with member("b", a.address):
            await shows(states, ["a", "b"])
        await shows(states, ["a"])


async def test_readers_end_with_the_block() -> None:
    a = member("a")
    async with a:
        reading = [asyncio.create_task(drained(a.events())), asyncio.create_task(drained(a.watch()))]
        await asyncio.sleep(0)
    for task in reading:
        await asyncio.wait_for(task, 10)


async def drained(news: Any) -> None:
    async for _ in news:
        pass


async def test_observers_hear_of_members_too() -> None:
    heard: list[Event] = []
    stop = subscribe(heard.append)
    try:
        async with member("a") as a, member("b", a.address):
            await until_here(lambda: sum(isinstance(event, MemberJoined) for event in heard) == 2)
    finally:
        stop()
    assert {(event.name, event.seen_by) for event in heard if isinstance(event, MemberJoined)} == {
        ("a", "b"),
        ("b", "a"),
    }


# -- processes that die, pause and disagree ------------------------------------------------------------


def test_a_killed_process_is_found_by_all_and_comes_back_when_it_is_started_again(
    crowds: list[Crowd],
) -> None:
    crowds.append(Crowd("a", "b"))
    seeds = crowds[0].open()
    crowds.append(Crowd("c", seeds=seeds))
    crowds.append(Crowd("d", seeds=seeds))
    until(lambda: all(len(view) == 4 for crowd in crowds for view in crowd.alive.values()), what="four")
    crowds[1].signal(signal.SIGKILL)
    rest = [view for crowd in (crowds[0], crowds[2]) for view in crowd.alive]
    until(lambda: all("c failed" in seen(crowds, name) for name in rest), what="c failed")
    assert all("c left" not in seen(crowds, name) for name in rest)
    crowds.append(Crowd("c", seeds=seeds))
    until(
        lambda: all(after("c failed", seen(crowds, name), "c joined") for name in rest), what="c came again"
    )


def after(event: str, told: list[str], other: str) -> bool:
    return event in told and other in told[told.index(event) :]


def seen(crowds: list[Crowd], name: str) -> list[str]:
    return next(crowd.events[name] for crowd in crowds if name in crowd.events)


def test_a_stopped_process_is_suspected_and_objects_when_it_goes_on(crowds: list[Crowd]) -> None:
    patient = QUICK | {"suspicion_multiplier": 200.0}  # 60 s at least: nobody is condemned in this test
    crowds.append(Crowd("a", "b", settings=patient))
    crowds.append(Crowd("c", seeds=crowds[0].open(), settings=patient))
    until(lambda: all(len(view) == 3 for crowd in crowds for view in crowd.alive.values()), what="three")
    crowds[1].signal(signal.SIGSTOP)
    until(lambda: crowds[0].alive["a"].get("c") == crowds[0].alive["b"].get("c") == "suspected")
    crowds[1].signal(signal.SIGCONT)
    until(lambda: crowds[0].alive["a"].get("c") == crowds[0].alive["b"].get("c") == "alive")
    until(lambda: seen(crowds, "a")[-1:] == ["c refuted"])
    told = [line for line in seen(crowds, "a") if line.startswith("c ")]
    assert told[told.index("c suspected") :][:2] == ["c suspected", "c refuted"]
    assert "c failed" not in told


def test_a_process_that_ends_by_sigterm_is_told_as_left(crowds: list[Crowd]) -> None:
    crowds.append(Crowd("a", "b"))
    crowds.append(Crowd("c", seeds=crowds[0].open()))
    until(lambda: all(len(view) == 3 for crowd in crowds for view in crowd.alive.values()), what="three")
    crowds[1].signal(signal.SIGTERM)
    until(lambda: "c left" in seen(crowds, "a") and "c left" in seen(crowds, "b"))
    until(lambda: crowds[1].ended == {"c": ""}, what="its readers ended in order")
    assert crowds[1].process.wait(20) == 0


def test_of_two_processes_with_one_name_one_is_put_out_and_says_so(crowds: list[Crowd]) -> None:
    crowds.append(Crowd("a"))
    seeds = crowds[0].open()
    crowds.append(Crowd("first", seeds=seeds, call="twin"))
    crowds[1].open()
    crowds.append(Crowd("second", seeds=seeds, call="twin"))
    until(lambda: crowds[1].ended or crowds[2].ended, what="one is out")
    assert [*crowds[1].ended.values(), *crowds[2].ended.values()] == ["Taken"]
    until(lambda: crowds[0].alive["a"] == {"a": "alive", "twin": "alive"})


async def test_who_is_put_out_is_told_everywhere(caplog: pytest.LogCaptureFixture) -> None:
    async with member("a") as a, member("twin", a.address) as one:
        try:
            async with member("twin", a.address) as other:
                await until_here(lambda: "not a member any more" in caplog.text)
                out = one if "has the name" in repr(one) else other
                for ask in (out.alive, out.status, lambda: out.peer("a")):
                    with pytest.raises(Taken, match="Give each member a name of its own"):
                        ask()
                with pytest.raises(Taken):
                    await out.ready()
        except Taken:
            pass  # it was noticed before the block began
    assert caplog.text.count("not a member any more") == 1


# -- networks that lose something ----------------------------------------------------------------------


class Cut:
    """Datagrams and streams of some addresses do not arrive."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.datagrams: set[frozenset[str]] = set()
        self.streams: set[frozenset[str]] = set()
        self.lost = 0
        send, ask = Post.send, Post.ask

        def lossy_send(post: Post, address: str, packet: bytes) -> None:
            if frozenset((where(post), address)) in self.datagrams:
                self.lost += 1
            else:
                send(post, address, packet)

        async def lossy_ask(post: Post, address: str, letter: bytes, timeout_s: float) -> bytes | None:
            if frozenset((where(post), address)) in self.streams:
                return None
            return await ask(post, address, letter, timeout_s)

        monkeypatch.setattr(Post, "send", lossy_send)
        monkeypatch.setattr(Post, "ask", lossy_ask)


def where(post: Post) -> str:
    assert post._server is not None
    host, port = post._server.sockets[0].getsockname()[:2]
    return f"{host}:{port}"


async def test_two_sides_of_a_partition_call_each_other_failed_and_meet_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = Cut(monkeypatch)
    settings = Settings(**QUICK | {"suspicion_multiplier": 2.0, "reconnect_interval_s": 0.5})  # type: ignore[arg-type]
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(member("a", settings=settings))
        b, c, d = [
            await stack.enter_async_context(member(name, a.address, settings=settings)) for name in "bcd"
        ]
        everybody = [a, b, c, d]
        await until_here(lambda: all(names(one) == list("abcd") for one in everybody))
        cut.datagrams = {frozenset((x.address, y.address)) for x in (a, b) for y in (c, d)}
        cut.streams = set(cut.datagrams)
        await until_here(lambda: names(a) == names(b) == ["a", "b"] and names(c) == names(d) == ["c", "d"])
        cut.datagrams, cut.streams = set(), set()
        await until_here(lambda: all(names(one) == list("abcd") for one in everybody))
        assert cut.lost


async def test_a_network_that_loses_datagrams_alone_is_probed_by_stream_and_nobody_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A suspicion lasts a minute here: a busy machine may miss a stream, only one that is cut misses all."""
    cut = Cut(monkeypatch)
    rare = {"probe_interval_s": 0.6, "sync_interval_s": 1e6, "reconnect_interval_s": 1e6}
    settings = Settings(**QUICK | rare | {"suspicion_multiplier": 100.0})  # type: ignore[arg-type]
    async with (
        member("a", settings=settings) as a,
        member("b", a.address, settings=settings) as b,
        aclosing(a.events()) as news,
    ):
        assert isinstance(await anext(news), MemberJoined)
        cut.datagrams = {frozenset((a.address, b.address))}
        before = a.traffic.letters, b.traffic.letters
        await until_here(lambda: a.traffic.letters > before[0] + 2 and b.traffic.letters > before[1] + 2)
        assert cut.lost and names(a) == names(b) == ["a", "b"]
        cut.streams = set(cut.datagrams)  # the control: with the streams cut too it is found
        assert isinstance(await anext(news), MemberSuspected)


async def test_a_long_list_is_taken_over_by_stream() -> None:
    brief = Settings(**QUICK | {"leave_s": 0.1})  # type: ignore[arg-type]
    async with member("a", settings=brief) as a:
        known = tuple(Alive(f"m{n:04}", n, 0, "127.0.0.1:1", b"x" * 100) for n in range(3000))
        assert a._gossip is not None
        a._gossip.step(swim.Asked(0, Letter("guest", Sync(known))))
        assert len(a.alive()) == 3001
        async with member("b", a.address, settings=brief) as b:
            assert len(b.alive()) == 3002  # more than a hundred datagrams would hold


async def test_others_are_told_the_advertised_address() -> None:
    port = free_port()
    secret = "sixteen bytes or more"
    wide = member("a", listen=f"0.0.0.0:{port}", advertise=f"127.0.0.2:{port}", secret=secret)
    async with wide as a, member("b", f"127.0.0.1:{port}", secret=secret) as b:
        assert a.address == f"127.0.0.2:{port}"
        assert (found := b.peer("a")) is not None and found.address == a.address
        heard = a.traffic.packets_received
        await until_here(lambda: a.traffic.packets_received > heard + 3)
        assert names(b) == ["a", "b"]


async def test_members_meet_by_ipv6_too() -> None:
    if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("no IPv6 here")
    async with member("a", listen="[::1]:0") as a, member("b", a.address, listen="[::1]:0") as b:
        await until_here(lambda: names(a) == names(b) == ["a", "b"])
        await until_here(lambda: b.traffic.packets_received)


# -- bad input -----------------------------------------------------------------------------------------


async def test_garbage_is_counted_and_neither_logged_nor_believed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "atoll.members")
    async with member("a") as a, member("b", a.address) as b:
        host, _, port = a.address.rpartition(":")
        with socket.socket(type=socket.SOCK_DGRAM) as gun:
            for shot in (
                b"",
                b"\x01",
                b"\x01\x93",
                b"hello",
                os.urandom(700),
                b"\x01" + b"\x91" * 1400,
                b"x" * 9000,
            ):
                gun.sendto(shot, (host, int(port)))
        for shot in (
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\xff\xff\xff\xff",
            b"\0\0\0\x02\x01\x90",
            b"\0\0\0\x09ab",
        ):
            with socket.create_connection((host, int(port)), timeout=10) as door:
                door.sendall(shot)
        await until_here(lambda: sum(a.traffic.unread.values()) >= 9)
        assert names(a) == names(b) == ["a", "b"]
        async with member("c", a.address) as c:
            await until_here(lambda: names(a) == names(c) == ["a", "b", "c"])
    assert [record for record in caplog.records if "garbage" in record.message] == []


async def test_a_member_of_another_release_is_not_heard_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with member("a") as a:
        host, _, port = a.address.rpartition(":")
        later = b"\x01" + (FORMAT + 2).to_bytes(1) + b"what nobody here can read"
        with socket.socket(type=socket.SOCK_DGRAM) as gun:
            for _ in range(3):
                gun.sendto(later, (host, int(port)))
        with socket.create_connection((host, int(port)), timeout=10) as door:
            door.sendall(len(later).to_bytes(4) + later)
        await until_here(lambda: a.traffic.unread.get("of another format") == 4)
        assert names(a) == ["a"]
    assert sum("older or newer" in record.message for record in caplog.records) == 1


async def test_a_crowd_at_the_door_that_says_nothing_keeps_nobody_out() -> None:
    patient = Settings(**QUICK | {"stream_timeout_s": 1000.0})  # type: ignore[arg-type]
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(member("a", settings=patient))
        host, _, port = a.address.rpartition(":")
        for _ in range(40):
            _, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
        await until_here(lambda: a.traffic.streams_refused >= 8)
        b = await stack.enter_async_context(member("b", a.address))
        await until_here(lambda: names(a) == names(b) == ["a", "b"])


def post(answer: bytes, stream_timeout_s: float = 60.0) -> Post:
    """One that answers every letter so."""
    return Post(
        Envelopes(),
        lambda address, packet: None,
        lambda letter: answer,
        packet_max=1400,
        letter_max=1 << 25,
        stream_timeout_s=stream_timeout_s,
    )


async def test_who_asks_and_does_not_read_has_its_answer_kept_no_longer_than_its_time() -> None:
    long = b"x" * (1 << 23)
    here, control = post(long, 0.5), post(long)
    port, other = await here.open("127.0.0.1", 0), await control.open("127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    try:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            await loop.sock_connect(slow, ("127.0.0.1", port))
            await loop.sock_sendall(slow, (6).to_bytes(4) + b"\x01hello")
            heard = len(await asyncio.wait_for(loop.sock_recv(slow, 1), 30))
            await until_here(lambda: not here._streams)
            with suppress(ConnectionError):
                while said := await asyncio.wait_for(loop.sock_recv(slow, 1 << 20), 30):
                    heard += len(said)
            assert 0 < heard < len(long)
        assert await control.ask(f"127.0.0.1:{other}", b"hello", 40) == long
    finally:
        await here.close()
        await control.close()


async def test_a_network_that_takes_nothing_just_now_has_nothing_piled_up_for_it() -> None:
    here, there = post(b""), post(b"")
    port, other = await here.open("127.0.0.1", 0), await there.open("127.0.0.1", 0)
    try:
        assert port != other
        here.pause_writing()  # as the loop says when its own pile is high
        for _ in range(5):
            here.send(f"127.0.0.1:{other}", b"lost")
        assert (here.traffic.not_sent, here.traffic.packets_sent) == (5, 0)
        here.resume_writing()
        here.send(f"127.0.0.1:{other}", b"hello")
        await until_here(lambda: there.traffic.packets_received == 1)
    finally:
        await here.close()
        await there.close()


async def test_a_name_that_others_gave_as_an_address_is_not_looked_up() -> None:
    here, there = post(b"here"), post(b"there")
    port = await there.open("127.0.0.1", 0)
    try:
        assert await here.ask(f"localhost:{port}", b"hello", 20) is None
        assert await here.ask(f"192.0.2.1:{port}", b"hello", 1000) is None, (
            "unsealed it stays on this machine"
        )
        assert there.traffic.letters == 0
        here.named.add(f"localhost:{port}")
        assert await here.ask(f"localhost:{port}", b"hello", 20) == b"there"
    finally:
        await there.close()


async def test_a_seed_may_be_a_name() -> None:
    async with member("a") as a, member("b", a.address.replace("127.0.0.1", "localhost")) as b:
        await b.ready(40)
        await until_here(lambda: names(a) == names(b) == ["a", "b"])


async def test_a_port_that_is_taken_is_said() -> None:
    async with member("a") as a:
        with pytest.raises(NotReady, match="Is another member running there"):
            async with member("b", listen=a.address):
                pass


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"listen": "0.0.0.0:0", "secret": "s" * 32}, "expected advertise="),
        ({"listen": "192.0.2.1:0"}, "without a secret"),
        ({"listen": "7946"}, "expected host:port"),
        ({"listen": "127.0.0.1:99999"}, "expected host:port"),
        ({"metadata": {"long": "x" * 600}}, "at most 512"),
        ({"metadata": {"n": 1}}, "expected text to text"),
        ({"secret": "short"}, "expected at least 16"),
        ({"secret": []}, "expected 1 to 8"),
        ({"seeds": "127.0.0.1:7946"}, "expected a list"),
    ],
)
async def test_what_cannot_be_meant_is_refused_with_what_to_write(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        async with member("a", **given):
            pass


async def test_a_name_is_some_text_of_bounded_length_and_a_block_is_entered_once() -> None:
    for name in ("", "x" * 129):
        with pytest.raises(ConfigurationError):
            member(name)
    a = member("a")
    with pytest.raises(ConfigurationError, match="inside of `async with`"):
        a.alive()
    async with a:
        with pytest.raises(ConfigurationError, match="at most 512"):
            a.describe({"long": "x" * 600})
        with pytest.raises(ConfigurationError, match="began with one"):
            a.rotate("s" * 32)
    with pytest.raises(ConfigurationError, match="entered before"):
        async with a:
            pass


async def test_a_block_that_is_cancelled_leaves_in_order() -> None:
    async with member("a") as a:

        async def stay() -> None:
            async with member("b", a.address):
                await asyncio.sleep(1000)

        task = asyncio.create_task(stay())
        await until_here(lambda: names(a) == ["a", "b"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_here(lambda: (found := a.peer("b")) is not None and found.state == "left")


async def test_a_deadline_around_the_joining_is_kept() -> None:
    with socket.socket() as mute:  # listens and never accepts
        mute.bind(("127.0.0.1", 0))
        mute.listen(1)
        with atoll.deadline(0.2):
            async with member("a", f"127.0.0.1:{mute.getsockname()[1]}") as a:
                assert names(a) == ["a"]


# -- a slow reader -------------------------------------------------------------------------------------


def event(kind: type[MemberEvent], name: str, **metadata: str) -> MemberEvent:
    return kind(at=0.0, name=name, seen_by="me", address="x:1", metadata=metadata)


async def test_a_reader_far_behind_is_told_only_what_is_different_now() -> None:
    ear = Ear([event(MemberJoined, "a"), event(MemberJoined, "b"), event(MemberJoined, "c")])
    present = [
        event(MemberJoined, "b", v="2"),
        event(MemberJoined, "c"),
        event(MemberSuspected, "c"),
        event(MemberJoined, "d"),
    ]
    for _ in range(3):
        await ear.next(list)
    for n in range(EVENTS_MAX + 10):
        ear.hear(event(MemberUpdated, "b", v=str(n)))
    ear.close()
    told = []
    while (heard := await ear.next(lambda: present)) is not None:
        told.append(f"{heard.name} {type(heard).__name__}")
    assert told == ["a MemberFailed", "b MemberUpdated", "c MemberSuspected", "d MemberJoined"]


async def test_a_reader_that_keeps_up_is_told_everything() -> None:
    ear = Ear([])
    happened = [event(kind, "a") for kind in (MemberJoined, MemberSuspected, MemberFailed) for _ in range(99)]
    for one in happened:
        ear.hear(one)
    ear.close()
    assert [await ear.next(list) for _ in happened] == happened
    assert await ear.next(list) is None
