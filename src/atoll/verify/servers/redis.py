"""Redis servers: one alone, one with replicas, three sentinels beside it, or a cluster of three and three.

A scribe and the apprentices who copy from the scribe's page, always a line behind. Sentinels are the
neighbours who vote that the scribe has gone and name an apprentice; in a cluster the masters vote themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll import clock
from atoll.verify.servers.cluster import Cluster
from atoll.verify.servers.etcd import certificates
from atoll.verify.servers.process import START_S, ServerFailed, ServerProcess, free_port
from atoll.verify.servers.program import Program

PROGRAM = Program("Redis", ("redis-server", "/usr/bin/redis-server"), "apt-get install redis-server")
PASSWORD = "Pass-w0rd"
MASTER_NAME = "main"
PREFIX = "atoll"
"""Whose master `leader()` of a cluster names: the one that has the slot of this prefix."""
_SLOTS = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """`appendfsync` None: no append-only file. `arguments`: further words for each server."""

    appendfsync: str | None = "always"
    save: str = ""
    replicas: int = 0
    sentinel: bool = False
    """One master, two replicas, three sentinels."""
    cluster: bool = False
    """Three masters, a replica for each."""
    down_after_ms: int = 1000
    password: bool = False
    """Only with PASSWORD."""
    tls: bool = False
    arguments: tuple[str, ...] = ()
    between: Callable[[int, str], Awaitable[str]] | None = None
    """Answers the address at which the master is to be found instead, for member i at host:port."""


@dataclass(slots=True)
class _Plan:
    settings: RedisSettings
    program: Path
    folder: Path
    ports: list[int]
    facts: dict[str, Any] = field(default_factory=dict)

    def command(self, i: int, own: Path) -> list[str]:
        """What starts server `i`."""
        settings, port = self.settings, self.ports[i]
        words = [
            "--bind", "127.0.0.1", "--dir", str(own), "--save", settings.save,
            "--appendonly", "yes" if settings.appendfsync else "no",
            "--appendfsync", settings.appendfsync or "everysec",
            "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1",
        ]  # fmt: skip
        if settings.tls:
            words += ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", "--tls-replication",
                      "yes", "--tls-cert-file", self.facts["cert"], "--tls-key-file", self.facts["key"],
                      "--tls-ca-cert-file", self.facts["ca"]]  # fmt: skip
        else:
            words += ["--port", str(port)]
        if settings.password:
            words += ["--requirepass", PASSWORD, "--masterauth", PASSWORD]
        if settings.cluster:
            words += ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf",
                      "--cluster-node-timeout", "1000", "--cluster-port", str(free_port())]  # fmt: skip
        return [str(self.program), *words, *settings.arguments]

    def client(self, i: int) -> Any:
        """A client of server `i`, which does not ask twice."""
        return client_of(
            self.ports[i],
            password=PASSWORD if self.settings.password else None,
            ca=self.facts.get("ca") if self.settings.tls else None,
        )

    async def ask(self, i: int, *words: Any) -> Any:
        """Server `i`'s answer to one command."""
        client = self.client(i)
        try:
            return await client.execute_command(*words)
        finally:
            await client.aclose()


def client_of(port: int, *, password: str | None = None, ca: str | None = None) -> Any:
    """A redis-py client of the server on a loopback port; asks once, and gives up after two seconds."""
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    tls: dict[str, Any] = {"ssl": True, "ssl_ca_certs": ca} if ca else {}
    return Redis(
        host="127.0.0.1",
        port=port,
        password=password,
        socket_timeout=2,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        **tls,
    )


