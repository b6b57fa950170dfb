"""The Redis store keeps the Store port's promises: on Redis and on Valkey, and with small limits."""

from __future__ import annotations

from typing import Any

import pytest

import atoll.urls
from atoll.verify import conformance_store
from atoll.verify.conformance import NotTested
from servers import Shared

SMALL = (
    "?prefix=small&history_max=300&dedupe_window_s=5&operations_max=64&key_bytes_max=100&value_bytes_max=1000"
)
OPTIONS = [
    ("redis", "?prefix=conformance"),
    ("redis", SMALL),
    ("valkey", "?prefix=conformance"),
]
SLOW = {"ten_thousand_children_are_listed"}


@pytest.mark.parametrize(("product", "options"), OPTIONS)
@pytest.mark.parametrize("function", [pytest.param(f, id=name) for name, f in conformance_store.CASES])
async def test_the_store_keeps_its_promises(
    function: Any, product: str, options: str, shared: Shared
) -> None:
    if "&" in options and function.__name__ in SLOW:
        pytest.skip("slow, and the same with other limits")
    cluster = shared(product)
    made: list[Any] = []

    def make() -> Any:
        made.append(atoll.urls.store(cluster.url + options))
        return made[-1]

    try:
        await function(make)
    except NotTested as reason:
        pytest.skip(f"not claimed: {reason}")
    finally:
        for store in made:
            await store.close()
