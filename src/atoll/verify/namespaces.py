"""Namespaces: the clients in a network of their own, and a firewall in it that drops packets.

A house with one road to town. When the road is closed nobody in the house hears a "no": letters just do not
arrive, in one direction or in both. The town goes on as before, and so does everybody else's traffic.

Source: ip-netns(8), veth(4), iptables(8).
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from atoll import clock
from atoll.errors import AtollError
from atoll.verify.accidents import Accident, Fate
from atoll.verify.privilege import NET_ADMIN, SYS_ADMIN, lacking
from atoll.verify.proxy import addresses, redirected
from atoll.verify.scenario import Hardship
from atoll.verify.staging import Stage, Start, leading, staged

KNOWN = ("postgresql", "redis", "valkey", "etcd", "raft")
CHAINS = (("INPUT",), ("OUTPUT",), ("INPUT", "OUTPUT"))


class NoNamespace(AtollError):
    """A network namespace cannot be made here; the message says why."""


def no_namespaces(start: Start) -> str:
    """Why the clients cannot have a network of their own."""
    if start.product not in KNOWN:
        return f"a second address for {start.product} is not set up here"
    if start.settings:
        return "only for servers without further settings"
    if why := lacking(SYS_ADMIN, NET_ADMIN):
        return why
    missing = [tool for tool in ("ip", "iptables") if shutil.which(tool, path=_PATH) is None]
    return f"no {' and no '.join(missing)}: apt-get install iproute2 iptables" if missing else ""


async def tried() -> str:
    """Why a network and its firewall cannot be had here, found out by making one; empty where they can."""
    try:
        async with network() as net:
            await net.drop(("INPUT",))
            await net.heal()
    except (NoNamespace, OSError) as error:
        return str(error)
    return ""


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


async def _do(*words: str) -> str:
    child = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PATH": _PATH},
    )
    said, _ = await child.communicate()
    if child.returncode:
        raise NoNamespace(f"{' '.join(words)} ended with {child.returncode}: {said.decode().strip()}")
    return said.decode()


@dataclass(frozen=True, slots=True)
class Network:
    """A namespace `name` with a cable to here. `near` is our end's address, `far` that in the namespace."""

    name: str
    near: str
    far: str

    def within(self) -> list[str]:
        """What to put before a command that is to run in it."""
        return [shutil.which("ip", path=_PATH) or "ip", "netns", "exec", self.name]

    async def drop(self, chains: Sequence[str]) -> None:
        """Drop what comes from our end (INPUT), what goes to it (OUTPUT), or both."""
        for chain in chains:
            way = "-s" if chain == "INPUT" else "-d"
            await _do(*self.within(), "iptables", "-w", "-A", chain, way, self.near, "-j", "DROP")

    async def heal(self) -> int:
        """Drop nothing more; answers how many packets had been dropped."""
        listed = await _do(*self.within(), "iptables", "-w", "-nvxL")
        rows = [line.split() for line in listed.splitlines() if " DROP " in line]
        await _do(*self.within(), "iptables", "-w", "-F")
        return sum(int(row[0]) for row in rows)


@asynccontextmanager
async def network() -> AsyncIterator[Network]:
    """A network for clients, gone when it is left."""
    number = os.getpid() % 60000
    name, cable = f"atoll-{os.getpid()}", f"at{number}"
    subnet = f"10.{231 + number % 8}.{number // 8 % 250}"
    made = Network(name, f"{subnet}.1", f"{subnet}.2")
    await _do("ip", "netns", "add", name)
    try:
        await _do(
            "ip", "link", "add", f"{cable}n", "type", "veth", "peer", "name", f"{cable}f", "netns", name
        )
        await _do("ip", "addr", "add", f"{made.near}/24", "dev", f"{cable}n")
        await _do("ip", "link", "set", f"{cable}n", "up")
        await _do("ip", "-n", name, "addr", "add", f"{made.far}/24", "dev", f"{cable}f")
        await _do("ip", "-n", name, "link", "set", f"{cable}f", "up")
        await _do("ip", "-n", name, "link", "set", "lo", "up")
        yield made
    finally:
        with suppress(NoNamespace):
            await _do("ip", "netns", "del", name)


@asynccontextmanager
async def namespaced(start: Start, folder: Path) -> AsyncIterator[Stage]:
    """Servers that can be reached on the cable's address by the workers, and most on loopback by us."""
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(network())
        only = {"host": net.near} if start.product == "raft" else {}
        stage = await stack.enter_async_context(staged(start, folder, proxied=False, **only))
        if not only:
            await _open_second_door(stage, net)
        through = {pair: f"{net.near}:{pair[1]}" for pair in addresses(stage.cluster.url)}
        stage.url = redirected(stage.straight, through)
        stage.facts["network"] = net
        stage.within = net.within()
        yield stage


async def _open_second_door(stage: Stage, net: Network) -> None:
    """The members listen on our end of the cable too: on no address that anybody else could reach."""
    for number, member in enumerate(stage.cluster.members):
        words = list(member.command)
        match stage.start.product:
            case "redis" | "valkey":
                words += ["--bind", "127.0.0.1", net.near, "--protected-mode", "no"]
            case "postgresql":
                words += ["-c", f"listen_addresses=127.0.0.1,{net.near}"]
                rules = stage.folder / f"node-{number}" / "data" / "pg_hba.conf"
                _append(rules, f"host all all {net.far}/32 trust\n")
            case "etcd":
                place = words.index("--listen-client-urls") + 1
                words[place] += "," + words[place].replace("127.0.0.1", net.near)
        member.command = words
        await member.restart()
    await leading(stage)


def _append(path: Path, line: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(line)


def drop_packets(stage: Stage) -> Fate:
    """Packets to the servers, from them, or both, are dropped for longer than a lease."""

    async def fate(dice: random.Random, ttl_s: float) -> list[Accident]:
        net: Network = stage.facts["network"]
        chains = dice.choice(CHAINS)
        accident = Accident(Hardship.NAMESPACE, " and ".join(chains), clock.lease_now())
        await net.drop(chains)
        try:
            await asyncio.sleep(ttl_s * 1.5)
        finally:
            accident.proof = await net.heal()
        accident.seconds = clock.lease_now() - accident.at
        await asyncio.sleep(dice.uniform(0.5, 1.0))
        return [accident]

    return fate
