"""ZookeeperStore where ZooKeeper is different: versions, sessions, nodes, and a client of the team's own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, cast

import pytest
from kazoo.client import KazooClient

import atoll
from atoll import Lock, clock
from atoll.engines.zookeeper import ZookeeperStore, transaction, writing
from atoll.engines.zookeeper.leases import Lease
from atoll.engines.zookeeper.limits import ZookeeperOptions
from atoll.engines.zookeeper.link import Link
from atoll.engines.zookeeper.opened import Opened
from atoll.errors import ConfigurationError, LeaseOver, LimitReached
from atoll.ports.examining import Weight
from atoll.ports.register import Applied, Unmet
from atoll.ports.store import absent, created, delete, put, unchanged
from atoll.verify.servers.cluster import Cluster


@pytest.fixture
def cluster(shared: Any) -> Cluster:
    found: Cluster = shared("zookeeper", tick_ms=200)
    return found


def opened(cluster: Cluster, root: str = "", **options: Any) -> ZookeeperStore:
    return ZookeeperStore(
        cluster.addresses[0], root=root or f"store-{clock.unique_id()}", options=ZookeeperOptions(**options)
    )


async def reborn_meanwhile(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Applied | Unmet:
    """Between one's look and one's write another deletes the key and makes it again: both at version 0."""
    async with opened(cluster) as one, opened(cluster, one._tree.base.strip("/")) as other:
        await one.transact(put("k", b"first life"))
        first = (await one.get("k")).entry
        assert first is not None
        whole = writing.planned

        async def rebirth() -> None:
            await other.transact(delete("k"))
            await other.transact(put("k", b"second life"))

        planned = []

        def late(*arguments: Any) -> Any:
            planned.append(whole(*arguments))
            return planned[-1]

        monkeypatch.setattr(writing, "planned", late)
        write = Opened.write

        async def after_rebirth(self: Opened, *arguments: Any, **words: Any) -> Any:
            if self is not other._opening.inside and len(planned) == 1:
                monkeypatch.setattr(writing, "planned", whole)
                await rebirth()
            return await write(self, *arguments, **words)

        monkeypatch.setattr(Opened, "write", after_rebirth)
        return await one.transact(put("k", b"wrong"), compare=[created("k", first.create_revision)])


async def test_a_key_made_anew_is_not_mistaken_for_the_old_one(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await reborn_meanwhile(cluster, monkeypatch)
    assert isinstance(answer, Unmet)
    entry = answer.entries["k"]
    assert entry is not None and entry.value == b"second life"


async def test_by_its_version_alone_it_would_be(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = writing.planned

    def by_version_alone(*arguments: Any) -> Any:
        plan = whole(*arguments)
        kept = [line for line in plan.lines if not ("/lives/" in line.path and line.kind == 13)]
        plan.lines[:] = kept
        return plan

    monkeypatch.setattr(writing, "planned", by_version_alone)
    assert isinstance(await reborn_meanwhile(cluster, monkeypatch), Applied)


async def test_another_lease_is_another_node_and_the_same_key(cluster: Cluster) -> None:
    async with opened(cluster) as store:
        assert store.leasing is not None
        first = (await store.transact(put("k", b"1"))).revision
        lease = (await store.leasing.grant(30)).lease
        for wanted in (lease, None, lease):
            answer = await store.transact(put("k", b"2", lease=wanted))
            assert isinstance(answer, Applied) and answer.results[0] is not None
            assert answer.results[0].create_revision == first and answer.results[0].lease == wanted
            assert (await store.get("k")).entry == answer.results[0]
        again = await store.transact(put("k", b"3", lease=lease), compare=[created("k", first)])
        assert isinstance(again, Applied)


async def test_a_key_may_stand_where_others_stand_below_it(cluster: Cluster) -> None:
    async with opened(cluster) as store:
        assert store.leasing is not None
        lease = (await store.leasing.grant(30)).lease
        names = ["a", "a/", "a/b", "a/b/", "a/b/c", "a/b/c/d", "/", "//", "/a", "a//b", "..", "./a"]
        for name in names:
            await store.transact(put(name, name.encode(), lease=lease))
        found = (await store.range()).entries
        assert [e.key for e in found] == sorted(names) and all(e.value == e.key.encode() for e in found)


async def test_a_lease_of_another_handle_is_refused_by_name_and_one_that_is_over_as_over(
    cluster: Cluster,
) -> None:
    async with opened(cluster) as mine, opened(cluster, mine._tree.base.strip("/")) as other:
        assert mine.leasing is not None and other.leasing is not None
        lease = (await mine.leasing.grant(30)).lease
        for call in (
            other.transact(put("k", b"", lease=lease)),
            other.leasing.keep_alive(lease),
            other.leasing.revoke(lease),
        ):
            with pytest.raises(ConfigurationError, match=f"pid {os.getpid()}"):
                await call
        await mine.leasing.revoke(lease)
        with pytest.raises(LeaseOver):
            await other.transact(put("k", b"", lease=lease))
        await other.leasing.revoke(lease)
        assert await other.leasing.remaining(lease) is None


async def test_a_lease_says_what_it_has_left(cluster: Cluster) -> None:
    async with opened(cluster) as store:
        assert store.leasing is not None
        granted = await store.leasing.grant(2)
        left = await store.leasing.remaining(granted.lease)
        assert left is not None and 0 < left <= granted.ttl_s


class Session:
    """What a lease asks of its link."""

    session, granted_s, over = 7, 12.0, None


@pytest.mark.parametrize(
    ("alone", "renewals", "left"),
    [
        (True, [4.0, 8.0], [12.0, 12.0]),
        (False, [1.0], [11.0]),  # only the grant has surely been heard of
        (False, [4.0, 8.0, 12.0], [8.0, 8.0, 8.0]),  # then each time the renewal before
        (False, [4.0, 5.0, 5.5], [8.0, 7.0, 6.5]),  # renewals within a tick prove nothing of each other
    ],
)
def test_a_renewal_counts_from_what_the_leader_has_surely_heard(
    alone: bool, renewals: list[float], left: list[float]
) -> None:
    lease = Lease(cast(Any, Session()), 0.0, alone, 2.0)
    assert [lease.renewed(sent) for sent in renewals] == left


async def test_closing_the_handle_ends_its_leases(cluster: Cluster) -> None:
    async with opened(cluster) as store:
        other = opened(cluster, store._tree.base.strip("/"))
        assert other.leasing is not None
        lease = (await other.leasing.grant(30)).lease
        await other.transact(put("k", b"", lease=lease))
        await other.close()
        assert (await store.get("k")).entry is None


HOLDER = """
import asyncio, sys
from atoll.engines.zookeeper import ZookeeperStore
from atoll import Lock