async def start(
    folder: Path, *, nodes: int = 1, program: Program = PROGRAM, product: str = "redis", **settings: Any
) -> Cluster:
    """Start them; see RedisSettings. `nodes`: one master and nodes - 1 replicas, where nothing else is said.

    `members`: the servers, then the sentinels. `facts`: password, ca, cert, key (TLS), name (Sentinel).
    """
    chosen = RedisSettings(**settings)
    count = 6 if chosen.cluster else 3 if chosen.sentinel else max(nodes, 1 + chosen.replicas)
    plan = _Plan(chosen, program.expect(), folder, [free_port() for _ in range(count)])
    if chosen.tls:
        plan.facts |= await certificates(folder)
    if chosen.password:
        plan.facts["password"] = PASSWORD
    members = [_member(plan, product, i) for i in range(count)]

    async def leader() -> int:
        return await _leader(plan, members[:count])

    addresses = [address for port in plan.ports for address in (f"127.0.0.1:{port}",) * 2]
    cluster = Cluster(product, "", members, leader, addresses, plan.facts)
    try:
        for member in members:
            member.launch()
        await asyncio.gather(*(member.serving() for member in members))
        if chosen.cluster:
            await _marry(plan)
        else:
            await _follow(plan)
        if chosen.sentinel:
            members += await _sentinels(plan)
        cluster.url = await _url(plan, product, members[count:])
    except BaseException:
        await cluster.close()
        raise
    return cluster


def _member(plan: _Plan, product: str, i: int) -> ServerProcess:
    own = plan.folder / f"{product}{i}"
    own.mkdir(parents=True, exist_ok=True)

    async def ready() -> object:
        return bool(await plan.ask(i, "PING"))

    return ServerProcess(f"{product}{i}", plan.command(i, own), own, ready)


async def _url(plan: _Plan, product: str, sentinels: list[ServerProcess]) -> str:
    settings = plan.settings
    login = f":{PASSWORD}@" if settings.password else ""
    if settings.sentinel:
        asked = ",".join(f"127.0.0.1:{sentinel.command[-1]}" for sentinel in sentinels)
        return f"redis+sentinel://{login}{asked}/{MASTER_NAME}"
    if settings.cluster:
        return f"redis+cluster://{login}{','.join(f'127.0.0.1:{port}' for port in plan.ports[:3])}"
    address = f"127.0.0.1:{plan.ports[0]}"
    if settings.between is not None:
        address = await settings.between(0, address)
    if settings.tls:
        return f"{product}s://{login}{address}?ca={plan.facts['ca']}" if product == "valkey" else (
            f"rediss://{login}{address}?ca={plan.facts['ca']}"
        )  # fmt: skip
    return f"{product}://{login}{address}"


async def _follow(plan: _Plan) -> None:
    """The others copy from the first."""
    for i in range(1, len(plan.ports)):
        await plan.ask(i, "REPLICAOF", "127.0.0.1", plan.ports[0])
    for i in range(1, len(plan.ports)):
        await _until(plan, i, "replication", "master_link_status:up")


async def _sentinels(plan: _Plan) -> list[ServerProcess]:
    made = [_sentinel(plan, n, free_port()) for n in range(3)]
    for one in made:
        one.launch()
    await asyncio.gather(*(one.serving() for one in made))
    return made


def _sentinel(plan: _Plan, n: int, port: int) -> ServerProcess:
    own = plan.folder / f"sentinel{n}"
    own.mkdir(parents=True, exist_ok=True)
    login = f"sentinel auth-pass {MASTER_NAME} {PASSWORD}\n" if plan.settings.password else ""
    file = own / "sentinel.conf"
    file.write_text(
        f"bind 127.0.0.1\ndir {own}\nsentinel monitor {MASTER_NAME} 127.0.0.1 {plan.ports[0]} 2\n{login}"
        f"sentinel down-after-milliseconds {MASTER_NAME} {plan.settings.down_after_ms}\n"
        f"sentinel failover-timeout {MASTER_NAME} 5000\n"
    )

    async def ready() -> object:
        """It knows the replicas and the other sentinels: before that it could not fail over."""
        client = client_of(port)
        try:
            known = await client.execute_command("SENTINEL", "MASTER", MASTER_NAME)
        finally:
            await client.aclose()
        return int(_of(known, "num-slaves")) == 2 and int(_of(known, "num-other-sentinels")) == 2

    return ServerProcess(
        f"sentinel{n}", [str(plan.program), str(file), "--sentinel", "--port", str(port)], own, ready
    )


