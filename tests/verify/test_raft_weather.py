"""4.4: real members killed in threes, cut in pairs and rings, changed and handed over, under writers.

Their logs are tiny, so that segments, snapshots and followers that need one come all the time.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import atoll
import servers
from atoll import clock, urls
from atoll.engines.raft import wire
from atoll.errors import AtollError
from atoll.ports.store import Store, put
from atoll.verify import revisions
from atoll.verify.history import History
from atoll.verify.judgement import Answer
from atoll.verify.proxy import Mood
from atoll.verify.recorder import RecordingStore
from atoll.verify.server_faults import Sockets
from atoll.verify.servers.process import ServerProcess
from atoll.verify.staging import Stage, Start, staged

TINY = """
from atoll.engines.raft import checkpoints, member_options, wal
member_options.Compaction.__init__.__kwdefaults__.update(entries=60, keep=5)
wal.LogOptions.__init__.__kwdefaults__.update(segment_bytes=20 << 10, cache_bytes=1 << 10)
checkpoints.PAGES, checkpoints.PAGES_MAX = 20, 60
"""
"""Read by each member before it begins: a snapshot every sixty entries, a log of small segments."""


async def hammer(store: Store, dice: random.Random) -> None:
    """Write and read all the time, whatever is answered."""
    while True:
        key = f"k{dice.randrange(4)}"
        with suppress(AtollError):
            kind = dice.random()
            if kind < 0.6:
                await store.transact(put(key, clock.unique_id().encode()))
            elif kind < 0.9:
                await store.get(key)
            else:
                await store.range("k")
        await asyncio.sleep(0.002)


@dataclass
class Storm:
    """What befalls the members; `seen` counts it."""

    stage: Stage
    dice: random.Random
    seen: Counter[str] = field(default_factory=Counter)

    @property
    def first(self) -> list[ServerProcess]:
        return self.stage.cluster.members[:3]

    def fates(self) -> dict[str, Any]:
        return {
            **{f"kill {n}": partial(self.kill, n) for n in (1, 2, 3)},
            **{f"stop {n}": partial(self.stop, n) for n in (1, 2)},
            "one not heard": partial(self.cut, [(0, 1)]),
            "two apart": partial(self.cut, [(0, 1), (1, 0)]),
            "a ring": partial(self.cut, [(0, 1), (1, 2), (2, 0)]),
            "one more": self.one_more,
            "hand over": self.hand_over,
            "snapshots": self.snapshots,
        }

    async def kill(self, count: int) -> None:
        victims = self.dice.sample(self.first, count)
        for victim in victims:
            victim.strike()
        await asyncio.sleep(self.dice.uniform(0.1, 1.0))
        for victim in victims:
            victim.kill()
            victim.launch()
        await asyncio.gather(*(victim.serving() for victim in victims))

    async def stop(self, count: int) -> None:
        victims = self.dice.sample(self.first, count)
        for victim in victims:
            victim.pause()
        await asyncio.sleep(self.dice.uniform(0.5, 2.0))
        for victim in victims:
            victim.resume()

    async def cut(self, ways: list[tuple[int, int]]) -> None:
        """Who calls is not heard at the door of the other; each has a line of its own to say things on."""
        before = self.dropped()
        order = self.dice.sample(range(3), 3)
        sockets = [Sockets(member) for member in self.first]
        for door, proxy in enumerate(self.stage.peers[:3]):
            callers = [sockets[order[a]] for a, b in ways if order[b] == door]
            if callers:
                proxy.concerns = lambda port, callers=callers: any(one.has(port) for one in callers)
                proxy.be(self.dice.choice([Mood.SILENT, Mood.DEAF]))
        await asyncio.sleep(self.dice.uniform(0.5, 2.0))
        for proxy in self.stage.peers:
            proxy.concerns = lambda port: True
            proxy.be(Mood.FAITHFUL)
        self.seen["bytes dropped between members"] += self.dropped() - before

    def dropped(self) -> int:
        return sum(p.counts.dropped_to_client + p.counts.dropped_to_server for p in self.stage.peers)

    async def one_more(self) -> None:
        """A member joins by a snapshot, and votes when it has caught up."""
        async with urls.store(self.stage.straight) as store:
            council, members = await store.council(), self.stage.cluster.members  # type: ignore[attr-defined]
            if len(members) < 5:
                joined = await self.stage.cluster.facts["join"]()
                place = (await self.stage.cluster.facts["status"](len(members) - 1))["place"]
                with atoll.deadline(15):
                    await council.add(joined.name, place, wait_s=10, say=lambda text: None)

    async def hand_over(self) -> None:
        async with urls.store(self.stage.straight) as store:
            await (await store.council()).transfer("")  # type: ignore[attr-defined]

    async def snapshots(self) -> None:
        async with urls.store(self.stage.straight) as store:
            members = (await store.attached()).members  # type: ignore[attr-defined]
            for address in members.given:
                await members.of(await members.line(address, 1.0), wire.Save(), "a snapshot")

    async def blow(self, names: list[str]) -> None:
        """One after the other. What a member answers to an operator in such weather is its own affair."""
        fates = self.fates()
        for name in names:
            with suppress(AtollError, TimeoutError):
                await fates[name]()
                self.seen[name] += 1
            await asyncio.sleep(self.dice.uniform(0.1, 0.8))

    async def calm(self) -> None:
        """All members up, and a write is answered."""
        for member in self.stage.cluster.members:
            assert member.pid, f"{member.name} gave up: {member.last_lines(4)}"
        async with asyncio.timeout(30), urls.store(self.stage.straight) as store:
            while True:
                with suppress(AtollError):
                    await store.transact(put("calm", b""))
                    return


async def weather(folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int, names: list[str]) -> Counter[str]:
    """This weather, judged."""
    servers.expect("raft")
    (folder / "sitecustomize.py").write_text(TINY)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    book, dice = History(), random.Random(seed)
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(staged(Start(product="raft", nodes=3), folder))
        stores = [await stack.enter_async_context(urls.store(stage.url)) for _ in range(3)]
        claims = await stores[0].open()
        clients = [
            asyncio.ensure_future(hammer(RecordingStore(stores[n % 3], book, f"a1.{n}"), random.Random(n)))
            for n in range(6)
        ]
        storm = Storm(stage, dice)
        await storm.blow(names)
        await storm.calm()
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        began = [await stage.cluster.facts["status"](n) for n in range(3)]
    assert any(status["first"] > 1 for status in began), "nobody made a snapshot: the logs were not tiny"
    judgement = revisions.judge(book, claims=claims)
    assert judgement.violations == [], (seed, judgement.violations[0])
    assert judgement.answer is Answer.YES
    return storm.seen


async def test_a_ring_the_death_of_all_and_a_new_member_under_writers_and_no_answer_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = await weather(tmp_path, monkeypatch, 3, ["a ring", "kill 3", "one more", "stop 2"])
    assert {"a ring", "kill 3", "stop 2"} <= seen.keys() and seen["bytes dropped between members"], seen


@pytest.mark.long
async def test_all_of_it_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = clock.chance().randrange(10**6)
    print(f"seed {seed}", file=sys.stderr)
    kinds = list(Storm(None, random.Random(0)).fates())  # type: ignore[arg-type]
    await weather(tmp_path, monkeypatch, seed, random.Random(seed).choices(kinds, k=60))
