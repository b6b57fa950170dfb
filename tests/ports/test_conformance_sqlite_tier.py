"""The SQLite tier keeps its port's promises, on a file of its own and with its options turned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import atoll.urls
from atoll.verify import conformance_tier
from atoll.verify.conformance import NotTested


@pytest.mark.parametrize("options", ["", "?bytes_max=4000&value_bytes_max=1000", "?entries_max=100"])
@pytest.mark.parametrize(
    "function", [pytest.param(function, id=name) for name, function in conformance_tier.CASES]
)
async def test_the_tier_keeps_its_promises(function: Any, options: str, tmp_path: Path) -> None:
    try:
        await function(lambda: atoll.urls.tier(f"sqlite:///{tmp_path}/cache.db{options}"))
    except NotTested as reason:
        pytest.skip(f"not claimed: {reason}")
