"""Server faults: what befalls the servers that verify started, and the ways to them.

A list of bad nights: the machine is switched off, hangs for longer than a lease, is restarted, the cable is
pulled, works in one direction only, carries the question and loses the answer, takes its time. Each night
ends: the servers are as before when a fault returns.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll import clock
from atoll.verify.accidents import DELAY_MIN_S, Accident, Fate
from atoll.verify.proxy import Mood, Proxy
from atoll.verify.scenario import Hardship
from atoll.verify.servers.process import ServerProcess, family
from atoll.verify.staging import VOTING, Stage, leading, replaced

CALM_S = (0.2, 0.5)
"""How long after a fault before the next, so that the clients are on their feet again."""


@dataclass(slots=True)
class Ways:
    """The ways to servers, through proxies of ours: these may be hurt whoever owns the servers."""

    proxies: Sequence[Proxy]
    after: Callable[[], Awaitable[object]] | None = None
    """Awaited when a fault is over, until all is as before."""

    def fates(self) -> dict[Hardship, Fate]:
        """What can happen to them, by name."""
        return {
            Hardship.CUT: self.cut,
            Hardship.SILENCE: self.silence,
            Hardship.ONE_WAY: self.one_way,
            Hardship.SWALLOW: self.swallow,
            Hardship.DELAY: self.delay,
        }

    async def cut(self, dice: random.Random, ttl_s: float) -> list[Accident]:
        """Every connection is reset, and none is taken for a while."""
        return await self._mood(
            Hardship.CUT, Mood.CUT, dice.uniform(0.1, 0.5), dice, lambda proxy: proxy.counts.cut
        )

    async def silence(self, dice: random.Random, ttl_s: float) -> list[Accident]:
        """Nothing passes, and nobody is told."""
        return await self._mood(Hardship.SILENCE, Mood.SILENT, ttl_s * 1.4, dice, _dropped)

    async def one_way(self, dice: random.Random, ttl_s: float) -> list[Accident]:
        """Only questions pass, or only answers."""
        mood = dice.choice([Mood.DEAF, Mood.MUTE])
        return await self._mood(Hardship.ONE_WAY, mood, dice.uniform(0.3, 0.8), dice, _dropped)

    async def swallow(self, dice: random.Random, ttl_s: float) -> list[Accident]:
        """Questions arrive; in place of the answer the connection breaks."""
        return await self._mood(
            Hardship.SWALLOW,
            Mood.SWALLOW,
            dice.uniform(0.1, 0.4),
            dice,
            lambda proxy: proxy.counts.answers_swallowed,
        )

    async def delay(self, dice: random.Random, ttl_s: float) -> list[Accident]:
        """Everything takes its time."""
        accident = Accident(Hardship.DELAY, "the proxies", clock.lease_now())
        before = sum(proxy.counts.delayed for proxy in self.proxies)
        for proxy in self.proxies:
            proxy.be(Mood.FAITHFUL, delay_s=dice.uniform(DELAY_MIN_S, 0.15))
        await asyncio.sleep(dice.uniform(0.3, 0.8))
        for proxy in self.proxies:
            proxy.be(Mood.FAITHFUL)
        accident.proof = sum(proxy.counts.delayed for proxy in self.proxies) - before
        return await self._over(accident, dice)

    async def _mood(
        self,
        hardship: Hardship,
        mood: Mood,
        seconds: float,
        dice: random.Random,
        count: Callable[[Proxy], int],
    ) -> list[Accident]:
        accident = Accident(hardship, "the proxies", clock.lease_now())
        before = sum(map(count, self.proxies))
        for proxy in self.proxies:
            proxy.be(mood)
        try:
            await asyncio.sleep(seconds)
        finally:
            for proxy in self.proxies:
                proxy.be(Mood.FAITHFUL)
        accident.proof = sum(map(count, self.proxies)) - before
        return await self._over(accident, dice)

    async def _over(self, accident: Accident, dice: random.Random) -> list[Accident]:
        accident.seconds = clock.lease_now() - accident.at
        if self.after is not None:
            await self.after()
        await asyncio.sleep(dice.uniform(*CALM_S))
        return [accident]


def lines_only(proxies: Sequence[Proxy]) -> dict[Hardship, Fate]:
    """The faults of the ways alone, for a server that is somebody's."""
    return Ways(proxies).fates()


