"""The memory engine keeps its ports' promises, as good as it is and with every knob turned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import atoll.urls
from atoll.verify import conformance_broker, conformance_store, conformance_tier
from atoll.verify.conformance import Case, NotTested

STORES = [
    "memory://",
    "memory://?observe=coalesced&observe_late_s=0.02&observe_reset=0.3",
    "memory://?expiry_late_s=0.2&granted_ttl_factor=0.5&ttl_min_s=0.3&latency_s=0.002",
    "memory://?operations_max=4&key_bytes_max=100&value_bytes_max=1000&dedupe_window_s=0",
    "memory://?history_max=20&dedupe_window_s=5",
    "memory://?history=false&leasing=false",
]
BROKERS = [
    "memory://",
    "memory://?latency_s=0.002&messages_max=2&body_bytes_max=100",
    "memory://?dedupe_window_s=0.3",
    "memory://?dedupe_window_s=0&leased=false",
]
TIERS = [
    "memory://",
    "memory://?bytes_max=2000&latency_s=0.002",
    "memory://?value_bytes_max=100&token_ttl_s=5",
]


async def run(function: Case, make: Callable[[], Any]) -> None:
    try:
        await function(make)
    except NotTested as reason:
        pytest.skip(f"not claimed: {reason}")


def named(cases: list[tuple[str, Case]]) -> list[Any]:
    return [pytest.param(function, id=name) for name, function in cases]


# Ten thousand keys in transactions of four would test the patience, and nothing else.
SLOW = {("ten_thousand_children_are_listed", "operations_max=4")}


@pytest.mark.parametrize("url", STORES)
@pytest.mark.parametrize("function", named(conformance_store.CASES))
async def test_the_store_keeps_its_promises(function: Any, url: str) -> None:
    if any(function.__name__ == name and part in url for name, part in SLOW):
        pytest.skip("slow, and the same as with other knobs")
    await run(function, lambda: atoll.urls.store(url))


@pytest.mark.parametrize("url", BROKERS)
@pytest.mark.parametrize("function", named(conformance_broker.CASES))
async def test_the_broker_keeps_its_promises(function: Any, url: str) -> None:
    await run(function, lambda: atoll.urls.broker(url))


@pytest.mark.parametrize("url", TIERS)
@pytest.mark.parametrize("function", named(conformance_tier.CASES))
async def test_the_tier_keeps_its_promises(function: Any, url: str) -> None:
    await run(function, lambda: atoll.urls.tier(url))
