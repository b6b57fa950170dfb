"""MariaDB servers: one, or one with replicas that copy its binary log a moment later.

A clerk and those who copy the day's sheets when they come by. A copier knows what was copied and nothing
newer; `read_only` keeps its pen in the drawer.
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

PROGRAM = Program("MariaDB", ("mariadbd", "/usr/sbin/mariadbd"), "apt-get install mariadb-server")
INSTALL = Program("MariaDB", ("mariadb-install-db", "/usr/bin/mariadb-install-db"), PROGRAM.get)
ACCOUNT = "mysql"
"""The account that the servers run as, where we are root: MariaDB refuses to be root."""
DATABASE, USER, PASSWORD = "shop", "shop", "a-password"
"""The store's database, and an account that owns it and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MysqlSettings:
    """`flush`: innodb_flush_log_at_trx_commit. `binlog`: keep a binary log (replicas need it)."""

    flush: int = 1
    sync_binlog: int = 1
    binlog: bool = False
    read_only: bool = False
    tables: bool = True
    """Make the tables of a store."""
    config: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of the servers alone, as for a faked clock."""


async def start(folder: Path, *, nodes: int = 1, **settings: Any) -> Cluster:
    """Start a server and `nodes - 1` replicas; see MysqlSettings.

    `facts`: `ports`; `promote(i)` lets member i take writes and follow nobody.
    """
    chosen = MysqlSettings(**settings)
    ports = [free_port() for _ in range(nodes)]
    members: list[ServerProcess] = []
    addresses = [f"127.0.0.1:{port}" for port in ports]
    url = f"mysql://{USER}:{PASSWORD}@{','.join(addresses)}/{DATABASE}"
    cluster = Cluster("mysql", url, members, addresses=addresses)
    try:
        for number, port in enumerate(ports):
            home = folder / f"node-{number}"
            await _new(home)
            member = _member(home, port, number, nodes > 1, chosen)
            members.append(member)
            await member.start()
            await (_follow(port, ports[0]) if number else _accounts(port))
        if chosen.tables:
            async with urls.store(f"mysql://{USER}:{PASSWORD}@{addresses[0]}/{DATABASE}?create=true"):
                pass
        if chosen.read_only:
            await ask(ports[0], "SET GLOBAL read_only = 1")
    except BaseException:
        await cluster.close()
        raise
    cluster.leader = lambda: _writable(ports)
    cluster.facts = {"ports": ports, "promote": lambda number: _promote(ports[number])}
    return cluster


async def ask(port: int, *questions: str, database: str | None = None) -> list[tuple[Any, ...]]:
    """The last answer of the server at `port`, as its root."""
    import asyncmy

    connection = await asyncmy.connect(
        host="127.0.0.1", port=port, user="root", database=database, autocommit=True, connect_timeout=3
    )
    try:
        found: list[tuple[Any, ...]] = []
        async with connection.cursor() as cursor:
            for question in questions:
                await cursor.execute(question)
                found = list(await cursor.fetchall()) if cursor.description else []
        return found
    finally:
        connection.close()


def _make(home: Path) -> dict[str, Any]:
    """Its folder; answers what a process needs to run as its owner."""
    home.mkdir(mode=0o700)
    if os.geteuid() != 0:
        return {}
    shutil.chown(home, ACCOUNT, ACCOUNT)
    return {"user": ACCOUNT, "group": ACCOUNT, "extra_groups": []}


async def _new(home: Path) -> None:
    extra = _make(home)
    # A server that starts removes every temporary table it finds in its tmpdir, another server's too.
    words = ["--no-defaults", f"--datadir={home / 'data'}", "--auth-root-authentication-method=normal"]
    process = await asyncio.create_subprocess_exec(
        str(INSTALL.expect()),
        *words,
        "--skip-test-db",
        cwd="/",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(home)},
        **extra,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        faults = "\n".join(line for line in said.decode(errors="replace").splitlines() if "ERROR" in line)
        raise ServerFailed(f"mariadb-install-db ended with {process.returncode}:\n{faults or said[-2000:]!s}")


def _member(home: Path, port: int, number: int, copied: bool, chosen: MysqlSettings) -> ServerProcess:
    words = {
        "datadir": str(home / "data"),
        "tmpdir": str(home),
        "port": str(port),
        "bind-address": "127.0.0.1",
        "socket": str(home / "socket"),
        "pid-file": str(home / "pid"),
        "server-id": str(number + 1),
        "innodb-buffer-pool-size": "32M",
        "innodb-log-file-size": "16M",
        "innodb-flush-log-at-trx-commit": str(chosen.flush),
        "sync-binlog": str(chosen.sync_binlog),
        "max-connections": "200",
        "skip-name-resolve": "1",
        **({"log-bin": str(home / "data" / "binlog")} if chosen.binlog or copied else {}),
        **({"read-only": "1"} if number else {}),
        **chosen.config,
    }
    spoken = ["/usr/bin/env", *(f"{name}={value}" for name, value in chosen.environment.items())]
    command = [
        *(spoken if chosen.environment else []),
        str(PROGRAM.expect()),
        "--no-defaults",
        *(f"--{name}={value}" for name, value in words.items()),
    ]
    return ServerProcess(home.name, command, home, lambda: ask(port, "SELECT 1"), user=ACCOUNT)


async def _accounts(port: int) -> None:
    await ask(
        port,
        f"CREATE DATABASE {DATABASE}",
        f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'",
        f"GRANT ALL ON {DATABASE}.* TO '{USER}'@'%'",
        "CREATE USER 'copier'@'%' IDENTIFIED BY 'copier'",
        "GRANT REPLICATION SLAVE ON *.* TO 'copier'@'%'",
    )


async def _follow(port: int, leader: int) -> None:
    await ask(
        port,
        f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={leader}, MASTER_USER='copier', "
        "MASTER_PASSWORD='copier', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1",
        "START SLAVE",
    )


async def _promote(port: int) -> None:
    await ask(port, "STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = 0")


async def _writable(ports: list[int]) -> int:
    for number, port in enumerate(ports):
        try:
            if await ask(port, "SELECT 1 WHERE @@global.read_only = 0"):
                return number
        except Exception:
            continue
    raise ServerFailed(f"found no server that takes writes among {len(ports)}")
