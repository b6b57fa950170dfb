"""3.2: the etcd store beside others: other handles, other paths, other loops, a fork, many members."""

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
from atoll.engines.etcd import EtcdStore, transaction
from atoll.errors import AtollError, NotApplied, NotSent, OutcomeUnknown, ReadOnly, Refused
from atoll.ports.store import Durable, Token, put
from servers import server


def place() -> str:
    return f"store-{clock.unique_id()[:8]}"


class Held:
    def __init__(self, owner_key: str, token: Token) -> None:
        self.owner_key, self.token = owner_key, token

    def check(self) -> None:
        return None


async def test_two_paths_are_two_stores_and_nothing_of_ours_shows(shared: Any) -> None:
    url, at = shared("etcd").url, place()
    async with atoll.urls.store(f"{url}/{at}/one") as one, atoll.urls.store(f"{url}/{at}/two") as two:
        await one.transact(put("k", b"1"), request_id="mine")
        assert (await two.range()).entries == ()
        assert [entry.key for entry in (await one.range()).entries] == ["k"]
        assert one.moving and two.moving
        await one.moving.freeze("moved")
        await two.transact(put("k", b"2"))
        await one.moving.freeze(None)


async def test_a_transaction_is_one_round_trip(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from atoll.engines.etcd.endpoint import Endpoint

    asked: list[str] = []
    ask = Endpoint.ask

    async def counted(self: Endpoint, method: str, *rest: Any) -> Any:
        asked.append(method)
        return await ask(self, method, *rest)

    async with atoll.urls.store(f"{shared('etcd').url}/{place()}") as store:
        owner = (await store.transact(put("owner", b"{}"), request_id="first")).results[0]  # type: ignore[union-attr]
        held = Held("owner", Token(await store.epoch(), owner.revision))
        monkeypatch.setattr(Endpoint, "ask", counted)
        await store.transact(put("k", b"1"), guard=held, request_id="second")
        await store.put_if("k", b"2", 0)  # unmet, with its entries
        await store.get("k")
        assert asked == ["Txn", "Txn", "Range"]


async def test_what_another_handle_freezes_and_bumps_is_obeyed_at_once(shared: Any) -> None:
    url = f"{shared('etcd').url}/{place()}"
    async with atoll.urls.store(url) as store, atoll.urls.store(url) as other:
        owner = (await store.transact(put("owner", b"{}"))).results[0]  # type: ignore[union-attr]
        held = Held("owner", Token(await store.epoch(), owner.revision))
        await store.transact(put("k", b"1"), guard=held)
        assert other.moving
        await other.moving.freeze("to the new place")
        with pytest.raises(ReadOnly, match="to the new place"):
            await store.transact(put("k", b"2"))
        await other.moving.freeze(None)
        await store.transact(put("k", b"2"))
        assert await other.moving.bump() == 2
        with pytest.raises(Refused):
            await store.transact(put("k", b"3"), guard=held)
        newer = Held("owner", Token(2, owner.revision))
        await other.transact(put("k", b"4"), guard=newer)
        await store.transact(put("k", b"5"), guard=newer)


async def test_a_store_that_does_not_look_at_the_card_is_caught(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the one before."""
    request = transaction.request

    def careless(asked: Any, card: Any, lease: int = 0) -> bytes:
        message = transaction._TxnRequest.FromString(request(asked, card, lease))
        del message.compare[0]
        return message.SerializeToString()  # type: ignore[no-any-return]

    url = f"{shared('etcd').url}/{place()}"
    async with atoll.urls.store(url) as store, atoll.urls.store(url) as other:
        await store.transact(put("k", b"1"))
        assert other.moving
        await other.moving.freeze("to the new place")
        monkeypatch.setattr(transaction, "request", careless)
        with pytest.raises(pytest.fail.Exception):
            with pytest.raises(ReadOnly):
                await store.transact(put("k", b"2"))


async def test_a_card_that_somebody_removes_is_written_anew_with_the_epoch_known(shared: Any) -> None:
    url = f"{shared('etcd').url}/{place()}"
    async with atoll.urls.store(url) as store:
        assert store.moving
        assert await store.moving.bump() == 2
        at = await store.attached()  # type: ignore[attr-defined]
        from atoll.engines.etcd import wire

        request = wire.MESSAGES["TxnRequest"]()
        request.success.add().request_delete_range.key = store.keys.meta  # type: ignore[attr-defined]
        await at.client.write("Txn", request.SerializeToString(), "a removal")
        await store.transact(put("k", b"1"))
        assert await store.epoch() == 2


async def test_request_ids_are_forgotten_after_the_window_and_not_before(shared: Any) -> None:
    url = f"{shared('etcd').url}/{place()}?dedupe_window_s=1"
    async with atoll.urls.store(url) as store:
        first = await store.transact(put("k", b"1"), request_id="a")
        assert (await store.transact(put("k", b"1"), request_id="a")).replayed  # type: ignore[union-attr]
        at = await store.attached()  # type: ignore[attr-defined]
        lease = at.request_lease
        async with asyncio.timeout(20):
            while (await store.transact(put("k", b"1"), request_id="a")).revision == first.revision:  # type: ignore[union-attr]
                await asyncio.sleep(0.2)
        assert at.request_lease != lease, "one lease for every window would never end"


async def test_a_revoked_request_lease_is_replaced_and_a_users_is_over(shared: Any) -> None:
    async with atoll.urls.store(f"{shared('etcd').url}/{place()}") as store:
        await store.transact(put("k", b"1"), request_id="a")
        at = await store.attached()  # type: ignore[attr-defined]
        assert store.leasing
        await store.leasing.revoke(f"{at.request_lease:016x}")
        assert (await store.transact(put("k", b"2"), request_id="b")).results  # type: ignore[union-attr]
        mine = await store.leasing.grant(30)
        await store.leasing.revoke(mine.lease)
        with pytest.raises(atoll.LeaseOver, match=mine.lease):
            await store.transact(put("k", b"3", lease=mine.lease), request_id="c")


async def test_many_callers_of_a_stopped_server_all_come_back_by_their_deadline() -> None:
    async with server("etcd") as cluster:
        store = atoll.urls.store(cluster.url)
        await store.transact(put("k", b"1"))
        fresh = atoll.urls.store(cluster.url)
        cluster.members[0].pause()

        async def one(handle: Any, number: int) -> BaseException:
            with atoll.deadline(0.5), pytest.raises(AtollError) as caught:
                await (handle.transact(put(f"k{number}", b"")) if number % 2 else handle.get("k"))
            return caught.value

        began = clock.loop_now()
        known = await asyncio.gather(*(one(store, n) for n in range(40)))
        again = await asyncio.gather(*(one(store, n) for n in range(40)))
        never = await asyncio.gather(*(one(fresh, n) for n in range(40)))
        assert clock.loop_now() - began < 3 * 0.5 + 1.5
        assert all(isinstance(error, OutcomeUnknown) for error in known[1::2])
        assert all(isinstance(error, NotSent) for error in [*again[1::2], *never[1::2]])
        cluster.members[0].resume()
        assert (await store.get("k")).entry
        for handle in (store, fresh):
            await handle.close()


async def test_calls_in_flight_when_the_handle_is_closed_do_not_look_cancelled() -> None:
    async with server("etcd") as cluster:
        store = atoll.urls.store(cluster.url)
        await store.transact(put("k", b"1"))
        cluster.members[0].pause()
        asking = asyncio.create_task(store.transact(put("k", b"2")))
        await asyncio.sleep(0.1)
        await store.close()
        with pytest.raises(OutcomeUnknown):
            async with asyncio.timeout(3):
                await asking
        cluster.members[0].resume()


async def test_three_voting_members_are_a_quorum_and_the_examination_says_what_is_missing() -> None:
    async with server("etcd", nodes=3) as cluster:
        async with atoll.urls.store(cluster.url) as store:
            assert (await store.open()).durable is Durable.QUORUM
            assert store.examining
            found = {f.setting: f for f in await store.examining.examine()}
            assert found["voting members"].value == "3"
            cluster.members[(await cluster.leader() + 1) % 3].kill()
            found = {f.setting: f for f in await store.examining.examine()}
            assert any("does not answer" in f.value for f in found.values())
        async with atoll.urls.store(f"etcd://{cluster.addresses[2 * await cluster.leader()]}") as store:
            assert store.examining
            found = {f.setting: f for f in await store.examining.examine()}
            assert "members in the URL" in found
            assert (await store.open()).durable is Durable.QUORUM


async def test_without_a_majority_nothing_is_written_and_nothing_hangs() -> None:
    async with server("etcd", nodes=3) as cluster:
        async with atoll.urls.store(f"{cluster.url}?ceiling_s=0.6&attempt_s=0.3") as store:
            await store.transact(put("k", b"1"))
            first = await cluster.leader()
            for member in (first, (first + 1) % 3):
                cluster.members[member].kill()
            began = clock.loop_now()
            for _ in range(3):
                with pytest.raises((NotSent, OutcomeUnknown)):
                    await store.transact(put("k", b"2"))
            with pytest.raises((NotApplied, OutcomeUnknown)):
                await store.get("k")
            assert clock.loop_now() - began < 4 * 0.6 + 2
            for member in (first, (first + 1) % 3):
                cluster.members[member].launch()
            async with asyncio.timeout(20):
                while True:
                    try:
                        entry = (await store.get("k")).entry
                        break
                    except (NotApplied, OutcomeUnknown):
                        continue
            assert entry and entry.value in (b"1", b"2")


async def test_a_store_is_made_by_hand_too(shared: Any) -> None:
    store = EtcdStore([shared("etcd").addresses[0]], prefix=place())
    async with store:
        assert (await store.transact(put("k", b"1"))).results  # type: ignore[union-attr]
    with pytest.raises(atoll.ConfigurationError):
        EtcdStore([])


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
    url = f"{shared('etcd').url}/{place()}"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKS), url], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
