"""4.4: bad input and bad luck with raft members: each its own error, of the right family, in time."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

import atoll
import atoll.urls
from atoll import clock
from atoll.engines.raft import command, frames, wire
from atoll.engines.raft.link import Broken, Link
from atoll.errors import AtollError, ConfigurationError, LimitReached, NotSent, OutcomeUnknown
from atoll.ports.examining import Weight
from atoll.ports.store import Durable, put
from atoll.verify.proxy import Mood
from atoll.verify.servers.process import free_port
from engines.raft_ways import another_leader, behind_doormen, until
from servers import server

SLACK_S = 1.0


async def raises(kind: type[AtollError], call: Awaitable[object], within_s: float) -> str:
    """`call` raises `kind` and nothing else, not later than the deadline and a busy machine allow."""
    began = clock.loop_now()
    with pytest.raises(kind) as caught:
        async with asyncio.timeout(within_s + 10):
            with atoll.deadline(within_s):
                await call
    assert type(caught.value) is kind
    assert clock.loop_now() - began < within_s + SLACK_S, "it came after the deadline"
    return str(caught.value)


async def test_nobody_there_is_said_to_be_not_sent() -> None:
    store = atoll.urls.store(f"raft://127.0.0.1:{free_port()},127.0.0.1:{free_port()}")
    said = await raises(NotSent, store.transact(put("k", b"1")), 0.5)
    assert "nothing happened" in said.lower()


async def test_a_deadline_that_has_passed_sends_nothing() -> None:
    store = atoll.urls.store(f"raft://127.0.0.1:{free_port()}")

    async def late() -> None:
        await asyncio.sleep(0.06)
        await store.get("k")

    await raises(NotSent, late(), 0.05)


async def test_members_that_answer_nothing_leave_a_write_unknown_and_never_hang() -> None:
    async with server("raft") as cluster:
        async with atoll.urls.store(cluster.url) as store:
            await store.transact(put("k", b"1"))
            cluster.members[0].pause()
            await raises(OutcomeUnknown, store.transact(put("k", b"2")), 0.5)
            other = atoll.urls.store(cluster.url)
            await raises(NotSent, other.transact(put("k", b"3")), 0.5)
            await other.close()
            cluster.members[0].resume()
            entry = (await store.get("k")).entry
            assert entry and entry.value in (b"1", b"2"), "what was never sent was written"


async def test_a_write_whose_deadline_passed_carries_the_request_id_that_asks_again() -> None:
    async with behind_doormen(1) as (cluster, doormen), atoll.urls.store(cluster.url) as store:
        await store.transact(put("k", b"0"))
        doormen.mood(Mood.SWALLOW)
        with pytest.raises(OutcomeUnknown) as caught, atoll.deadline(0.4):
            await store.transact(put("k", b"1"), request_id="mine")
        assert caught.value.id == "mine"
        doormen.mood(Mood.FAITHFUL)
        first = await store.transact(put("k", b"1"), request_id="mine")
        again = await store.transact(put("k", b"1"), request_id="mine")
        assert again.replayed and again.revision == first.revision  # type: ignore[union-attr]


async def test_a_slow_line_slows_and_does_not_break() -> None:
    async with behind_doormen(1) as (cluster, doormen), atoll.urls.store(cluster.url) as store:
        await store.transact(put("k", b"0"))
        for proxy in doormen.proxies:
            proxy.be(Mood.FAITHFUL, delay_s=0.1)
        assert (await store.transact(put("k", b"1"))).results  # type: ignore[union-attr]
        for proxy in doormen.proxies:
            proxy.be(Mood.FAITHFUL, delay_s=0.6)
        await raises(OutcomeUnknown, store.transact(put("k", b"2")), 0.3)
        assert sum(proxy.counts.delayed for proxy in doormen.proxies) > 0


async def test_a_connection_cut_again_and_again_is_made_again() -> None:
    async with behind_doormen(1) as (cluster, doormen), atoll.urls.store(cluster.url) as store:
        for number in range(5):
            doormen.mood(Mood.CUT)
            doormen.mood(Mood.FAITHFUL)
            await store.transact(put(f"k{number}", b""))
        assert len((await store.range("k")).entries) == 5


async def test_what_is_over_a_limit_is_refused_before_it_is_sent(shared: Any) -> None:
    async with atoll.urls.store(shared("raft", nodes=3).url + "?value_bytes_max=2MB") as store:
        said = await raises(LimitReached, store.transact(put("bad-luck/k", bytes(1_100_000))), 2)
        assert "message_bytes_max" in said
        await raises(LimitReached, store.transact(put("k" * 1025, b"")), 2)
        assert (await store.get("bad-luck/k")).entry is None


async def test_an_oversize_command_that_a_stranger_sends_is_refused_and_the_member_goes_on(
    shared: Any,
) -> None:
    cluster = shared("raft", nodes=3)
    link = await line(cluster.addresses[2 * await cluster.leader()])
    try:
        data = command.pack([command.Transact((("bad-luck/large", bytes(1_500_000), None),))])
        answer = await link.ask(wire.Write(5, 1, data), 5, 5)
        assert isinstance(answer, wire.Refusal) and answer.said == wire.Said.TOO_LARGE
        assert isinstance(await link.ask(wire.Get("bad-luck/large"), 5, 5), wire.Rows)
    finally:
        link.close()


async def line(address: str) -> Link:
    link = Link(address, lambda link, news: None)
    await link.connect("", None, 5)
    return link


async def test_a_command_that_cannot_be_read_has_its_error_as_its_result_and_the_log_goes_on(
    shared: Any,
) -> None:
    cluster = shared("raft", nodes=3)
    link = await line(cluster.addresses[2 * await cluster.leader()])
    try:
        for number, data in enumerate([b"", b"\x01", bytes(9) + b"\xc1", b"\x63" + bytes(40)], 1):
            answer = await link.ask(wire.Write(clock.chance().getrandbits(60), 1, data), 5, 5)
            assert isinstance(answer, wire.Done), number
            [result] = command.unpack_results(answer.data)
            assert isinstance(result, command.Error) and result.sentence
        async with atoll.urls.store(cluster.url) as store:
            assert (await store.transact(put("bad-luck/after", b"1"))).results  # type: ignore[union-attr]
    finally:
        link.close()


@pytest.mark.parametrize("body", [b"\xc1", b"garbage" * 100, b"\x93\x01\x02\x91\x63", bytes(3000)])
async def test_a_client_that_talks_nonsense_is_hung_up_on_and_the_others_are_not(
    shared: Any, body: bytes
) -> None:
    cluster = shared("raft", nodes=3)
    bad, good = await line(cluster.addresses[0]), await line(cluster.addresses[0])
    try:
        asking = asyncio.create_task(bad.ask(wire.Get("k"), 5, 5))
        await asyncio.sleep(0)
        assert bad._connection is not None
        bad._connection.send(len(body).to_bytes(frames.LENGTH_BYTES, "big") + body)
        await asyncio.wait([asking], timeout=5)

        async def hung_up() -> bool:
            return not bad.standing

        await until(hung_up, "the one who talks nonsense is hung up on")
        assert isinstance(await good.ask(wire.Get("k"), 5, 5), wire.Rows)
    finally:
        with pytest.raises(Broken) if not asking.done() else _nothing():
            bad.close()
            await asking
        good.close()


class _nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> bool:
        return True


async def test_two_clusters_behind_one_url_are_refused() -> None:
    async with server("raft") as one, server("raft") as two:
        both = atoll.urls.store(f"raft://{one.addresses[0]},{two.addresses[0]}")
        said = await raises(ConfigurationError, both.transact(put("k", b"1")), 2)
        assert one.addresses[0] in said and two.addresses[0] in said
        await both.close()


async def test_another_cluster_in_the_place_of_the_first_is_not_believed() -> None:
    async with server("raft") as one, server("raft") as two:
        async with atoll.urls.store(one.url) as store:
            await store.transact(put("k", b"1"))
            at = await store.attached()  # type: ignore[attr-defined]
            one.members[0].kill()
            at.members.addresses[:] = [two.addresses[0]]
            at.members.leader = ""
            said = await raises(ConfigurationError, store.get("k"), 3)
            assert "one cluster only" in said


async def test_a_url_that_is_no_member_is_said_to_be_none(shared: Any) -> None:
    async def deaf(reader: Any, writer: Any) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    other = await asyncio.start_server(deaf, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    store = atoll.urls.store(f"raft://127.0.0.1:{port}")
    said = await raises(NotSent, store.get("k"), 1)
    assert str(port) in said
    other.close()


async def test_a_wiped_member_is_not_let_in_again_and_the_others_go_on() -> None:
    async with server("raft", nodes=3) as cluster, atoll.urls.store(cluster.url) as store:
        await store.transact(put("k", b"1"))
        wiped = (await cluster.leader() + 1) % 3
        cluster.members[wiped].kill()
        shutil.rmtree(cluster.members[wiped].folder / "data")
        cluster.members[wiped].launch()

        async def ended() -> bool:
            return cluster.members[wiped].pid is None

        await until(ended, "the wiped member gave up")
        log = Path(cluster.members[wiped].log).read_text()
        assert "another data folder" in log, log
        await store.transact(put("k", b"2"))
        assert store.examining
        found = {finding.setting: finding for finding in await store.examining.examine()}
        assert any("does not answer" in one.value and one.weight is Weight.COSTS for one in found.values())


async def test_what_the_examination_finds_is_what_is_missing() -> None:
    async with server("raft") as cluster, atoll.urls.store(cluster.url) as store:
        assert store.examining
        found = {finding.setting: finding for finding in await store.examining.examine()}
        assert found["voting members"].weight is Weight.COSTS and found["voting members"].fix
        assert (await store.open()).durable is Durable.NODE
        await cluster.facts["join"]()
        place = (await cluster.facts["status"](1))["place"]
        council = await store.council()  # type: ignore[attr-defined]
        await council.add("b", place, wait_s=20, say=lambda text: None)
        found = {finding.setting: finding for finding in await store.examining.examine()}
        assert found["voting members"].value == "2" and found["voting members"].weight is Weight.COSTS
        assert "members in the URL" in found
        cluster.members[1].kill()
        found = {finding.setting: finding for finding in await store.examining.examine()}
        assert found["member b"].weight is Weight.COSTS
        assert await store.examining.damage() == []


async def test_a_leader_that_is_removed_leaves_its_clients_to_its_successor() -> None:
    async with server("raft", nodes=3) as cluster, atoll.urls.store(cluster.url) as store:
        await store.transact(put("k", b"1"))
        first = await cluster.leader()
        council = await store.council()  # type: ignore[attr-defined]
        await council.remove("abc"[first], say=lambda text: None)
        await another_leader(cluster, first)
        await store.transact(put("k", b"2"))
        said = {one.name: (one.belongs, one.votes) for one in await council.members()}
        assert said.pop("abc"[first]) == (False, False), "it is named in the URL, and no member any more"
        assert set(said.values()) == {(True, True)}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("raft://a?ceiling=3", "knows"),
        ("raft://a?ceiling_s=0", "more than 0"),
        ("raft://a?ca=/nowhere.pem", "cannot be read"),
        ("raft://a/path", "path"),
        ("raft://me:secret@a", "password"),
        ("raft://", "no host"),
    ],
)
async def test_a_url_that_says_nonsense_is_refused_at_the_door(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        atoll.urls.store(url)
    assert "secret" not in str(caught.value)


async def test_tls_with_certificates_works_and_without_is_refused() -> None:
    async with server("raft", nodes=3, tls=True) as cluster:
        async with atoll.urls.store(cluster.url) as store:
            assert (await store.transact(put("k", bytes(300_000)))).results  # type: ignore[union-attr]
            entry = (await store.get("k")).entry
            assert entry and len(entry.value) == 300_000
            council = await store.council()  # type: ignore[attr-defined]
            assert all(one.answers for one in await council.members())
        plain = atoll.urls.store(cluster.url.partition("?")[0])
        await raises(NotSent, plain.get("k"), 1)
        ca = cluster.facts["ca"]
        with pytest.raises(ConfigurationError, match="all three"):
            atoll.urls.store(f"{cluster.url.partition('?')[0]}?ca={ca}")


async def test_a_write_that_is_called_not_sent_is_not_sent_later_beside_others() -> None:
    """Writes travel together, each with a deadline of its own: the one whose time is up is put down."""
    async with server("raft", nodes=3) as cluster, atoll.urls.store(cluster.url) as store:
        await store.transact(put("k", b"1"))
        leader = await cluster.leader()
        for number, member in enumerate(cluster.members):
            if number != leader:
                member.kill()

        async def nobody_leads() -> bool:
            return (await cluster.facts["status"](leader))["leader"] == ""

        await until(nobody_leads, "the one that is left knows that it does not lead")

        async def written(key: str, within_s: float) -> str:
            try:
                with atoll.deadline(within_s):
                    await store.transact(put(key, b"2"))
            except (NotSent, OutcomeUnknown) as error:
                return type(error).__name__
            return "written"

        first = asyncio.create_task(written("first", 0.4))  # it travels alone, and all others together
        patient = asyncio.create_task(written("patient", 30))
        hurried = [asyncio.create_task(written(f"hurried{n}", 1 + n / 10)) for n in range(5)]
        said = await asyncio.gather(*hurried)
        for number, member in enumerate(cluster.members):
            if number != leader:
                member.launch()
        assert (await patient, await first) in {("written", "NotSent"), ("written", "OutcomeUnknown")}
        assert "NotSent" in said, "those whose question did not fly at that moment"
        for number, word in enumerate(said):
            if word == "NotSent":
                assert (await store.get(f"hurried{number}")).entry is None, (
                    "it was called not sent, and was sent"
                )


async def test_a_question_that_makes_no_sense_is_its_askers_fault_alone(shared: Any) -> None:
    cluster = shared("raft", nodes=3)
    bad, good = await line(cluster.addresses[0]), await line(cluster.addresses[0])
    try:
        for number in range(20):
            senseless = command.pack([command.Transact((), (("k", 99, number),))])
            asked = asyncio.create_task(bad.ask(wire.Judge(senseless), 5, 5))
            answers = await asyncio.gather(*(good.ask(wire.Get(f"k{n}"), 5, 5) for n in range(20)))
            assert all(isinstance(answer, wire.Rows) for answer in answers)
            answer = await asked
            assert isinstance(answer, wire.Refusal) and answer.said == wire.Said.WRONG
    finally:
        bad.close()
        good.close()


@pytest.mark.parametrize("limit", [-1, 0, 1 << 63])
async def test_a_range_without_a_sensible_limit_is_hung_up_on(shared: Any, limit: int) -> None:
    link = await line(shared("raft", nodes=3).addresses[0])
    try:
        with pytest.raises(Broken):
            await link.ask(wire.Range("", None, limit), 5, 5)
    finally:
        link.close()


async def test_large_values_are_read_in_little_pieces_and_others_are_served_between(shared: Any) -> None:
    at = f"bad-luck/large-{clock.unique_id()[:8]}/"
    async with atoll.urls.store(shared("raft", nodes=3).url) as store:
        for number in range(40):
            await store.transact(put(f"{at}{number:02}", bytes(200_000)))
        got, found = await asyncio.gather(
            asyncio.gather(*(store.get(f"{at}{number % 40:02}") for number in range(200))), store.range(at)
        )
        assert all(one.entry and len(one.entry.value) == 200_000 for one in got)
        assert len(found.entries) == 40 and not found.more


async def test_a_client_that_asks_and_never_reads_does_not_fill_the_member(shared: Any) -> None:
    cluster = shared("raft", nodes=3)
    member, key = cluster.members[0], f"bad-luck/unread-{clock.unique_id()[:8]}"
    async with atoll.urls.store(cluster.url) as store:
        await store.transact(put(key, bytes(500_000)))
        before = resident(member.pid)
        deaf = await line(cluster.addresses[0])
        assert deaf._connection is not None
        deaf._connection.pause_reading()
        asked = [asyncio.create_task(deaf.ask(wire.Get(key), 30, 30)) for _ in range(100)]
        while not all(task.done() for task in asked) and len(asked) < 3000:
            await store.get(key)  # the others are served meanwhile
            asked += [asyncio.create_task(deaf.ask(wire.Get(key), 30, 30)) for _ in range(100)]
        assert resident(member.pid) - before < 400 << 20
        assert (await store.get(key)).entry
        deaf.close()
        await asyncio.gather(*asked, return_exceptions=True)


def resident(pid: Any) -> int:
    """Bytes of memory that a process has."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * 4096


@pytest.mark.parametrize(
    "member", ["x=127.0.0.1:99999", "x y=127.0.0.1:7000", "x=127.0.0.1:7000/path", "=h:1"]
)
async def test_a_member_that_nobody_could_reach_is_not_taken_in(member: str, capsys: Any) -> None:
    from atoll.cli.main import main

    async with server("raft") as cluster:
        assert await asyncio.to_thread(main, ["cluster", "add", cluster.url, member, "--wait", "1"]) == 2
        assert "expected" in capsys.readouterr().err
        assert (await cluster.facts["status"](0))["learners"] == []
