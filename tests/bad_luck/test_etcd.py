"""3.2: bad input and bad luck with etcd: each its own error, in the right family, never past the deadline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

import atoll
import atoll.urls
from atoll import clock
from atoll.errors import (
    AtollError,
    ConfigurationError,
    DiskFull,
    EpochUncertain,
    LimitReached,
    NotSent,
    OutcomeUnknown,
    ReadOnly,
)
from atoll.ports.examining import Weight
from atoll.ports.store import Token, put
from atoll.verify.proxy import Mood, Proxy
from atoll.verify.servers.etcd import PASSWORD
from atoll.verify.servers.process import free_port
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


def proxied(cluster: Any) -> Proxy:
    host, _, port = cluster.addresses[0].partition(":")
    return Proxy(host, int(port))


async def test_nobody_there_is_said_to_be_not_sent() -> None:
    store = atoll.urls.store(f"etcd://127.0.0.1:{free_port()}")
    said = await raises(NotSent, store.transact(put("k", b"1")), 0.5)
    assert "Nothing happened" in said


async def test_a_deadline_that_has_passed_sends_nothing() -> None:
    store = atoll.urls.store(f"etcd://127.0.0.1:{free_port()}")

    async def late() -> None:
        await asyncio.sleep(0.06)
        await store.get("k")

    await raises(NotSent, late(), 0.05)


async def test_wrong_credentials_are_the_programs_fault_and_the_password_is_never_shown() -> None:
    async with server("etcd", auth=True) as cluster:
        wrong = atoll.urls.store(cluster.url.replace(PASSWORD, "other-Secret"))
        said = await raises(ConfigurationError, wrong.get("k"), 2)
        assert "other-Secret" not in said + repr(wrong) + wrong.url
        await wrong.close()
        without = atoll.urls.store(cluster.url.replace(f"root:{PASSWORD}@", ""))
        await raises(ConfigurationError, without.get("k"), 2)
        await without.close()
        async with atoll.urls.store(cluster.url) as right:
            assert (await right.transact(put("k", b"1"))).results
            assert right.examining and await right.examining.examine()


async def test_a_token_that_the_servers_forgot_is_asked_for_again() -> None:
    async with server("etcd", auth=True, arguments=("--auth-token-ttl", "1")) as cluster:
        async with atoll.urls.store(cluster.url) as store:
            await store.transact(put("k", b"1"))
            await cluster.members[0].restart()
            assert (await store.transact(put("k", b"2"))).results
            at = await store.attached()  # type: ignore[attr-defined]
            at.client.token = "gone.1"
            assert (await store.transact(put("k", b"3"))).results
            at.client.token = "gone.2"
            assert store.leasing and (await store.leasing.grant(5)).ttl_s >= 5


async def test_who_may_only_read_is_told_so() -> None:
    async with server("etcd", auth=True) as cluster:
        async with atoll.urls.store(cluster.url) as root:
            await root.transact(put("k", b"1"))
        ask = cluster.facts["ask"]
        await ask(0, "/v3/auth/role/add", name="reader")
        await ask(0, "/v3/auth/role/grant", name="reader", perm=_all_keys("READ"))
        await ask(0, "/v3/auth/user/add", name="ann", password="pw")
        await ask(0, "/v3/auth/user/grant", user="ann", role="reader")
        reader = atoll.urls.store(cluster.url.replace(f"root:{PASSWORD}", "ann:pw"))
        entry = (await reader.get("k")).entry
        assert entry and entry.value == b"1"
        said = await raises(ReadOnly, reader.transact(put("k", b"2")), 2)
        assert "grant-permission" in said
        await reader.close()


def _all_keys(permission: str) -> dict[str, str]:
    return {"permType": permission, "key": "YXRvbGwv", "range_end": "YXRvbGww"}  # atoll/ to atoll0


async def test_a_server_that_answers_nothing_leaves_a_write_unknown_and_never_hangs() -> None:
    async with server("etcd") as cluster:
        async with atoll.urls.store(cluster.url) as store:
            await store.transact(put("k", b"1"))
            cluster.members[0].pause()
            await raises(OutcomeUnknown, store.transact(put("k", b"2"), request_id=None), 0.5)
            other = atoll.urls.store(cluster.url)
            await raises(NotSent, other.transact(put("k", b"3")), 0.5)
            await other.close()
            cluster.members[0].resume()
            entry = (await store.get("k")).entry
            assert entry and entry.value in (b"1", b"2"), "what was never sent was written"


async def test_an_answer_lost_leaves_a_write_unknown_and_its_id_asks_again_without_doing_it_twice() -> None:
    async with server("etcd") as cluster, proxied(cluster) as proxy:
        async with atoll.urls.store(f"etcd://{proxy.address}") as store:
            assert store.history
            begin = await store.history.now()
            for number in range(5):
                await store.transact(put("k", b"0"), request_id=f"before-{number}")
                proxy.be(Mood.SWALLOW)
                with pytest.raises(OutcomeUnknown) as caught:
                    await store.transact(put("k", b"%d" % number), request_id=f"mine-{number}")
                assert caught.value.id == f"mine-{number}"
                proxy.be(Mood.FAITHFUL)
                await store.transact(put("k", b"%d" % number), request_id=f"mine-{number}")
            assert proxy.counts.answers_swallowed >= 5
            last = await store.transact(put("k", b"end"))
            told = []
            async for change in store.history.changes("k", begin):
                told += [entry.value for entry in change.changed]
                if change.at.revision >= last.revision:
                    break
            assert told == [value for n in range(5) for value in (b"0", b"%d" % n)] + [b"end"]


async def test_a_grant_whose_answer_is_lost_grants_once() -> None:
    async with server("etcd") as cluster, proxied(cluster) as proxy:
        async with atoll.urls.store(f"etcd://{proxy.address}") as store:
            assert store.leasing
            proxy.be(Mood.SWALLOW)
            granting = asyncio.create_task(store.leasing.grant(77))
            async with asyncio.timeout(10):
                while proxy.counts.answers_swallowed == 0:
                    await asyncio.sleep(0.001)
            proxy.be(Mood.FAITHFUL)
            granted = await granting
            assert granted.ttl_s == 77
            leases = await cluster.facts["ask"](0, "/v3/lease/leases")
            left = [await store.leasing.remaining(f"{int(one['ID']):016x}") for one in leases["leases"]]
            assert sum(seconds is not None and seconds > 70 for seconds in left) == 1


async def test_a_slow_line_slows_and_does_not_break() -> None:
    async with server("etcd") as cluster, proxied(cluster) as proxy:
        proxy.be(Mood.FAITHFUL, delay_s=0.1)
        async with atoll.urls.store(f"etcd://{proxy.address}") as store:
            assert (await store.transact(put("k", b"1"))).results
            proxy.be(Mood.FAITHFUL, delay_s=0.6)
            await raises(OutcomeUnknown, store.transact(put("k", b"2")), 0.3)
        assert proxy.counts.delayed > 0


async def test_a_connection_cut_again_and_again_is_made_again() -> None:
    async with server("etcd") as cluster, proxied(cluster) as proxy:
        async with atoll.urls.store(f"etcd://{proxy.address}") as store:
            for number in range(5):
                proxy.be(Mood.CUT)
                proxy.be(Mood.FAITHFUL)
                answer = None
                while answer is None:
                    try:
                        answer = await store.transact(put(f"k{number}", b""))
                    except OutcomeUnknown:
                        continue
            assert len((await store.range("k")).entries) == 5


async def test_a_full_database_is_disk_full_and_reads_go_on() -> None:
    async with server("etcd", quota_bytes=4_000_000) as cluster:
        async with atoll.urls.store(cluster.url) as store:
            with pytest.raises(DiskFull, match="etcdctl"):
                for number in range(100):
                    await store.transact(put(f"k{number}", bytes(500_000)))
            entry = (await store.get("k0")).entry
            assert entry and len(entry.value) == 500_000
            assert store.examining
            async with asyncio.timeout(10):
                while not _alarmed(await store.examining.examine()):
                    await asyncio.sleep(0.05)


def _alarmed(found: Any) -> bool:
    return any(f.setting == "alarm" and f.weight is Weight.BREAKS and f.fix for f in found)


async def test_what_is_over_a_limit_is_refused_before_it_is_sent(shared: Any) -> None:
    async with atoll.urls.store(shared("etcd").url + "?value_bytes_max=2MB") as store:
        said = await raises(LimitReached, store.transact(put("bad-luck/k", bytes(1_600_000))), 2)
        assert "request_bytes_max" in said
        await raises(LimitReached, store.transact(put("k" * 1025, b"")), 2)


async def test_limits_that_the_servers_do_not_share_are_said_to_be_theirs() -> None:
    small = ("--max-txn-ops", "10", "--max-request-bytes", "100000")
    async with server("etcd", arguments=small) as cluster, atoll.urls.store(cluster.url) as store:
        assert "operations_max" in await raises(
            LimitReached, store.transact(*(put(f"k{n}", b"") for n in range(20))), 2
        )
        assert "request_bytes_max" in await raises(LimitReached, store.transact(put("k", bytes(200_000))), 2)
        assert "request_bytes_max" in await raises(
            LimitReached, store.transact(put("k", bytes(1_000_000))), 2
        )
        assert (await store.get("k")).entry is None


async def test_two_clusters_behind_one_url_are_refused() -> None:
    async with server("etcd") as one, server("etcd") as two:
        both = atoll.urls.store(f"etcd://{one.addresses[0]},{two.addresses[0]}")
        said = await raises(ConfigurationError, both.transact(put("k", b"1")), 2)
        assert one.addresses[0] in said and two.addresses[0] in said
        await both.close()


async def test_another_cluster_in_the_place_of_the_first_is_not_believed(tmp_path: Path) -> None:
    """The data is copied to a new cluster, as a restore does: tokens might repeat, so guards are refused."""
    async with server("etcd") as one, server("etcd") as two, proxied(one) as proxy:
        async with atoll.urls.store(f"etcd://{proxy.address}") as store:
            owner = (await store.transact(put("owner", b"{}"))).results[0]  # type: ignore[union-attr]
            held = _Held("owner", Token(await store.epoch(), owner.revision))
            await store.transact(put("k", b"1"), guard=held)
            async with atoll.urls.store(f"etcd://{two.addresses[0]}") as other:
                at = await store.attached()  # type: ignore[attr-defined]
                await _copied_card(at, await other.attached())  # type: ignore[attr-defined]
            host, _, port = two.addresses[0].partition(":")
            proxy.host, proxy.port = host, int(port)
            proxy.be(Mood.CUT)
            proxy.be(Mood.FAITHFUL)
            await raises(EpochUncertain, _patiently(lambda: store.epoch()), 3)
            await raises(EpochUncertain, store.transact(put("k", b"2"), guard=held), 3)
            assert store.leasing and store.moving
            await raises(EpochUncertain, store.leasing.grant(5), 3)
            assert await store.moving.bump() == 2 == await store.epoch()
            assert (await store.leasing.grant(5)).ttl_s >= 5


async def _patiently(call: Any) -> object:
    """The first question after a cut may not know its outcome."""
    while True:
        try:
            return await call()
        except OutcomeUnknown:
            continue


async def _copied_card(at: Any, other: Any) -> None:
    await other.change("a copy", lambda mine, header: at.card)


class _Held:
    def __init__(self, owner_key: str, token: Token) -> None:
        self.owner_key, self.token = owner_key, token

    def check(self) -> None:
        return None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("etcd://a?ceiling=3", "knows"),
        ("etcd://a?ceiling_s=0", "more than 0"),
        ("etcd://a?cert=/nowhere.pem", "cannot be read"),
        ("etcd:///prefix", "no host"),
    ],
)
async def test_a_url_that_says_nonsense_is_refused_at_the_door(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        atoll.urls.store(url)


async def test_what_is_not_ours_under_the_path_is_refused(shared: Any) -> None:
    cluster = shared("etcd")
    async with atoll.urls.store(f"{cluster.url}/mine") as store:
        at = await store.attached()  # type: ignore[attr-defined]
        from atoll.engines.etcd import wire

        newer = json.dumps({"format": 99}).encode()
        request = wire.MESSAGES["TxnRequest"]()
        request.success.add().request_put.key = b"theirs/m/state"
        request.success[0].request_put.value = newer
        await at.client.write("Txn", request.SerializeToString(), "a put")
    theirs = atoll.urls.store(f"{cluster.url}/theirs")
    with pytest.raises(atoll.FormatRefused, match="format 99"):
        await theirs.open()


async def test_tls_with_a_client_certificate_works_and_without_is_refused() -> None:
    async with server("etcd", tls=True, mutual=True) as cluster:
        async with atoll.urls.store(cluster.url) as store:
            assert (await store.transact(put("k", bytes(300_000)))).results
            entry = (await store.get("k")).entry
            assert entry and len(entry.value) == 300_000
        bare = atoll.urls.store(f"etcds://{cluster.addresses[0]}")
        said = await raises(NotSent, bare.get("k"), 1)
        assert "certificate" in said.lower()
        plain = atoll.urls.store(f"etcd://{cluster.addresses[0]}")
        await raises(NotSent, plain.get("k"), 1)
        shown = atoll.urls.store(f"etcds://{cluster.addresses[0]}?ca={cluster.facts['ca']}")
        await raises(NotSent, shown.get("k"), 1)
