"""Real servers for the tests: one of each product for the whole session, started at its first use.

A test that hurts its server starts one of its own with `server(...)`. A product that is not installed skips
its tests with the line to type; with ATOLL_ENGINES=all, as in CI, one that `make engines` brings fails them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from atoll.errors import MissingExtra
from atoll.verify import servers
from atoll.verify.servers.cluster import Cluster

Shared = Callable[..., Cluster]


INSTALLED = {"postgresql", "etcd", "redis", "zookeeper", "mysql", "nats"}
"""What `make engines` brings: with ATOLL_ENGINES=all these must be here. Others are tried where they are."""


def expect(product: str) -> None:
    """Skip, or fail in CI, where `product` is not on this machine."""
    try:
        servers.program(product).expect()
    except MissingExtra as missing:
        if os.environ.get("ATOLL_ENGINES") == "all" and product in INSTALLED:
            pytest.fail(f"{missing} (ATOLL_ENGINES=all: it should be here)")
        pytest.skip(f"{missing}{' Or: make engines' if product in INSTALLED else ''}")


@asynccontextmanager
async def server(product: str, *, nodes: int = 1, **settings: Any) -> AsyncIterator[Cluster]:
    """Servers of a test's own, which it may hurt."""
    expect(product)
    folder = Path(tempfile.mkdtemp(prefix=f"atoll-{product}-"))
    folder.chmod(0o755)
    try:
        async with await servers.start(product, folder, nodes=nodes, **settings) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared() -> Any:
    """`shared("etcd")`: one server for the whole session. Keep to keys of your own.

    They are started from a thread that lives as long as the session: a server ends with the thread that
    started it, and a test that is a coroutine has a loop of its own.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="shared servers", daemon=True)
    thread.start()
    running: dict[Any, tuple[Cluster, Path]] = {}

    def start(product: str, **settings: Any) -> Cluster:
        expect(product)
        name = (product, *sorted(settings.items()))
        if name not in running:
            folder = Path(tempfile.mkdtemp(prefix=f"atoll-{product}-"))
            folder.chmod(0o755)
            starting = servers.start(product, folder, **settings)
            running[name] = (asyncio.run_coroutine_threadsafe(starting, loop).result(120), folder)
        return running[name][0]

    yield start
    for cluster, folder in running.values():
        asyncio.run_coroutine_threadsafe(cluster.close(), loop).result(60)
        shutil.rmtree(folder, ignore_errors=True)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
