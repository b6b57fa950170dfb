"""ZooKeeper servers: one alone, or an ensemble, of the distribution's jar on the machine's Java."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from atoll.verify.servers.cluster import Cluster
from atoll.verify.servers.process import ServerProcess, free_port
from atoll.verify.servers.program import Program

JAR = "/usr/share/java/zookeeper.jar"
PROGRAM = Program("zookeeper", [JAR], "apt-get install zookeeper")
JAVA = Program("java", ["java"], "apt-get install default-jre-headless")
TICK_MS = 500
_ANSWER_S = 1.0
_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"


async def four_letters(address: str, word: str) -> str:
    """What a server answers to a command such as `srvr`."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(word.encode())
        return (await reader.read()).decode(errors="replace")
    finally:
        writer.close()


async def start(
    folder: Path,
    *,
    nodes: int = 1,
    tick_ms: int = TICK_MS,
    sync_limit: int = 5,
    user: str = "",
    settings: tuple[str, ...] = (),
    java: tuple[str, ...] = (),
) -> Cluster:
    """`user`: "name:password" for the URL. `sync_limit`: ticks a follower may lag. `settings`: lines of
    zoo.cfg; `java`: arguments of the JVM."""
    runtime = str(JAVA.expect())
    ports = [free_port() for _ in range(nodes * 3)]
    clients = [f"127.0.0.1:{port}" for port in ports[:nodes]]
    peers = [(ports[nodes + n], ports[2 * nodes + n]) for n in range(nodes)]
    ensemble = [f"server.{n + 1}=127.0.0.1:{a}:{b}" for n, (a, b) in enumerate(peers)] if nodes > 1 else []
    members = []
    for n in range(nodes):
        home = folder / f"zookeeper-{n}"
        (home / "data").mkdir(parents=True)
        (home / "data" / "myid").write_text(f"{n + 1}\n")
        lines = [
            f"tickTime={tick_ms}",
            "initLimit=20",
            f"syncLimit={sync_limit}",
            f"dataDir={home / 'data'}",
            f"clientPort={ports[n]}",
            "clientPortAddress=127.0.0.1",
            "admin.enableServer=false",
            "4lw.commands.whitelist=*",
            "maxClientCnxns=0",
            *settings,
            *ensemble,
        ]
        (home / "zoo.cfg").write_text("\n".join(lines) + "\n")
        command = [
            *(runtime, "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *java),
            *("-cp", JAR, _MAIN, str(home / "zoo.cfg")),
        ]
        members.append(ServerProcess(f"zookeeper-{n}", command, home, _ready(clients[n], home)))
    url = f"zookeeper://{user + '@' if user else ''}{','.join(clients)}"

    async def leader() -> int:
        for n, address in enumerate(clients):
            try:
                async with asyncio.timeout(2):
                    if "Mode: leader" in await four_letters(address, "srvr"):
                        return n
            except (OSError, TimeoutError):
                continue
        raise LookupError("no server of the ensemble says that it leads")

    cluster = Cluster("zookeeper", url, members, addresses=clients, facts={"tick_s": tick_ms / 1000})
    if nodes > 1:
        cluster.leader = leader
    try:
        for member in members:
            member.launch()
        for member in members:
            await member.serving()
    except BaseException:
        await cluster.close()
        raise
    return cluster


def _ready(address: str, home: Path) -> Callable[[], Awaitable[object]]:
    async def ready() -> bool:
        """It serves, and it is this one: another server may have taken the port a moment before."""
        async with asyncio.timeout(_ANSWER_S):  # one asked while it starts may never answer
            ours = str(home) in await four_letters(address, "conf")
            return ours and "Mode: " in await four_letters(address, "srvr")

    return ready
