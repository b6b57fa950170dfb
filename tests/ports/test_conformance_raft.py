"""4.4: the raft store keeps the Store port's promises on three real members."""

from __future__ import annotations

from typing import Any

import pytest

import atoll.urls
from atoll.verify import conformance_store
from atoll.verify.conformance import NotTested


@pytest.mark.parametrize("function", [pytest.param(f, id=name) for name, f in conformance_store.CASES])
async def test_the_store_keeps_its_promises(function: Any, shared: Any) -> None:
    url = f"{shared('raft', nodes=3).url}?liveness_s=2"
    made: list[Any] = []

    def make() -> Any:
        made.append(atoll.urls.store(url))
        return made[-1]

    try:
        await function(make)
    except NotTested as reason:
        pytest.skip(f"not claimed: {reason}")
    finally:
        for store in made:
            await store.close()
