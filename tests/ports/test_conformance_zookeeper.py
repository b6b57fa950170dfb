"""The ZooKeeper engine keeps the store's promises, on a real server."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.engines.zookeeper import ZookeeperStore
from atoll.verify import conformance_store
from atoll.verify.conformance import NotTested


@pytest.mark.parametrize(
    "function", [pytest.param(function, id=name) for name, function in conformance_store.CASES]
)
async def test_the_store_keeps_its_promises(function: Any, shared: Any) -> None:
    cluster = shared("zookeeper", tick_ms=200)
    try:
        await function(lambda: ZookeeperStore(cluster.addresses[0], root="conformance"))
    except NotTested as reason:
        pytest.skip(f"not claimed: {reason}")