async def main():
    store = ZookeeperStore(sys.argv[1], root=sys.argv[2])
    async with store, Lock(store, "x", ttl_s=1.0):
        print("held", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
async def test_what_a_process_held_comes_free_when_it_is_gone_or_stands_still(
    cluster: Cluster, sign: signal.Signals
) -> None:
    async with opened(cluster) as store:
        root = store._tree.base.strip("/")
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", HOLDER, cluster.addresses[0], root), stdout=subprocess.PIPE
        )
        try:
            assert child.stdout is not None and await child.stdout.readline() == b"held\n"
            held = (await store.range("lock/x/")).entries[0]
            child.send_signal(sign)
            async with Lock(store, "x", ttl_s=1.0, wait_s=20) as mine:
                assert mine.token.revision > held.revision
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()


FORKED = """
import asyncio, os, sys
from atoll.engines.zookeeper import ZookeeperStore
from atoll.ports.store import put

store = ZookeeperStore(sys.argv[1], root=sys.argv[2])

async def begin():
    granted = await store.leasing.grant(4)
    await store.transact(put("leased", b"", lease=granted.lease))
    return granted.lease

async def child(lease):
    try:
        await store.leasing.keep_alive(lease)
    except Exception as error:
        await store.transact(put("child", type(error).__name__.encode()))
    await store.close()

async def end(lease):
    await store.leasing.keep_alive(lease)
    print((await store.get("child")).entry.value.decode(), (await store.get("leased")).entry is not None)
    await store.close()

loop = asyncio.new_event_loop()
lease = loop.run_until_complete(begin())
pid = os.fork()
if pid == 0:
    asyncio.new_event_loop().run_until_complete(child(lease))
    os._exit(0)
os.waitpid(pid, 0)
loop.run_until_complete(end(lease))
"""


