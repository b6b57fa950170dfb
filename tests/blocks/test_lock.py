"""A7: one holder at a time, first come first served, and who holds it is said."""

from __future__ import annotations

import asyncio
import re

import pytest

import atoll
from atoll import ConfigurationError, Lock, LockLost, Refused, Taken, put
from atoll.blocks.lock import holders
from atoll.blocks.ownership import Keys
from atoll.ports import observer
from atoll.ports.store import Store, Token


async def in_line(store: Store, name: str, count: int) -> None:
    """Until `count` wait for the lock."""
    async with asyncio.timeout(20):
        while len((await store.range(Keys.of("lock", name).place(""))).entries) != count:
            await asyncio.sleep(0.001)


async def test_one_holder_at_a_time_and_tokens_only_rise() -> None:
    store, inside, tokens = atoll.store("memory://"), 0, []

    async def work() -> None:
        nonlocal inside
        for _ in range(5):
            async with Lock(store, "x") as held:
                inside += 1
                assert inside == 1
                tokens.append(held.token)
                await asyncio.sleep(0)
                inside -= 1

    await asyncio.gather(*[work() for _ in range(16)])
    assert len(tokens) == 80
    assert tokens == sorted(set(tokens))
    assert (await store.range("lock/")).entries == ()


async def test_sixteen_waiters_get_it_in_the_order_of_asking() -> None:
    store, order = atoll.store("memory://"), []

    async def wait(n: int) -> None:
        async with Lock(store, "x"):
            order.append(n)

    async with Lock(store, "x"):
        tasks = []
        for n in range(16):
            tasks.append(asyncio.create_task(wait(n)))
            await in_line(store, "x", n + 1)
    await asyncio.gather(*tasks)
    assert order == list(range(16))


async def test_nobody_walks_past_the_line() -> None:
    store = atoll.store("memory://")
    async with Lock(store, "x"):
        first = asyncio.create_task(Lock(store, "x").__aenter__())
        await in_line(store, "x", 1)
    # the lock is free now, and the one in line has not looked yet
    with pytest.raises(Taken):
        async with Lock(store, "x", wait_s=0):
            pass
    assert (await first).token


async def test_a_departure_wakes_one_waiter_not_all() -> None:
    store, looks = atoll.store("memory://"), 0
    real = store.range

    async def counted(*args: object, **words: object) -> object:
        nonlocal looks
        looks += 1
        return await real(*args, **words)  # type: ignore[arg-type]

    async def wait() -> None:
        async with Lock(store, "x"):
            pass

    async with Lock(store, "x"):
        tasks = []
        for n in range(30):
            tasks.append(asyncio.create_task(wait()))
            await in_line(store, "x", n + 1)
        store.range = counted  # type: ignore[method-assign, assignment]
    await asyncio.gather(*tasks)
    assert looks <= 2 * 30


async def test_an_uncontended_lock_is_one_write_to_take_and_one_to_leave() -> None:
    store = atoll.store("memory://")
    async with Lock(store, "x"):
        pass
    before = (await store.range("")).revision
    for _ in range(10):
        async with Lock(store, "x"):
            pass
    assert (await store.range("")).revision == before + 20


async def test_taken_says_who_since_when_and_how_long_was_waited() -> None:
    store = atoll.store("memory://")
    async with Lock(store, "order/81", owner="api-2, pid 812"):

        async def another() -> None:
            async with Lock(store, "order/81", wait_s=0.05):
                pass

        with pytest.raises(
            Taken, match=r"^order/81 is held by api-2, pid 812 since \d\d:\d\d:\d\d; "
        ) as caught:
            await asyncio.create_task(another())
    assert "waited 0.05" in str(caught.value)
    assert caught.value.owner == "api-2, pid 812" and caught.value.since is not None
    assert (await store.range("")).entries == ()  # it left nothing behind


async def test_the_deadline_in_force_bounds_the_wait() -> None:
    store = atoll.store("memory://")

    async def another() -> None:
        with atoll.deadline(0.05):
            async with Lock(store, "x"):
                pass

    async with Lock(store, "x"):
        with pytest.raises(Taken):
            await asyncio.create_task(another())
    assert (await store.range("")).entries == ()


async def test_a_deadline_at_the_taking_does_not_end_the_holding() -> None:
    store = atoll.store("memory://")
    with atoll.deadline(0.05):
        held = await (lock := Lock(store, "x", ttl_s=0.3)).__aenter__()
    until = held.deadline + 0.3
    while held.deadline < until:  # renewed at least twice
        await asyncio.sleep(0.01)
        held.check()
    await lock.__aexit__(None, None, None)


