"""3.7: a register on NATS when servers go, stall, fill up or refuse: never a hang, each its own error."""

from __future__ import annotations

import pytest

import atoll
from atoll import clock
from atoll.engines.nats import NatsRegister, names
from atoll.errors import (
    AtollError,
    ConfigurationError,
    DiskFull,
    FormatRefused,
    NotSent,
    OutcomeUnknown,
    WatchLost,
)
from atoll.ports.register import ABSENT, Applied, Entry
from atoll.ports.store import Durable
from atoll.urls import register
from atoll.verify.conformance import eventually
from atoll.verify.conformance_observe import Picture
from servers import Shared, server


def kept(answer: object) -> Entry:
    assert isinstance(answer, Applied) and answer.results[0] is not None
    return answer.results[0]


@pytest.mark.parametrize("key", ["a", "a/b", "a//b", "/", "x y.z*>=", "é/ключ", "100%/=3D", "_-9"])
def test_a_key_comes_back_from_its_subject(key: str) -> None:
    assert names.key(names.subject(key)) == key
    assert not set(names.subject(key)) & set(" *>/")


def test_keys_that_differ_have_subjects_that_differ() -> None:
    keys = ["a.b", "a/b", "a=b", "a=2Eb", "", "=", "a/", "a/=", "a"]
    assert len({names.subject(key) for key in keys}) == len(keys)


async def test_it_claims_no_more_than_nats_keeps(shared: Shared) -> None:
    claims = await register(shared("nats").url).open()
    assert claims.durable is Durable.NONE and not claims.linearizable and claims.operations_max == 1


async def test_nobody_there_is_not_sent_within_the_deadline() -> None:
    began = clock.loop_now()
    with atoll.deadline(1.5):
        with pytest.raises(NotSent, match="no NATS server answers at nats:"):
            await register("nats://127.0.0.1:1/x").get("k")
    assert clock.loop_now() - began < 4


async def test_a_wrong_password_is_said_and_not_shown() -> None:
    async with server("nats", user="ada", password="right-0ne") as cluster:
        async with register(cluster.url) as known:
            await known.get("k")
        wrong = register(cluster.url.replace("right-0ne", "wr0ng-one"))
        with pytest.raises(ConfigurationError, match="refused the user or the password") as refused:
            await wrong.get("k")
        assert "wr0ng-one" not in f"{refused.value}{wrong!r}{wrong.url}"


async def test_the_error_of_a_server_without_jetstream_names_the_switch() -> None:
    from nats.js.errors import ServiceUnavailableError

    from atoll.engines.nats.connection import of

    told = of(ServiceUnavailableError(), "opening", "nats://h/x", sent=True)
    assert isinstance(told, NotSent) and "-js" in str(told)


async def test_a_stalled_server_is_an_unknown_outcome_by_the_deadline() -> None:
    async with server("nats") as cluster, register(cluster.url) as mine:
        entry = kept(await mine.put_if("k", b"1", ABSENT))
        cluster.members[0].pause()
        began = clock.loop_now()
        with atoll.deadline(1), pytest.raises(OutcomeUnknown):
            await mine.put_if("k", b"2", entry.revision)
        assert clock.loop_now() - began < 3
        cluster.members[0].resume()

        async def back() -> bool:
            try:
                return (await mine.get("k")).entry is not None
            except AtollError:
                return False

        await eventually(back, "it answers again")


async def test_a_watch_heals_when_the_server_was_killed() -> None:
    async with server("nats") as cluster, register(cluster.url) as mine:
        kept(await mine.put_if("w/a", b"1", ABSENT))
        picture = Picture(mine.observe("w/"))
        await picture.step("the first observation")
        cluster.members[0].kill()
        await cluster.members[0].start()

        async def written() -> bool:
            try:
                found = (await mine.get("w/a")).entry
                expected = found.revision if found else ABSENT
                return isinstance(await mine.put_if("w/a", b"2", expected), Applied)
            except AtollError:
                return False

        await eventually(written, "it takes writes again")
        await picture.until(lambda known: "w/a" in known and known["w/a"].value == b"2", "the news after it")


async def test_a_watch_of_a_server_that_stays_silent_is_lost() -> None:
    async with server("nats") as cluster, register(f"{cluster.url}?liveness_s=2&ceiling_s=1") as mine:
        picture = Picture(mine.observe("w/"))
        await picture.step("the first observation")
        cluster.members[0].pause()
        with pytest.raises(WatchLost, match="has not answered a watch"):
            await picture.step("nothing")


async def test_a_full_stream_is_disk_full() -> None:
    async with server("nats", store_bytes=200_000) as cluster, register(cluster.url) as mine:
        with pytest.raises(DiskFull, match="no room left"):
            for number in range(100):
                await mine.put_if(f"k{number}", b"x" * 50_000, ABSENT)


async def test_values_of_somebody_else_are_refused(shared: Shared) -> None:
    import nats

    url = shared("nats").url.rpartition("/")[0] + "/foreign"
    async with register(url) as mine:
        await mine.get("k")
        client = await nats.connect(url.rpartition("/")[0])
        try:
            await client.jetstream().publish("$KV.foreign.k", b"hello")
        finally:
            await client.close()
        with pytest.raises(FormatRefused, match="bucket of Atoll's own"):
            await mine.get("k")


async def test_a_bucket_with_reads_from_followers_is_refused(shared: Shared) -> None:
    import nats

    client = await nats.connect(shared("nats").url.rpartition("/")[0])
    try:
        await client.jetstream().create_key_value(bucket="direct", direct=True)
    finally:
        await client.close()
    with pytest.raises(ConfigurationError, match="allow_direct"):
        await register(shared("nats").url.rpartition("/")[0] + "/direct").get("k")


async def test_a_client_of_the_caller_s_own_stays_open(shared: Shared) -> None:
    import nats

    client = await nats.connect(shared("nats").url.rpartition("/")[0])
    try:
        async with NatsRegister(client=client, bucket="mine") as mine:
            kept(await mine.put_if("k", b"1", ABSENT))
        assert client.is_connected
    finally:
        await client.close()


@pytest.mark.parametrize("words", ["replicas=2", "ceiling_s=0", "nope=1"])
def test_wrong_options_are_refused(words: str) -> None:
    with pytest.raises(ConfigurationError):
        register(f"nats://h/x?{words}")


async def test_three_servers_go_on_without_their_leader() -> None:
    async with server("nats", nodes=3) as cluster:
        async with register(f"{cluster.url}?replicas=3&ceiling_s=3") as mine:

            async def first() -> bool:
                try:
                    found = (await mine.get("k")).entry
                    kept(await mine.put_if("k", b"1", found.revision if found else ABSENT))
                    return True
                except AtollError:
                    return False

            await eventually(first, "the cluster takes a write")
            info = await (await mine._bucket()).stream.stream_info(mine.stream)
            leader = int(info.cluster.leader.removeprefix("n"))
            cluster.members[leader].kill()

            async def second() -> bool:
                try:
                    found = (await mine.get("k")).entry
                    return found is not None and isinstance(
                        await mine.put_if("k", b"2", found.revision), Applied
                    )
                except AtollError:
                    return False

            await eventually(second, "the others take a write")
