"""Workloads on a store: single keys, transactions over several, observers, leases.

Clients who all want the same few pigeonholes, on purpose. Every value written is unique, so a write whose
answer was lost can be recognised wherever it turns up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from atoll import clock
from atoll.errors import LeaseOver, NotApplied, OutcomeUnknown, WatchEnded
from atoll.ports.store import Bookmark, Store, absent, delete, put, unchanged
from atoll.verify import revisions
from atoll.verify.scenario import Claim, Hardship, Worker, Workload

KEYS = 6
BATCH = 200

Step = Callable[[Worker], Awaitable[None]]


def value() -> bytes:
    """A value no other write has."""
    return clock.unique_id()[:16].encode()


def key(worker: Worker, kind: str = "k") -> str:
    """One of the few keys everybody wants."""
    return f"{worker.prefix}{kind}/{worker.dice.randrange(KEYS)}"


async def look(worker: Worker) -> None:
    """Read one key."""
    await worker.handle.get(key(worker))


async def swap(worker: Worker) -> None:
    """Read a key and write it if it is still the same."""
    store: Store = worker.handle
    name = key(worker)
    entry = (await store.get(name)).entry
    await store.put_if(name, value(), entry.revision if entry else 0)


async def overwrite(worker: Worker) -> None:
    """Write a key, whatever it holds."""
    await worker.handle.transact(put(key(worker), value()))


async def remove(worker: Worker) -> None:
    """Read a key and remove it if it is still the same."""
    store: Store = worker.handle
    name = key(worker)
    entry = (await store.get(name)).entry
    if entry is not None:
        await store.delete_if(name, entry.revision)


async def several(worker: Worker) -> None:
    """Write two keys and remove a third in one transaction, sometimes under a comparison."""
    store: Store = worker.handle
    names = worker.dice.sample([f"{worker.prefix}k/{n}" for n in range(KEYS)], 3)
    compare = [absent(names[0])] if worker.dice.random() < 0.3 else []
    await store.transact(put(names[0], value()), put(names[1], value()), delete(names[2]), compare=compare)


async def move(worker: Worker) -> None:
    """Move what one key holds to another: it is never in both, never in neither."""
    store: Store = worker.handle
    names = worker.dice.sample([f"{worker.prefix}k/{n}" for n in range(KEYS)], 2)
    entry = (await store.get(names[0])).entry
    if entry is not None:
        await store.transact(
            delete(names[0]), put(names[1], value()), compare=[unchanged(names[0], entry.revision)]
        )


async def survey(worker: Worker) -> None:
    """Read everything in one snapshot, sometimes a part."""
    if worker.dice.random() < 0.5:
        await worker.handle.range(f"{worker.prefix}k/")
    else:
        await worker.handle.range(f"{worker.prefix}k/", limit=worker.dice.randrange(1, KEYS))


async def ask_twice(worker: Worker) -> None:
    """The same request sent again must not happen again."""
    claims = await worker.handle.open()
    if claims.dedupe_window_s:
        request = clock.unique_id()
        write = put(key(worker), value())
        await worker.handle.transact(write, request_id=request)
        await worker.handle.transact(write, request_id=request)


async def loop(worker: Worker, steps: Sequence[Step]) -> None:
    """Step after step until the time is up. An error is an answer too."""
    while worker.working():
        with suppress(NotApplied, OutcomeUnknown):
            await worker.dice.choice(list(steps))(worker)
        await asyncio.sleep(0)


async def register(worker: Worker) -> None:
    """Single keys, compared and set."""
    await loop(worker, [look, look, swap, swap, overwrite, remove])


async def transact(worker: Worker) -> None:
    """Several keys in one transaction, and snapshots of all."""
    await loop(worker, [several, several, move, survey, survey, ask_twice])


async def observe(worker: Worker) -> None:
    """Two who listen while the others write; nobody may be left believing something false."""
    listeners = [asyncio.ensure_future(listen(worker)), asyncio.ensure_future(follow(worker))]
    try:
        await loop(worker, [several, overwrite, remove, move])
        # A last word: when the listeners have heard it they must know everything before it.
        with suppress(NotApplied, OutcomeUnknown):
            await worker.handle.transact(put(f"{worker.prefix}k/last-{worker.process}", value()))
        await asyncio.wait(listeners, timeout=2.0)
    finally:
        for task in listeners:
            task.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)


async def listen(worker: Worker) -> None:
    """Observe until our own last word is heard; begin again where the watch was lost."""
    last = f"{worker.prefix}k/last-{worker.process}"
    while True:
        with suppress(WatchEnded, NotApplied, OutcomeUnknown):
            async for item in worker.handle.observe(f"{worker.prefix}k/"):
                if any(entry.key == last for entry in item.changed):
                    return
        await asyncio.sleep(0.05)


async def follow(worker: Worker, below: str = "k/") -> None:
    """Follow the changes from now on until our own last word is heard; go on where the watch was lost."""
    store: Store = worker.handle
    if store.history is None:
        return
    last = f"{worker.prefix}k/last-{worker.process}"
    place: Bookmark | None = None
    while True:
        with suppress(WatchEnded, NotApplied, OutcomeUnknown):
            place = place or await store.history.now()
            async for item in store.history.changes(worker.prefix + below, place):
                place = item.at
                if any(entry.key == last for entry in item.changed):
                    return
        await asyncio.sleep(0.05)


async def leases(worker: Worker) -> None:
    """Keys that die with a lease: some renewed, some revoked, some left to die, all looked at."""
    listener = asyncio.ensure_future(follow(worker, "lease/"))
    try:
        await asyncio.gather(*(tend(worker, number) for number in range(3)), watch_graves(worker))
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)


async def tend(worker: Worker, number: int) -> None:
    """Grant, write two keys, renew a few times, then revoke or let it die."""
    store: Store = worker.handle
    assert store.leasing is not None
    turn = 0
    while worker.working():
        turn += 1
        names = [f"{worker.prefix}lease/{worker.process}-{number}-{turn}-{half}" for half in "ab"]
        with suppress(NotApplied, OutcomeUnknown):
            lease, ttl_s = await store.leasing.grant(worker.ttl_s * worker.dice.uniform(0.2, 0.5))
            await store.transact(*(put(name, value(), lease=lease) for name in names))
            for _ in range(worker.dice.randrange(3)):
                await asyncio.sleep(ttl_s / 3)
                await store.leasing.keep_alive(lease)
            if worker.dice.random() < 0.3:
                await store.leasing.revoke(lease)
            for _ in range(20):
                if not worker.working() or (await store.get(names[0])).entry is None:
                    break
                await asyncio.sleep(ttl_s / 5)
            with suppress(LeaseOver):
                await store.leasing.keep_alive(lease)
        await asyncio.sleep(0.001)


async def watch_graves(worker: Worker) -> None:
    """Snapshots: the two keys of a lease are there together or gone together."""
    while worker.working():
        with suppress(NotApplied, OutcomeUnknown):
            await worker.handle.range(f"{worker.prefix}lease/")
        await asyncio.sleep(worker.dice.uniform(0.005, 0.03))


_MANY = (Hardship.PROCESSES, Hardship.KILL, Hardship.REPLY_LOST, Hardship.REQUEST_LOST)

REGISTER = Workload(
    "register",
    "store",
    Claim("single keys in one order", "Every answer is that of one store that did one thing after another."),
    register,
    lambda history, claims: revisions.judge(history, claims=claims),
    _MANY,
)
TRANSACT = Workload(
    "transact",
    "store",
    Claim("transactions whole", "A transaction is seen whole or not at all, by every snapshot."),
    transact,
    lambda history, claims: revisions.judge(history, claims=claims),
    _MANY,
)
OBSERVE = Workload(
    "observe",
    "store",
    Claim("observers miss nothing", "Whoever listens knows the present state; the changes have no gap."),
    observe,
    lambda history, claims: revisions.judge(history, claims=claims),
    (Hardship.PROCESSES, Hardship.KILL),
)
LEASES = Workload(
    "leases",
    "store",
    Claim(
        "leases end in time", "Never before the granted time, at once for all keys, not later than claimed."
    ),
    leases,
    lambda history, claims: revisions.judge(history, claims=claims),
    (Hardship.PROCESSES, Hardship.PAUSE),
)
