"""Servers: real ones, started on a free loopback port in a folder of their own, to be proven and to be hurt.

One file per product. `SERVERS` names them; each module has `PROGRAM` (what must be installed, and how to get
it) and `async def start(folder, *, nodes, **settings) -> Cluster`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from atoll.errors import ConfigurationError
from atoll.verify.servers.cluster import Cluster
from atoll.verify.servers.program import Program

SERVERS: dict[str, str] = {
    "postgresql": "atoll.verify.servers.postgresql",
    "etcd": "atoll.verify.servers.etcd",
    "redis": "atoll.verify.servers.redis",
    "valkey": "atoll.verify.servers.valkey",
    "zookeeper": "atoll.verify.servers.zookeeper",
    "mysql": "atoll.verify.servers.mysql",
    "nats": "atoll.verify.servers.nats",
    "raft": "atoll.verify.servers.raft",
}


def program(product: str) -> Program:
    """What `product` needs on this machine."""
    return _module(product).PROGRAM  # type: ignore[no-any-return]


async def start(product: str, folder: Path, *, nodes: int = 1, **settings: Any) -> Cluster:
    """Start `nodes` servers of `product` below `folder` and wait until they answer."""
    program(product).expect()
    return await _module(product).start(folder, nodes=nodes, **settings)  # type: ignore[no-any-return]


def _module(product: str) -> Any:
    if product not in SERVERS:
        raise ConfigurationError(f"found the server {product!r}; expected one of {', '.join(SERVERS)}.")
    return importlib.import_module(SERVERS[product])