def _of(known: Any, name: str) -> str:
    """A field of a flat list of pairs, or of a dict."""
    if not isinstance(known, dict):
        known = dict(zip(known[::2], known[1::2], strict=True))
    found = known[name] if name in known else known[name.encode()]
    return found.decode() if isinstance(found, bytes) else str(found)


async def _marry(plan: _Plan) -> None:
    """Six that know each other, three with a third of the slots each, three that copy one of them each."""
    buses = [await plan.ask(i, "CONFIG", "GET", "cluster-port") for i in range(6)]
    for i in range(1, 6):
        await plan.ask(i, "CLUSTER", "MEET", "127.0.0.1", plan.ports[0], _of(buses[0], "cluster-port"))
    for i in range(3):
        low, high = _SLOTS * i // 3, _SLOTS * (i + 1) // 3 - 1
        await plan.ask(i, "CLUSTER", "ADDSLOTSRANGE", low, high)
    for i in range(6):
        await _until(plan, i, None, "cluster_known_nodes:6")
    for i in range(3, 6):
        master = await plan.ask(i - 3, "CLUSTER", "MYID")
        await plan.ask(i, "CLUSTER", "REPLICATE", master)
    for i in range(6):
        await _until(plan, i, None, "cluster_state:ok")
    for i in range(3, 6):
        await _until(plan, i, "replication", "master_link_status:up")


async def _until(plan: _Plan, i: int, section: str | None, words: str, within_s: float = START_S) -> None:
    """Server `i` says `words` in a section of its INFO, or in its CLUSTER INFO."""
    until = clock.loop_now() + within_s
    said = ""
    while clock.loop_now() < until:
        try:
            said = await _said(plan, i, section)
        except Exception as error:
            said = repr(error)
        if words in said:
            return
        await asyncio.sleep(0.05)
    raise ServerFailed(f"server {i} does not say {words} after {within_s:g} s:\n{said}")


async def _said(plan: _Plan, i: int, section: str | None) -> str:
    """One section of INFO, or CLUSTER INFO, as the server writes it."""
    client = plan.client(i)
    words = ("CLUSTER", "INFO") if section is None else ("INFO", section)
    try:
        connection = await client.connection_pool.get_connection()
        try:
            await connection.send_command(*words)
            answer = await connection.read_response()
        finally:
            await client.connection_pool.release(connection)
    finally:
        await client.aclose()
    return answer.decode() if isinstance(answer, bytes) else str(answer)


async def _leader(plan: _Plan, members: list[ServerProcess], within_s: float = START_S) -> int:
    """Who takes writes now: the living master that most recently became one; in a cluster, of PREFIX."""
    until = clock.loop_now() + within_s
    while clock.loop_now() < until:
        living = [i for i, member in enumerate(members) if member.pid is not None]
        answers = await asyncio.gather(*(_answers(plan, i) for i in living))
        found = [i for i, leads in zip(living, answers, strict=True) if leads]
        if len(found) == 1:
            return found[0]
        await asyncio.sleep(0.05)
    raise ServerFailed(f"no one server of {plan.folder} leads after {within_s:g} s")


async def _answers(plan: _Plan, i: int) -> bool:
    """Whether server `i` says within a second that it leads; one that is stopped says nothing."""
    try:
        async with asyncio.timeout(1):
            return await _leads(plan, i)
    except Exception:
        return False


async def _leads(plan: _Plan, i: int) -> bool:
    if "role:master" not in await _said(plan, i, "replication"):
        return False
    if not plan.settings.cluster:
        return True
    from redis.crc import key_slot

    slot, mine = key_slot(PREFIX.encode()), str(plan.ports[i])
    said = await plan.ask(i, "CLUSTER", "NODES")
    if isinstance(said, dict):
        nodes = said.items()
        return any(
            "myself" in node["flags"] and any(int(low) <= slot <= int(high) for low, high in node["slots"])
            for _, node in nodes
        )
    lines = said.decode().splitlines() if isinstance(said, bytes) else str(said).splitlines()
    me = next(line.split() for line in lines if "myself" in line)
    ranges = [part.partition("-") for part in me[8:] if not part.startswith("[")]
    return mine in me[1] and any(int(low) <= slot <= int(high or low) for low, _, high in ranges)
