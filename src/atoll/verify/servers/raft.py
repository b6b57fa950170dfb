"""Raft members: one, three or five of our own `atoll node`, each a process with a folder of its own.

A committee that lives under one roof for a day. Each has a door of its own, by which the public and the
others come in; a porter may be put before it (`between`), and then the others are told the porter's address,
and whoever of the public asks them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll import clock
from atoll.engines.raft import wire
from atoll.engines.raft.link import Broken, Link
from atoll.engines.raft.tls import Tls
from atoll.errors import NotSent
from atoll.verify.servers.cluster import Cluster
from atoll.verify.servers.etcd import certificates
from atoll.verify.servers.process import START_S, ServerFailed, ServerProcess, free_port
from atoll.verify.servers.program import Program

PROGRAM = Program("raft", (sys.executable,), "nothing: it comes with atoll")
NAMES = "abcdefg"
ASK_S = 1.0

Between = Callable[[int, str], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftSettings:
    """`arguments`: further words for each member. `between`: answers where others find member i's door.

    `host`: the address that they listen on. Beyond loopback without `tls` it must be a network all ours.
    """

    election_s: float = 0.5
    heartbeat_s: float = 0.1
    lease_reads: bool = False
    tls: bool = False
    host: str = "127.0.0.1"
    between: Between | None = None
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Plan:
    settings: RaftSettings
    folder: Path
    doors: list[str]
    places: list[str]
    facts: dict[str, Any] = field(default_factory=dict)
    tls: Tls | None = None

    def command(self, i: int, *how: str) -> list[str]:
        """What starts member `i`; `how`: its --members or its --join."""
        settings = self.settings
        words = [sys.executable, "-m", "atoll", "node", "--id", NAMES[i], "--listen", self.doors[i]]
        words += ["--place", self.places[i], "--data", str(self.folder / NAMES[i] / "data"), *how]
        words += ["--election-s", str(settings.election_s), "--heartbeat-s", str(settings.heartbeat_s)]
        if settings.tls:
            words += ["--ca", self.facts["ca"], "--cert", self.facts["cert"], "--key", self.facts["key"]]
        elif settings.host != "127.0.0.1":
            words.append("--insecure")
        return [*words, *["--lease-reads"] * settings.lease_reads, *settings.arguments]

    def member(self, i: int, *how: str) -> ServerProcess:
        """Member `i`, not started; it is ready when it answers and knows a leader, or waits to be added."""
        own = self.folder / NAMES[i]
        own.mkdir(parents=True, exist_ok=True)

        async def ready() -> object:
            status = await self.status(i)
            return bool(status["leader"]) or NAMES[i] not in status["voters"]

        return ServerProcess(
            NAMES[i], self.command(i, *how), own, ready, environment=self.settings.environment
        )

    def url(self) -> str:
        """What an application is given."""
        files = ("ca", "cert", "key") if self.settings.tls else ()
        query = "&".join(f"{name}={self.facts[name]}" for name in files)
        return f"raft://{','.join(self.doors)}{'?' * bool(files)}{query}"

    async def status(self, i: int) -> dict[str, Any]:
        """What member `i` says of itself, through its own door."""
        link = Link(self.doors[i], lambda link, news: None)
        try:
            await link.connect("", self.tls.for_calling() if self.tls else None, ASK_S)
            answer = await link.ask(wire.AskStatus(), ASK_S, ASK_S)
        except (Broken, NotSent, TimeoutError) as error:
            raise ServerFailed(f"{NAMES[i]} does not answer: {error}") from None
        finally:
            link.close()
        assert isinstance(answer, wire.Status)
        return answer.facts


async def start(folder: Path, *, nodes: int = 3, **settings: Any) -> Cluster:
    """Start `nodes` members; see RaftSettings.

    `facts`: status(member), join(): another member's process, started and not yet added; ca, cert, key (TLS).
    """
    chosen = RaftSettings(**settings)
    doors = [f"{chosen.host}:{free_port()}" for _ in range(nodes)]
    places = [await chosen.between(i, door) if chosen.between else door for i, door in enumerate(doors)]
    plan = _Plan(chosen, folder, doors, places)
    if chosen.tls:
        plan.facts = await certificates(folder, names=NAMES[:nodes])
        plan.tls = Tls(ca=plan.facts["ca"], cert=plan.facts["cert"], key=plan.facts["key"])
    first = ",".join(f"{NAMES[i]}={place}" for i, place in enumerate(places))
    members = [plan.member(i, "--members", first) for i in range(nodes)]

    async def leader() -> int:
        return await _leader(plan, members)

    async def join() -> ServerProcess:
        plan.doors.append(f"{chosen.host}:{free_port()}")
        plan.places.append(plan.doors[-1])
        living = next(i for i, member in enumerate(members) if member.pid is not None)
        members.append(plan.member(len(members), "--join", plan.doors[living]))
        await members[-1].start()
        return members[-1]

    plan.facts |= {"status": plan.status, "join": join}
    addresses = [address for pair in zip(doors, places, strict=True) for address in pair]
    cluster = Cluster("raft", plan.url(), members, leader, addresses, plan.facts)
    try:
        for member in members:
            member.launch()
        await asyncio.gather(*(member.serving() for member in members))
        await leader()
    except BaseException:
        await cluster.close()
        raise
    return cluster


async def _leader(plan: _Plan, members: list[ServerProcess], within_s: float = START_S) -> int:
    """Who leads in the newest term that any living member knows of; waits until somebody does."""
    until = clock.loop_now() + within_s
    while clock.loop_now() < until:
        living = [i for i, member in enumerate(members) if member.pid is not None]
        answers = await asyncio.gather(*(plan.status(i) for i in living), return_exceptions=True)
        known = [(a, i) for i, a in zip(living, answers, strict=True) if isinstance(a, dict)]
        newest = max((status["term"] for status, _ in known), default=0)
        for status, i in known:
            if status["role"] == "leader" and status["term"] == newest:
                return i
        await asyncio.sleep(0.05)
    raise ServerFailed(f"no member of {plan.url()} leads after {within_s:g} s")
