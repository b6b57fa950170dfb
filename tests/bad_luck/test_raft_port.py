"""4.4: what strangers may send to a real member's port: slowly, too much, from another age, or nonsense."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

import atoll
import atoll.urls
from atoll.engines.raft import command, frames, wire
from atoll.engines.raft.connection import TurnedAway, dial
from atoll.engines.raft.frames import FORMAT, MAGIC, Caller, Hello, Refusal, Why, pack
from atoll.engines.raft.link import Link
from atoll.errors import ConfigurationError
from atoll.ports.store import put
from engines.raft_crowd import rss_kb
from engines.raft_ways import until
from servers import server

SLOW = 400
"""More than a member lets wait in its hall."""


def nothing(*words: Any) -> None:
    return None


async def test_hundreds_who_greet_a_byte_at_a_time_are_shown_out_and_cost_no_memory() -> None:
    async with server("raft") as cluster, atoll.urls.store(cluster.url) as store:
        await store.transact(put("k", b"1"))
        pid = cluster.members[0].pid
        assert pid
        before = rss_kb(pid)
        host, _, port = cluster.addresses[0].rpartition(":")
        greeting = pack(Hello(MAGIC, FORMAT, FORMAT, "", Caller.CLIENT, "slow"))
        doors = [await asyncio.open_connection(host, int(port)) for _ in range(SLOW)]
        for n in range(20):
            for _, writer in doors:
                if not writer.is_closing():
                    writer.write(greeting[n : n + 1])
            await store.transact(put("k", b"2"))
        assert rss_kb(pid) - before < 16_000
        ends = [asyncio.ensure_future(_ended(reader)) for reader, _ in doors]
        _, waiting = await asyncio.wait(ends, timeout=20)
        assert not waiting, f"{len(waiting)} of {SLOW} who did not greet are still inside"
        for _, writer in doors:
            writer.close()
        assert (await store.get("k")).entry


async def _ended(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(1000):
            pass
    except ConnectionError:
        pass


async def test_a_length_of_gigabytes_is_refused_before_a_byte_of_it_is_kept() -> None:
    async with server("raft") as cluster, atoll.urls.store(cluster.url) as store:
        pid = cluster.members[0].pid
        assert pid
        before = rss_kb(pid)
        hello = pack(Hello(MAGIC, FORMAT, FORMAT, "", Caller.CLIENT, "large"))
        host, _, port = cluster.addresses[0].rpartition(":")
        for start in (b"", hello):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(start + b"\x7f\xff\xff\xff")
            try:
                for _ in range(64):
                    writer.write(bytes(1 << 16))
                    await writer.drain()
            except ConnectionError:
                pass
            await asyncio.wait_for(_ended(reader), 10)
            writer.close()
        assert rss_kb(pid) - before < 16_000
        assert (await store.transact(put("k", b"1"))).results  # type: ignore[union-attr]


@pytest.mark.parametrize("caller", [Caller.CLIENT, Caller.PEER])
async def test_who_speaks_a_format_two_ahead_is_refused_with_both_ranges(shared: Any, caller: Caller) -> None:
    cluster = shared("raft", nodes=3)
    status = await cluster.facts["status"](0)
    hello = Hello(MAGIC, FORMAT + 2, FORMAT + 2, status["cluster"], caller, "newer")
    with pytest.raises(TurnedAway) as refusal:
        await dial(cluster.addresses[0], hello, nothing, nothing)
    assert refusal.value.why == Why.FORMAT
    assert f"{FORMAT + 2} to {FORMAT + 2}" in str(refusal.value) and "'newer'" in str(refusal.value)


async def test_a_member_of_the_future_is_named_to_the_user() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(frames.LENGTH_BYTES)
        writer.write(pack(Refusal(Why.FORMAT, "found a caller in format 1; expected 3 to 4. Update it.")))
        await writer.drain()
        writer.close()

    future = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = future.sockets[0].getsockname()[1]
    store = atoll.urls.store(f"raft://127.0.0.1:{port}")
    with pytest.raises(ConfigurationError, match=r"expected 3 to 4\. Update it") as refusal:
        await store.get("k")
    assert str(port) in str(refusal.value)
    future.close()


NUMBERS = (0, 1, -1, 2**31, 2**63 - 1, -(2**63), 2**64 - 1)
SECONDS = (0.0, -1.0, 1e-300, 1e308, float("inf"), float("nan"), 3.0)
TEXTS = ("", "k", "\x00", "k" * 70_000, "lock/\u2028\U0001f3dd", "atoll-lease/x", "l1")
VALUES = (None, b"", b"v", bytes(60_000))


def odd(dice: random.Random) -> list[Any]:
    """Commands as no client of ours would write them."""

    def one() -> Any:
        text, number, pick = dice.choice(TEXTS), dice.choice(NUMBERS), dice.choice
        then = tuple((pick(TEXTS), pick(VALUES), pick((None, "l1", ""))) for _ in range(dice.randrange(4)))
        expected: tuple[Any, ...] = (number, b"v", b"")
        compare = tuple(
            (pick(TEXTS), pick((0, 1, 2, 3, -1, 2**40)), pick(expected)) for _ in range(dice.randrange(3))
        )
        guard = pick((None, (text, pick(NUMBERS), pick(NUMBERS))))
        return pick(
            (
                command.Transact(then, compare, guard, pick((None, None, text))),
                command.Grant(text, pick(SECONDS)),
                command.Revoke(text),
                command.Expire(tuple(pick(TEXTS) for _ in range(3))),
                command.Bump(number),
            )
        )

    return [one() for _ in range(dice.randrange(1, 6))]


async def test_commands_that_no_client_would_write_have_a_result_each_and_all_members_agree() -> None:
    """A state machine that raised would stop at one of these; its error is a result, everywhere alike."""
    dice = random.Random(57213)
    async with server("raft", nodes=3) as cluster:
        link = Link(cluster.addresses[2 * await cluster.leader()], nothing)
        await link.connect("", None, 5)
        kinds: dict[str, int] = {}
        for number in range(1, 401):
            commands = odd(dice)
            answer = await link.ask(wire.Write(7, number, command.pack(commands)), 5, 5)
            assert isinstance(answer, wire.Done), (commands, answer)
            results = command.unpack_results(answer.data)
            assert len(results) in (1, len(commands))
            for result in results:
                kinds[type(result).__name__] = kinds.get(type(result).__name__, 0) + 1
        link.close()
        assert {"Done", "Unmet", "Granted", "Raised", "Error"} <= kinds.keys(), kinds
        assert all(member.pid for member in cluster.members)
        async with atoll.urls.store(cluster.url) as store:
            await store.transact(put("last", b"1"))
            after = (await cluster.facts["status"](await cluster.leader()))["applied"]
        told = []
        for place, number in zip(cluster.addresses[::2], range(3), strict=True):

            async def there(number: int = number) -> bool:
                return bool((await cluster.facts["status"](number))["applied"] >= after)

            await until(there, "it has applied all")
            async with atoll.urls.store(f"raft://{place}") as alone:
                told.append([(e.key, e.value, e.revision, e.lease) for e in (await alone.range("")).entries])
        assert told[0] == told[1] == told[2]