async def test_a_forked_child_opens_anew_and_leaves_its_parents_lease_alone(cluster: Cluster) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-c", FORKED, cluster.addresses[0], f"fork-{clock.unique_id()}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(child.communicate(), 30)
    assert out == b"ConfigurationError True\n", (out, err)


async def test_a_client_that_the_team_has_is_used_and_left_open(cluster: Cluster) -> None:
    theirs = KazooClient(hosts=cluster.addresses[0])
    await asyncio.to_thread(theirs.start)
    try:
        await asyncio.to_thread(theirs.ensure_path, "/chroot")
        async with ZookeeperStore(client=theirs, root=f"theirs-{clock.unique_id()}") as store:
            await store.transact(put("k", b"v"))
            async with Lock(store, "x") as held:
                await store.transact(put("k", b"w"), guard=held)
            seen = []
            async for item in store.observe("k"):
                seen.append(item)
                if len(seen) == 2:
                    break
                await store.transact(put("k", b"x"))
            assert [e.value for e in seen[1].changed] == [b"x"]
        assert theirs.connected and await asyncio.to_thread(theirs.exists, "/chroot")
    finally:
        await asyncio.to_thread(theirs.stop)
        theirs.close()


async def round_trips(monkeypatch: pytest.MonkeyPatch, work: Any) -> int:
    """How often `work` waited for a server."""
    whole, count = Link._once, 0

    async def counted(self: Link, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        return await whole(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Link, "_once", counted)
        await work()
    return count


async def test_an_uncontended_lock_is_one_round_trip_there_and_one_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(cluster) as store:

        async def once() -> None:
            async with Lock(store, "x"):
                pass

        await once()
        assert await round_trips(monkeypatch, once) == 2


async def test_a_directory_that_stands_still_is_read_in_one_round_trip_and_never_told_old(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(cluster) as store, opened(cluster, store._tree.base.strip("/")) as other:
        found: list[list[str]] = []

        async def read() -> None:
            found.append([entry.key for entry in (await store.range("team/a/")).entries])

        await store.transact(put("team/a/1", b""))
        await read()
        assert await round_trips(monkeypatch, read) == 1
        await other.transact(put("team/a/2", b""))
        await read()
        await other.transact(delete("team/a/1"))
        await read()
        assert await round_trips(monkeypatch, read) == 1
        assert found == [["team/a/1"]] * 2 + [["team/a/1", "team/a/2"]] + [["team/a/2"]] * 2


async def test_observing_costs_nothing_while_nothing_happens(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(cluster) as store:
        items = store.observe("quiet/")
        await anext(items)

        async def wait() -> None:
            waiting = asyncio.ensure_future(anext(items))
            await asyncio.wait([waiting], timeout=0.3)
            assert not waiting.done(), "nothing happened, and yet there is news"
            waiting.cancel()

        assert await round_trips(monkeypatch, wait) == 0


async def test_one_transaction_of_more_than_a_megabyte_is_refused_before_it_is_sent(cluster: Cluster) -> None:
    async with opened(cluster) as store:
        with pytest.raises(LimitReached, match=r"jute\.maxbuffer"):
            await store.transact(put("a", bytes(600_000)), put("b", bytes(600_000)))
        await store.transact(put("a", bytes(999_000)))
        assert len((await store.range()).entries) == 1


async def test_the_keys_of_one_lease_fit_into_one_packet(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll.engines.zookeeper.leases.LEASE_BYTES_MAX", 500)
    async with opened(cluster) as store:
        assert store.leasing is not None
        lease = (await store.leasing.grant(5)).lease
        with pytest.raises(LimitReached, match="several leases"):
            for n in range(20):
                await store.transact(put(f"k{n}", b"", lease=lease))


async def test_a_lease_that_lives_long_does_not_fill_up(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll.engines.zookeeper.leases.LEASE_BYTES_MAX", 500)
    async with opened(cluster) as store, opened(cluster, store._tree.base.strip("/")) as other:
        assert store.leasing is not None
        for _ in range(20):
            async with Lock(store, "x", ttl_s=5):
                pass
        lease = (await store.leasing.grant(5)).lease
        for n in range(20):
            await store.transact(put(f"k{n}", b"", lease=lease))
            await other.transact(delete(f"k{n}"))


async def test_a_request_is_forgotten_after_its_window_and_not_before(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "_TRIM_EVERY", 5)
    async with opened(cluster, dedupe_window_s=0.2) as store:
        for n in range(4):
            await store.transact(put("k", b""), request_id=f"old-{n}")
        await asyncio.sleep(0.25)
        for n in range(6):
            answer = await store.transact(put("k", b""), request_id=f"new-{n}")
        replay = await store.transact(put("k", b""), request_id="new-5")
        assert replay == Applied(answer.revision, (), replayed=True)
        fresh = await store.transact(put("k", b""), request_id="old-0")
        assert isinstance(fresh, Applied) and not fresh.replayed


async def test_ten_thousand_values_larger_than_a_request_come_as_one_snapshot(cluster: Cluster) -> None:
    async with opened(cluster) as store:
        for at in range(0, 5000, 500):
            await store.transact(*(put(f"p/{n:05d}/{'x' * 90}", b"v" * 100) for n in range(at, at + 500)))
        ranged = await store.range("p/", limit=5000)
        assert len(ranged.entries) == 5000 and not ranged.more
        page = await store.range(start="p/02500", end="p/02503", limit=10)
        assert len(page.entries) == 3


def weights(findings: Sequence[Any]) -> dict[str, Weight]:
    return {finding.setting: finding.weight for finding in findings}


async def test_the_doctor_reads_the_nameplate(cluster: Cluster) -> None:
    async with opened(cluster) as store:
        assert store.examining is not None
        findings = await store.examining.examine()
        assert weights(findings)["Mode"] is Weight.COSTS
        assert any(finding.value == "3.8.0" for finding in findings)
        order = [Weight.BREAKS, Weight.COSTS, Weight.NOTE, Weight.FINE]
        assert [order.index(f.weight) for f in findings] == sorted(order.index(f.weight) for f in findings)


@pytest.mark.parametrize(
    "url",
    [
        "zookeeper://",
        "zookeeper://h/a/../b",
        "zookeeper://h/zookeeper",
        "zookeeper://h/?session_s=0",
        "zookeeper://h/?reads=old",
        "zookeeper://h/?value_bytes_max=2000000",
        "zookeeper://h/?tls_ca=x",
        "zookeeper://h/?nonsense=1",
    ],
)
def test_a_url_that_cannot_be_is_refused_at_the_door(url: str) -> None:
    with pytest.raises(ConfigurationError):
        atoll.store(url)


def test_a_password_is_shown_nowhere() -> None:
    store = atoll.store("zookeeper://ann:s3cret@a:1,b:2/shop")
    assert "s3cret" not in repr(store) + store.url + repr(vars(store))
    assert store.url == "zookeeper://ann:***@a:1,b:2/shop"


async def test_unchanged_and_absent_are_judged_of_the_newest_though_a_slip_is_old(cluster: Cluster) -> None:
    async with opened(cluster) as one, opened(cluster, one._tree.base.strip("/")) as other:
        mine = (await one.transact(put("k", b"1"))).revision
        theirs = (await other.transact(put("k", b"2"))).revision
        answer = await one.put_if("k", b"3", mine)
        assert isinstance(answer, Unmet) and answer.entries["k"] is not None
        assert answer.entries["k"].revision == theirs and answer.revision >= theirs
        await other.transact(delete("k"))
        assert isinstance(await one.put_if("k", b"4", theirs), Unmet)
        assert isinstance(await one.transact(put("k", b"5"), compare=[absent("k")]), Applied)
        assert isinstance(await other.transact(delete("k"), compare=[unchanged("k", theirs)]), Unmet)
