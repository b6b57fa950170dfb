"""NATS servers with JetStream: one, or a cluster of three."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

from atoll.verify.servers.cluster import Cluster
from atoll.verify.servers.process import ServerProcess, free_port
from atoll.verify.servers.program import Program

PROGRAM = Program("nats", ("nats-server", "/usr/sbin/nats-server"), "apt-get install nats-server")


async def start(
    folder: Path, *, nodes: int = 1, user: str = "", password: str = "", store_bytes: int = 0
) -> Cluster:
    """Servers that keep their streams below `folder`; `store_bytes`: how much they may keep."""
    program = PROGRAM.expect()
    ports = [(free_port(), free_port(), free_port()) for _ in range(nodes)]
    routes = ",".join(f"nats://127.0.0.1:{route}" for _, _, route in ports)
    members = []
    for place, (port, watch, route) in enumerate(ports):
        home = folder / f"n{place}"
        home.mkdir(parents=True, exist_ok=True)
        config = home / "nats.conf"
        limit = f", max_file_store: {store_bytes}" if store_bytes else ""
        lines = [f'jetstream {{ store_dir: "{home / "data"}"{limit} }}']
        if user:
            lines.append(f'authorization {{ user: "{user}", password: "{password}" }}')
        config.write_text("\n".join(lines))
        config.chmod(0o600)
        words = [str(program), "-c", str(config), "-a", "127.0.0.1", "-p", str(port), "-m", str(watch)]
        if nodes > 1:
            words += ["--cluster_name", f"c{ports[0][0]}", "--name", f"n{place}"]
            words += ["--cluster", f"nats://127.0.0.1:{route}", "--routes", routes]
        members.append(ServerProcess(f"nats{place}", words, home, _ready(watch)))
    login = f"{user}:{password}@" if user else ""
    addresses = [f"127.0.0.1:{port}" for port, _, _ in ports]
    cluster = Cluster("nats", f"nats://{login}{','.join(addresses)}/atoll", members, addresses=addresses)
    try:
        await asyncio.gather(*(member.start() for member in members))
    except BaseException:
        await cluster.close()
        raise
    return cluster


def _ready(port: int) -> Callable[[], Awaitable[object]]:
    def look() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)

    return lambda: asyncio.to_thread(look)
