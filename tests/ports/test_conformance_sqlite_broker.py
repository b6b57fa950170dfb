"""The SQLite broker keeps its port's promises, on a file of its own and with its options turned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import atoll.urls
from atoll.verify import conformance_broker
from atoll.verify.conformance import NotTested


@pytest.mark.parametrize("options", ["", "?dedupe_window_s=0.3", "?dedupe_window_s=0&messages_max=3"])
@pytest.mark.parametrize(
    "function", [pytest.param(function, id=name) for name, function in conformance_broker.CASES]
)
async def test_the_broker_keeps_its_promises(function: Any, options: str, tmp_path: Path) -> None:
    try:
        await function(lambda: atoll.urls.broker(f"sqlite:///{tmp_path}/queue.db{options}"))
    except NotTested as reason:
        pytest.skip(f"not claimed: {reason}")
