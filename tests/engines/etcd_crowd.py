"""A crowd on an etcd cluster that is being hurt: its history, and how long it was without an answer.

Also the porters between the members, who can keep one of them from hearing the others.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import atoll.urls
from atoll import clock
from atoll.verify import lock_history, revisions
from atoll.verify.history import History, Type
from atoll.verify.judgement import Answer
from atoll.verify.proxy import Mood, Proxy
from atoll.verify.recorder import RecordingStore
from atoll.verify.scenario import Worker
from atoll.verify.servers.cluster import Cluster
from atoll.verify.workloads import keys
from atoll.verify.workloads.lock import lock

QUICK = "ceiling_s=1.5&attempt_s=0.4"
STEPS = [keys.look, keys.swap, keys.overwrite, keys.remove, keys.several, keys.move, keys.survey]

Wrap = Callable[[Any], Any]
Fault = Callable[[Cluster], Awaitable[object]]


def quick(url: str) -> str:
    """The URL of a client that does not wait long."""
    return f"{url}{'&' if '?' in url else '?'}{QUICK}"


@dataclass
class Crowd:
    """Two histories: of the keys and of the lock; and when writes were answered, by the lease clock."""

    keys: History = field(default_factory=History)
    locks: History = field(default_factory=History)

    def after(self, moment: float) -> int:
        """How many writes were answered that were asked after `moment`."""
        return sum(
            1
            for call in self.keys.calls
            if call.f == "transact" and call.type is Type.OK and call.asked.then and call.began_at > moment
        )

    def locked_after(self, moment: float) -> int:
        """How often the lock was got after `moment`."""
        return sum(
            1 for c in self.locks.calls if c.f == "acquired" and c.type is Type.OK and c.ended_at > moment
        )

    def longest(self, history: History) -> float:
        """The longest that a single call took."""
        ended = [c.ended_at - c.began_at for c in history.calls if c.f in ("transact", "get") and c.ended]
        return max(ended)

    def holds(self, claims: Any) -> None:
        """Both histories must be judged sound, over something."""
        for judgement in (revisions.judge(self.keys, claims=claims), lock_history.judge(self.locks)):
            assert judgement.answer is Answer.YES, [
                str(v) for v in judgement.violations[:3]
            ] or judgement.note


class Over:
    """Says when everybody may stop."""

    spent = False


async def run(url: str, fault: Callable[[], Awaitable[float]], wrap: Wrap = lambda s: s) -> Any:
    """Workers at work until `fault` is over and they are well again; the crowd and when it was."""
    crowd, over = Crowd(), Over()
    made: list[Any] = []

    def worker(book: History, name: str, prefix: str) -> Worker:
        store = atoll.urls.store(quick(url))
        made.append(store)
        return Worker(
            handle=RecordingStore(wrap(store), book, name),
            book=book,
            process=name,
            prefix=prefix,
            dice=random.Random(name),
            until=clock.lease_now() + 60,
            ttl_s=2.0,
            budget=over,  # type: ignore[arg-type]
        )

    crowds = [worker(crowd.keys, f"w{n}", "crowd/") for n in range(3)]
    contenders = [worker(crowd.locks, f"c{n}", "crowd-lock/") for n in range(2)]

    async def director() -> float:
        moment = await fault()
        until = clock.loop_now() + 30
        while not (crowd.after(moment) > 10 and crowd.locked_after(moment)) and clock.loop_now() < until:
            await asyncio.sleep(0.05)
        over.spent = True
        return moment

    listening = [asyncio.create_task(keys.listen(crowds[0])), asyncio.create_task(keys.follow(crowds[1]))]
    try:
        work = [keys.loop(w, STEPS) for w in crowds] + [lock(c) for c in contenders]
        *_, moment = await asyncio.gather(*work, director())
        for one in crowds:
            await _last_word(one)
        await asyncio.wait(listening, timeout=10)
        claims = await made[0].open()
    finally:
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        for store in made:
            await store.close()
    return crowd, moment, claims


async def _last_word(worker: Worker) -> None:
    """What the listeners wait for; the cluster must be well by now."""
    from atoll.errors import NotApplied, OutcomeUnknown
    from atoll.ports.store import put

    until = clock.loop_now() + 20
    while clock.loop_now() < until:
        try:
            await worker.handle.transact(put(f"{worker.prefix}k/last-{worker.process}", keys.value()))
            await worker.handle.range(f"{worker.prefix}k/")
            return
        except (NotApplied, OutcomeUnknown):
            await asyncio.sleep(0.05)
    raise AssertionError("the cluster did not come back")


def owner_of(port: int) -> int:
    """The process whose TCP socket has this local port of loopback; 0: nobody's."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[1].split(":")[1], 16) == port:
            inodes.add(f"socket:[{words[9]}]")
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(str(link.readlink()) in inodes for link in folder.iterdir()):
                return int(folder.parent.name)
        except OSError:
            continue
    return 0


class Porters:
    """A proxy before each member's door for the others. `cut(i)`: member i and the rest hear nothing."""

    def __init__(self) -> None:
        self.proxies: list[Proxy] = []
        self.owners: dict[int, int] = {}
        self.lonely = 0

    async def between(self, _: int, peer: str) -> str:
        """What EtcdSettings.between asks for."""
        host, _, port = peer.partition(":")
        mine = len(self.proxies)
        proxy = Proxy(host, int(port), concerns=lambda client: self.concerned(mine, client))
        self.proxies.append(proxy)
        return await proxy.open()

    def concerned(self, door: int, client: int) -> bool:
        """Everything through the lonely member's own door, and what it sends to the doors of the others."""
        if self.doors_of_the_lonely == door:
            return True
        if client not in self.owners:
            self.owners[client] = owner_of(client)
        return self.owners[client] == self.lonely

    doors_of_the_lonely = -1

    def cut(self, cluster: Cluster, i: int) -> None:
        """Member `i` hears nobody and nobody hears it."""
        self.doors_of_the_lonely, self.lonely = i, cluster.members[i].pid or -1
        self.owners.clear()
        for proxy in self.proxies:
            proxy.be(Mood.SILENT)

    def heal(self) -> None:
        """They hear each other again."""
        for proxy in self.proxies:
            proxy.be(Mood.FAITHFUL)

    async def close(self) -> None:
        for proxy in self.proxies:
            await proxy.close()
