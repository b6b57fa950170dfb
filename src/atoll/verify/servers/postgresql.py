"""PostgreSQL servers: one, or a primary with standbys that stream from it.

An office with a first clerk and others who copy each line as it is written. With `sync` the first clerk says
"done" only when a copy is written too; without, the copies may be some lines behind when the first one falls.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll import urls
from atoll.verify.servers.cluster import Cluster
from atoll.verify.servers.process import ServerFailed, ServerProcess, free_port
from atoll.verify.servers.program import Program

PLACES = [f"/usr/lib/postgresql/{version}/bin/postgres" for version in range(19, 11, -1)]
PROGRAM = Program("PostgreSQL", ("postgres", *PLACES), "apt-get install postgresql")
POOLER = Program("PgBouncer", ("pgbouncer", "/usr/sbin/pgbouncer"), "apt-get install pgbouncer")
ACCOUNT = "postgres"
"""The account that the servers run as, where we are root: PostgreSQL refuses to be root."""
LOCKED = "host all locked 127.0.0.1/32 scram-sha-256"
"""The role `locked` must show its password; every other may in without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSettings:
    """`sync`: the primary answers a commit when a standby has it on its disk too."""

    sync: bool = False
    fsync: bool = True
    tables: bool = True
    """Make the tables of a store."""
    config: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of the servers alone, as for a faked clock."""


async def start(folder: Path, *, nodes: int = 1, **settings: Any) -> Cluster:
    """Start a primary and `nodes - 1` standbys; see PostgresSettings.

    `facts`: `promote(i)` makes member i the primary; `pooler(**settings)` starts a PgBouncer in transaction
    mode before member 0 and answers its process and address.
    """
    chosen = PostgresSettings(**settings)
    ports = [free_port() for _ in range(nodes)]
    members: list[ServerProcess] = []
    addresses = [f"127.0.0.1:{port}" for port in ports]
    cluster = Cluster("postgresql", _url(addresses), members, addresses=addresses)
    try:
        for number, port in enumerate(ports):
            home = _home(folder, number)
            await (_copy(home, ports[0], number) if number else _new(home))
            member = _member(home, port, chosen)
            members.append(member)
            await member.start()
        if chosen.sync and nodes > 1:
            await ask(ports[0], "ALTER SYSTEM SET synchronous_standby_names = '*'")
            await ask(ports[0], "SELECT pg_reload_conf()")
            await _streaming(ports[0], nodes - 1, "sync")
        elif nodes > 1:
            await _streaming(ports[0], nodes - 1, "async")
        if chosen.tables:
            await _tables(addresses[0])
    except BaseException:
        await cluster.close()
        raise
    cluster.leader = lambda: _primary(ports)
    cluster.facts = {
        "ports": ports,
        "promote": lambda number: ask(ports[number], "SELECT pg_promote(true, 30)"),
        "pooler": lambda **extra: pooler(folder, ports[0], **extra),
    }
    return cluster


async def ask(port: int, question: str, database: str = "postgres") -> list[tuple[Any, ...]]:
    """The answer of the server at `port`, as its superuser."""
    import psycopg

    async with await psycopg.AsyncConnection.connect(
        f"host=127.0.0.1 port={port} user=postgres dbname={database} connect_timeout=3", autocommit=True
    ) as connection:
        cursor = await connection.execute(question.encode())
        return await cursor.fetchall() if cursor.description else []


async def pooler(folder: Path, port: int, *, pool_size: int = 2, **extra: str) -> tuple[ServerProcess, str]:
    """A PgBouncer in transaction mode before the server at `port`, and its host:port."""
    program, mine = POOLER.expect(), free_port()
    home = _home(folder, f"pooler-{mine}")
    home.mkdir(mode=0o700)
    lines = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(mine),
        "unix_socket_dir": "",
        "auth_type": "any",
        "pool_mode": "transaction",
        "max_client_conn": "500",
        "default_pool_size": str(pool_size),
        **extra,
    }
    text = f"[databases]\n* = host=127.0.0.1 port={port} user=postgres\n[pgbouncer]\n"
    (home / "pgbouncer.ini").write_text(text + "".join(f"{k} = {v}\n" for k, v in lines.items()))
    _own(home)
    command = [str(program), str(home / "pgbouncer.ini")]
    process = ServerProcess("pgbouncer", command, home, lambda: ask(mine, "SELECT 1"), user=ACCOUNT)
    await process.start()
    return process, f"127.0.0.1:{mine}"


def _url(addresses: list[str]) -> str:
    return f"postgresql://postgres@{','.join(addresses)}/postgres"


def _home(folder: Path, name: object) -> Path:
    return folder / (f"node-{name}" if isinstance(name, int) else str(name))


def _make(home: Path) -> None:
    home.mkdir(mode=0o700)
    _own(home)


def _own(folder: Path) -> None:
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, ACCOUNT, ACCOUNT)


async def _run(*command: object) -> None:
    extra: dict[str, Any] = {"user": ACCOUNT, "group": ACCOUNT} if os.geteuid() == 0 else {}
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd="/",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        **extra,
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise ServerFailed(f"{command[0]} ended with {process.returncode}:\n{said.decode(errors='replace')}")


async def _new(home: Path) -> None:
    _make(home)
    tool = PROGRAM.expect().resolve().parent / "initdb"
    await _run(tool, "-D", home / "data", "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
    rules = home / "data" / "pg_hba.conf"
    rules.write_text(f"{LOCKED}\n{rules.read_text()}")


async def _copy(home: Path, port: int, number: int) -> None:
    _make(home)
    tool = PROGRAM.expect().resolve().parent / "pg_basebackup"
    source = f"host=127.0.0.1 port={port} user=postgres application_name=s{number}"
    await _run(tool, "-d", source, "-D", home / "data", "-R", "-X", "stream", "-c", "fast", "--no-sync")


def _member(home: Path, port: int, chosen: PostgresSettings) -> ServerProcess:
    words = {
        "port": str(port),
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "on" if chosen.fsync else "off",
        "max_connections": "200",
        "max_prepared_transactions": "64",
        "max_wal_senders": "8",
        "shared_buffers": "32MB",
        "wal_receiver_status_interval": "1s",
        "recovery_min_apply_delay": "0",
        "log_line_prefix": "%m [%p] ",
        **chosen.config,
    }
    flags = [word for name, value in words.items() for word in ("-c", f"{name}={value}")]
    spoken = ["/usr/bin/env", *(f"{name}={value}" for name, value in chosen.environment.items())]
    command = [
        *(spoken if chosen.environment else []),
        str(PROGRAM.expect()),
        "-D",
        str(home / "data"),
        *flags,
    ]
    return ServerProcess(
        home.name,
        command,
        home,
        lambda: ask(port, "SELECT 1"),
        user=ACCOUNT,
        stop_signal=2,  # SIGINT: a fast shutdown, which does not wait for its clients
    )


async def _streaming(port: int, count: int, state: str) -> None:
    found: list[tuple[Any, ...]] = []
    for _ in range(400):
        found = await ask(port, f"SELECT 1 FROM pg_stat_replication WHERE sync_state = '{state}'")
        if len(found) >= (1 if state == "sync" else count):
            return
        await asyncio.sleep(0.05)
    raise ServerFailed(f"found {len(found)} {state} standbys after 20 s; expected {count}")


async def _primary(ports: list[int]) -> int:
    for number, port in enumerate(ports):
        try:
            if await ask(port, "SELECT 1 WHERE NOT pg_is_in_recovery()"):
                return number
        except Exception:
            continue
    raise ServerFailed(f"found no primary among {len(ports)} servers")


async def _tables(address: str) -> None:
    async with urls.store(f"postgresql://postgres@{address}/postgres?create=true"):
        pass