async def test_taking_what_one_holds_is_refused_at_once() -> None:
    store = atoll.store("memory://")
    async with Lock(store, "x"):
        with pytest.raises(ConfigurationError, match="never end"):
            async with Lock(store, "x"):
                pass
        async with Lock(store, "y"):
            pass
    async with Lock(store, "x"):
        pass


async def test_one_lock_object_serves_many_tasks() -> None:
    store, tokens = atoll.store("memory://"), []
    lock = Lock(store, "x")

    async def work() -> None:
        async with lock as held:
            tokens.append(held.token)
            await asyncio.sleep(0.001)
            assert not held.lost

    await asyncio.gather(*[work() for _ in range(10)])
    assert len(set(tokens)) == 10


@pytest.mark.parametrize("name", ["order/81", "a b", "é/ü", "%2F", "x" * 200, "..", "/", "a/owner", "a"])
async def test_any_text_is_a_name_and_names_do_not_meet(name: str) -> None:
    store = atoll.store("memory://")
    async with Lock(store, name), Lock(store, name + "/line"), Lock(store, name + "x"):
        assert [h.name for h in await holders(store)] == sorted([name, name + "/line", name + "x"], key=_key)


def _key(name: str) -> str:
    return Keys.of("lock", name).prefix


@pytest.mark.parametrize("words", [{"ttl_s": 0}, {"ttl_s": -1}, {"wait_s": -1}, {"ttl_s": float("nan")}])
def test_words_that_make_no_sense_are_refused(words: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"found .*expected"):
        Lock(atoll.store("memory://"), "x", **words)  # type: ignore[arg-type]


def test_a_lock_needs_a_name() -> None:
    with pytest.raises(ConfigurationError, match="expected a text"):
        Lock(atoll.store("memory://"), "")


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ("leasing=false", "no leases"),
        ("forgets_at_failover=true", "best_effort=True"),
        ("operations_max=5", "needs 6"),
        ("key_bytes_max=40", "too long a name"),
    ],
)
async def test_a_store_that_is_too_weak_is_refused_with_the_remedy(knobs: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        async with Lock(atoll.store(f"memory://?{knobs}"), "x"):
            pass


async def test_best_effort_opens_a_store_that_may_forget() -> None:
    async with Lock(atoll.store("memory://?forgets_at_failover=true"), "x", best_effort=True) as held:
        held.check()


async def test_a_guard_lets_only_the_holder_write() -> None:
    store = atoll.store("memory://")
    async with Lock(store, "x") as held:
        await store.transact(put("paid", b"yes"), guard=held)
        await store.transact(atoll.delete(held.owner_key))
        with pytest.raises(Refused):
            await store.transact(put("paid", b"twice"), guard=held)
    with pytest.raises(LockLost, match="not held any more"):
        await store.transact(put("paid", b"late"), guard=held)


async def test_who_holds_and_who_waits_can_be_read() -> None:
    store = atoll.store("memory://")

    async def wait(owner: str) -> None:
        async with Lock(store, "order/81", owner=owner):
            pass

    async with Lock(store, "order/81", owner="api-2") as held, Lock(store, "b", owner="api-3"):
        one = asyncio.create_task(wait("api-0"))
        await in_line(store, "order/81", 1)
        two = asyncio.create_task(wait("api-1"))
        await in_line(store, "order/81", 2)
        b, order = await holders(store)
        assert (b.name, b.owner, b.waiting, b.first_waiting) == ("b", "api-3", 0, None)
        assert (order.owner, order.waiting, order.first_waiting) == ("api-2", 2, "api-0")
        assert order.token == held.token and isinstance(order.token, Token)
        assert order.since is not None and order.first_since is not None
    await asyncio.gather(one, two)
    assert await holders(store) == []


async def test_taking_and_leaving_are_told_to_observers() -> None:
    store, heard = atoll.store("memory://"), []
    stop = observer.subscribe(heard.append)
    try:
        async with Lock(store, "x", owner="me") as held:
            pass
    finally:
        stop()
    taken, left = heard
    assert isinstance(taken, observer.LockAcquired) and isinstance(left, observer.LockReleased)
    assert taken.token == left.token == str(held.token) and taken.name == "x" and taken.owner == "me"


async def test_the_fence_goes_to_the_adapter_with_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    from atoll.ports import joined

    noted = []

    class Notes:
        async def fence(self, tx: object, resource: str, token: Token) -> None:
            noted.append((tx, resource, token))

    monkeypatch.setattr(joined, "_adapters", [lambda tx: Notes() if tx == "my transaction" else None])
    async with Lock(atoll.store("memory://"), "order/81") as held:
        await held.fence("my transaction")
        with pytest.raises(ConfigurationError, match=r"atoll\.database"):
            await held.fence("a stranger's")
    assert noted == [("my transaction", "lock/order/81", held.token)]
