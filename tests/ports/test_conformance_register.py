"""3.7: what keeps one key at a time keeps the Register port's promises: NATS, and every store beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atoll.errors import ConfigurationError
from atoll.ports.register import Applied, Got, Unmet
from atoll.testing import Check, NotTested, Violation, conformance
from atoll.urls import register, store
from servers import Shared

CHECKS = conformance("register")


async def judged(check: Check, place: Any) -> None:
    try:
        await check(place)
    except NotTested as reason:
        pytest.skip(f"not claimed: {reason}")


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_nats_keeps_its_promises(check: Check, nats: str) -> None:
    await judged(check, nats)


@pytest.fixture
def nats(shared: Shared) -> str:
    return shared("nats").url


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_a_store_is_a_register_too(check: Check, tmp_path: Path) -> None:
    await judged(check, f"sqlite:///{tmp_path}/state.db")


@pytest.mark.parametrize("check", CHECKS, ids=str)
@pytest.mark.parametrize("knobs", ["", "?observe=coalesced&latency_s=0.001"])
async def test_memory_is_one_with_any_knobs(check: Check, knobs: str) -> None:
    await judged(check, f"memory://{knobs}")


def test_a_register_is_no_store() -> None:
    with pytest.raises(ConfigurationError, match="nats:// is no store; it is a register"):
        store("nats://127.0.0.1:4222/config")


async def told(broken: type) -> list[str]:
    """What the suite says of an engine."""
    found = []
    for check in CHECKS:
        try:
            await check(broken)
        except NotTested:
            continue
        except Violation as violation:
            found.append(str(violation))
    return found


async def test_a_register_that_does_not_compare_is_caught() -> None:
    from atoll.engines.memory import MemoryStore

    class Overwrites(MemoryStore):
        async def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
            now = (await self.get(key)).entry
            return await super().put_if(key, value, now.revision if now else 0)

    assert await told(Overwrites)


async def test_a_register_whose_misses_carry_no_revision_is_caught() -> None:
    from atoll.engines.memory import MemoryStore

    class Bare(MemoryStore):
        async def get(self, key: str) -> Got:
            found = await super().get(key)
            return found if found.entry else Got(None, 0)

    assert any("a miss at 0" in sentence for sentence in await told(Bare))


def test_the_door_leads_to_a_store_where_there_is_no_smaller_one(tmp_path: Path) -> None:
    assert type(register(f"sqlite:///{tmp_path}/x.db")).__name__ == "SqliteStore"
