"""4.4: what a snapshot that takes the place of the state leaves behind; whom a member met is forced."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atoll.algorithms.raft.events import Proposed, Role
from atoll.algorithms.raft.messages import Membership, Snapshot
from atoll.algorithms.raft.settings import Settings
from atoll.engines.raft import acquaintances, files
from atoll.engines.raft.acquaintances import Acquaintances
from atoll.engines.raft.consensus import Consensus
from atoll.engines.raft.state import State
from atoll.errors import OutcomeUnknown
from engines.raft_log import put

ALONE = Membership(("a",))


def state_of(path: Path, *values: bytes) -> State:
    state = State(path)
    state.apply(tuple(put(n, "k", value) for n, value in enumerate(values, 1)))
    return state


def test_a_reader_at_work_while_the_state_is_replaced_brings_no_old_copy_back(tmp_path: Path) -> None:
    newer = state_of(tmp_path / "newer.db", b"old", b"new")
    newer.copy_to(tmp_path / "copy.db")
    newer.close()
    state = state_of(tmp_path / "state.db", b"old")
    assert state.read(lambda connection: state.replace(tmp_path / "copy.db")) is None
    for _ in range(3):
        entry = state.get("k").entry
        assert entry and entry.value == b"new"
    state.close()


class Alone:
    """A runtime whose machine accepts everything at place 5."""

    def __init__(self) -> None:
        me = SimpleNamespace(cluster="c", name="a", place="a:1")
        self.peers = SimpleNamespace(me=me, place=lambda name: "")
        self.machine = SimpleNamespace(term=1, leader="a", membership=ALONE, commit=0)
        self.folder = SimpleNamespace(applied=0)
        self.ledger = SimpleNamespace(snapshot=lambda: None)
        self.applying = 0
        self.told: Any = None

    def want(self, index: int) -> None: ...

    def hear(self, event: Any) -> None:
        assert isinstance(event, Proposed)
        self.told.accepted(event.id, 1, 5)


@pytest.mark.parametrize(("upto", "known"), [(4, False), (5, True), (9, True)])
async def test_who_proposed_what_a_snapshot_has_swallowed_is_told_that_it_is_not_known(
    upto: int, known: bool
) -> None:
    runtime: Any = Alone()
    consensus = runtime.told = Consensus(runtime, SimpleNamespace(), Settings())  # type: ignore[arg-type]
    consensus.became(Role.LEADER, 1, "a")
    answer = consensus.submit(b"")
    await asyncio.sleep(0)
    consensus.installed(Snapshot(upto, 1, ALONE))
    assert answer.done() is known
    if not known:
        consensus.close()
    assert isinstance(answer.exception(), OutcomeUnknown)


async def test_whom_a_member_met_is_forced_before_it_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a power cut would let a wiped folder in under the name that it had."""
    forced: list[str] = []
    real = files.force

    def force(descriptor: int) -> None:
        forced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(files, "force", force)
    known = Acquaintances(tmp_path)
    assert await known.remember("b", "its folder") == ""
    assert forced == [str(tmp_path / f"{acquaintances.FILE}.new"), str(tmp_path)]
    assert await known.remember("b", "its folder") == "" and len(forced) == 2, "once is enough"
    assert "another data folder" in await known.remember("b", "a new one")