@dataclass(slots=True)
class Weather:
    """The faults that a stage has in store."""

    stage: Stage

    def fates(self) -> dict[Hardship, Fate]:
        """What can happen on this stage, by name."""
        found: dict[Hardship, Fate] = {
            Hardship.SERVER_KILL: self.kill,
            Hardship.SERVER_PAUSE: self.pause,
            Hardship.SERVER_RESTART: self.restart,
        }
        if self.stage.proxies:
            found |= Ways(self.stage.proxies, self._settled).fates()
        if self.stage.peers:
            found[Hardship.PEERS] = self.alone
        return found

    async def kill(self, dice: random.Random, ttl_s: float) -> list[Accident]:
        """kill -9 to who leads, and start it again on its data."""
        member = await self._leader()
        accident = Accident(Hardship.SERVER_KILL, member.name, clock.lease_now())
        member.kill()
        await asyncio.sleep(dice.uniform(0.1, 0.4))
        await member.start()
        return await self._over(accident, dice)

    async def pause(self, dice: random.Random, ttl_s: float) -> list[Accident]:
        """SIGSTOP to who leads, for longer than a lease."""
        member = await self._leader()
        accident = Accident(Hardship.SERVER_PAUSE, member.name, clock.lease_now())
        member.pause()
        try:
            await asyncio.sleep(ttl_s * 1.4)
        finally:
            member.resume()
        return await self._over(accident, dice)

    async def restart(self, dice: random.Random, ttl_s: float) -> list[Accident]:
        """An orderly end and a new start of who leads; where they vote, another leads in between."""
        number = await leading(self.stage)
        member = self.stage.cluster.members[number]
        accident = Accident(Hardship.SERVER_RESTART, member.name, clock.lease_now())
        await member.stop()
        if len(self.stage.cluster.members) > 2 and self.stage.start.product in VOTING:
            accident.proof = int(await replaced(self.stage, number))
        await member.start()
        return await self._over(accident, dice)

    async def alone(self, dice: random.Random, ttl_s: float) -> list[Accident]:
        """Who leads hears none of its peers and is heard by none, until another leads."""
        number = await leading(self.stage)
        member = self.stage.cluster.members[number]
        accident = Accident(Hardship.PEERS, member.name, clock.lease_now(), proof=0)
        ports = Sockets(member)
        for other, proxy in enumerate(self.stage.peers):
            proxy.concerns = (lambda port: True) if other == number else ports.has
            proxy.be(Mood.SILENT)
        try:
            until = clock.loop_now() + 8
            while clock.loop_now() < until and not accident.proof:
                await asyncio.sleep(0.1)
                accident.proof = int(await replaced(self.stage, number, 2))
            await asyncio.sleep(ttl_s)
        finally:
            for proxy in self.stage.peers:
                proxy.concerns = lambda port: True
                proxy.be(Mood.FAITHFUL)
        return await self._over(accident, dice)

    async def _over(self, accident: Accident, dice: random.Random) -> list[Accident]:
        accident.seconds = clock.lease_now() - accident.at
        await self._settled()
        await asyncio.sleep(dice.uniform(*CALM_S))
        return [accident]

    async def _settled(self) -> None:
        if len(self.stage.cluster.members) > 1:
            await leading(self.stage)

    async def _leader(self) -> ServerProcess:
        return self.stage.cluster.members[await leading(self.stage)]


def _dropped(proxy: Proxy) -> int:
    return proxy.counts.dropped_to_client + proxy.counts.dropped_to_server


class Sockets:
    """Which local TCP ports are a process's own: so that a proxy knows who is at its door."""

    def __init__(self, member: ServerProcess) -> None:
        self.member = member
        self._known: dict[int, bool] = {}

    def has(self, port: int) -> bool:
        """Whether the connection that comes from this port of loopback is the member's."""
        if port not in self._known:
            self._known[port] = bool(self._inode(port) & self._inodes())
        return self._known[port]

    def _inode(self, port: int) -> set[str]:
        """The socket of a local port, by its number in /proc."""
        wanted = f":{port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return {row[9] for row in rows if row[1].endswith(wanted) and row[9] != "0"}

    def _inodes(self) -> set[str]:
        found: set[str] = set()
        for pid in family(self.member.pid) if self.member.pid else []:
            try:
                links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
            except OSError:
                continue
            found |= {link[8:-1] for link in links if link.startswith("socket:[")}
        return found
