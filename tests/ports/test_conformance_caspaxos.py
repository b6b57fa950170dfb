"""4.5: a CASPaxos register keeps the Register port's promises, on files on three disks and on weak memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import atoll.urls
from atoll.engines.caspaxos import CasPaxosOptions, CasPaxosRegister
from atoll.testing import Check, NotTested, conformance

CHECKS = conformance("register")
Make = Callable[[], CasPaxosRegister]


async def judged(check: Check, make: Make) -> None:
    try:
        await check(make)
    except NotTested as reason:
        pytest.skip(f"not claimed: {reason}")


def files(folder: Path, count: int = 3) -> Make:
    """A maker of registers on as many files, each in a folder of its own."""
    for n in range(count):
        (folder / f"disk{n}").mkdir()

    def make() -> CasPaxosRegister:
        return CasPaxosRegister(
            [atoll.urls.store(f"sqlite:///{folder}/disk{n}/state.db") for n in range(count)]
        )

    return make


def memories(name: str, knobs: str, count: int = 3, **options: Any) -> Make:
    """A maker of registers on as many memory stores of this process."""

    def make() -> CasPaxosRegister:
        stores = [atoll.urls.store(f"memory://{name}-{n}{knobs}") for n in range(count)]
        return CasPaxosRegister(stores, options=CasPaxosOptions(best_effort=True, **options))

    return make


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_three_files_are_one_register(check: Check, tmp_path: Path) -> None:
    await judged(check, files(tmp_path))


@pytest.mark.parametrize("check", CHECKS, ids=str)
@pytest.mark.parametrize(
    "knobs",
    ["", "?observe=coalesced&latency_s=0.002", "?reply_loss=0.02&request_loss=0.02", "?observe_reset=0.3"],
    ids=["plain", "slow", "lossy", "rough"],
)
async def test_three_weak_memories_are_one_register(check: Check, knobs: str, request: Any) -> None:
    await judged(check, memories(f"caspaxos-{check}-{abs(hash(knobs))}", knobs))


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_five_are_one_register(check: Check) -> None:
    await judged(check, memories(f"caspaxos-five-{check}", "", count=5))
