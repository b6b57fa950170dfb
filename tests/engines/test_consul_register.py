"""3.7: a register on Consul, against a stand-in made from its documented rules. Real Consul: not run here."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from consul_stand_in import stand_in

import atoll
from atoll import clock
from atoll.errors import AtollError, ConfigurationError, NotSent, OutcomeUnknown, WatchLost
from atoll.ports.register import ABSENT, Applied, Observation
from atoll.testing import NotTested, conformance
from atoll.urls import register
from atoll.verify.conformance import eventually
from atoll.verify.conformance_observe import Picture


@pytest.mark.parametrize("spurious", [False, True], ids=["", "with wake-ups for nothing"])
@pytest.mark.parametrize("check", conformance("register"), ids=str)
async def test_it_keeps_the_promises_of_a_register(check: Any, spurious: bool) -> None:
    async with stand_in(spurious=spurious) as consul:
        try:
            await check(consul.url)
        except NotTested as reason:
            pytest.skip(str(reason))


async def test_a_removal_has_a_revision_of_its_own() -> None:
    async with stand_in() as consul, register(consul.url) as mine:
        put = await mine.put_if("k", b"1", ABSENT)
        assert isinstance(put, Applied)
        gone = await mine.delete_if("k", put.revision)
        assert isinstance(gone, Applied) and gone.revision == put.revision + 1 == consul.index


async def test_wake_ups_without_news_are_kept_back() -> None:
    async with stand_in(spurious=True) as consul, register(consul.url) as mine:
        seen: list[Observation] = []

        async def watch() -> None:
            async for item in mine.observe("w/"):
                seen.append(item)

        task = asyncio.create_task(watch())
        for number in range(5):
            await mine.put_if(f"other/{number}", b"x", ABSENT)
        await mine.put_if("w/a", b"1", ABSENT)
        while not any(item.changed for item in seen):
            await asyncio.sleep(0.01)
        task.cancel()
        assert len(seen) == 2 and seen[0].reset and not seen[1].reset


async def test_an_index_that_went_back_is_a_reset() -> None:
    async with stand_in() as consul, register(consul.url) as mine:
        await mine.put_if("w/a", b"1", ABSENT)
        picture = Picture(mine.observe("w/"))
        await picture.step("the first observation")
        consul.index, consul.rows, consul.removed = 3, {}, {}
        consul.apply([{"Verb": "set", "Key": "app/w/b", "Value": "Mg=="}])
        async with consul.bell:
            consul.bell.notify_all()
        item = await anext(picture.observations)
        assert item.reset and [entry.key for entry in item.changed] == ["w/b"]


async def test_a_wrong_token_is_said_and_not_shown() -> None:
    async with stand_in(token="s3cret") as consul:
        async with register(consul.url) as known:
            await known.get("k")
        wrong = register(consul.url.replace("s3cret", "wr0ng"))
        with pytest.raises(ConfigurationError, match="refused the token") as refused:
            await wrong.get("k")
        assert "wr0ng" not in f"{refused.value}{wrong!r}{wrong.url}"


async def test_without_a_leader_nothing_was_sent() -> None:
    async with stand_in() as consul, register(consul.url) as mine:
        await mine.get("k")
        consul.leaderless = True
        with pytest.raises(NotSent, match="no leader"):
            await mine.put_if("k", b"1", ABSENT)


async def test_a_failure_in_the_middle_is_an_unknown_outcome() -> None:
    async with stand_in() as consul, register(consul.url) as mine:
        await mine.get("k")
        consul.stammers = True
        with pytest.raises(OutcomeUnknown):
            await mine.put_if("k", b"1", ABSENT)
        assert consul.value("app/k") == b"1", "it had happened"


async def test_nobody_there_is_not_sent_by_the_deadline() -> None:
    began = clock.loop_now()
    with atoll.deadline(1), pytest.raises(NotSent, match="no Consul agent"):
        await register("consul://127.0.0.1:1/x").get("k")
    assert clock.loop_now() - began < 3


async def test_a_silent_agent_is_unknown_by_the_deadline_and_its_watch_is_lost() -> None:
    held = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        await reader.read()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    began = clock.loop_now()
    with atoll.deadline(0.5), pytest.raises(OutcomeUnknown):
        await register(f"consul://127.0.0.1:{port}/x").put_if("k", b"1", ABSENT)
    assert clock.loop_now() - began < 3
    for writer in held:
        writer.close()
    listening.close()


async def test_a_watch_outlives_a_short_silence_and_not_a_long_one() -> None:
    async with stand_in() as consul, register(f"{consul.url}?liveness_s=1") as mine:
        picture = Picture(mine.observe("w/"))
        await picture.step("the first observation")
        consul.leaderless = True
        waiting = asyncio.ensure_future(picture.step("news"))
        while not consul.silences:
            await asyncio.sleep(0.01)
        consul.leaderless = False

        async def put() -> bool:
            try:
                return isinstance(await mine.put_if("w/a", b"1", ABSENT), Applied)
            except AtollError:
                return False

        await eventually(put, "it takes a write")
        assert (await waiting).changed
        consul.leaderless = True
        with pytest.raises(WatchLost):
            await picture.step("nothing")


@pytest.mark.parametrize("words", ["ceiling_s=0", "liveness_s=-1", "nope=1"])
def test_wrong_options_are_refused(words: str) -> None:
    with pytest.raises(ConfigurationError):
        register(f"consul://h/x?{words}")
