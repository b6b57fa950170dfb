"""3.10, 3.11: a file that is frozen stops every process; a broken mover is caught by conformance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from processes import line, process

from atoll.engines.memory import MemoryStore
from atoll.engines.memory.moving import MemoryExamining, MemoryMoving
from atoll.engines.sqlite import ledger
from atoll.engines.sqlite.store import SqliteStore
from atoll.errors import ReadOnly
from atoll.ports.examining import Finding, Weight
from atoll.ports.store import put
from atoll.verify import conformance_moving
from atoll.verify.conformance import Violation


async def test_a_note_stops_the_writers_of_other_processes_that_have_the_file_open(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    code = """
        async def main():
            async with SqliteStore(path) as store:
                await store.transact(put("k", b"1"))
                print("wrote", flush=True)
                sys.stdin.readline()
                try:
                    await store.transact(put("k", b"2"))
                except Exception as error:
                    print(type(error).__name__, error, flush=True)
        asyncio.run(main())
    """
    with process(code, path) as child:
        assert line(child) == "wrote"
        async with SqliteStore(path) as store:
            await store.moving.freeze("moved to the blue book")
        assert child.stdin
        child.stdin.write("\n")
        assert "ReadOnly" in (told := line(child)) and "moved to the blue book" in told


async def test_a_note_outlives_the_process_that_wrote_it(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    async with SqliteStore(path) as store:
        await store.moving.freeze("12e3")
    async with SqliteStore(path) as store:
        assert await store.moving.frozen() == "12e3", "a note that looks like a number stays text"
        with pytest.raises(ReadOnly, match="12e3"):
            await store.transact(put("k", b"1"))
        await store.moving.freeze(None)
        await store.transact(put("k", b"1"))


def test_an_older_release_would_refuse_the_file_and_not_write_past_the_note() -> None:
    assert ledger.FORMAT == 2 and ledger.UPGRADES == {1: ()}


class _Moving(MemoryMoving):
    """Of a broken store; `world` for its bad deeds."""

    @property
    def world(self) -> Any:
        return self._world()


class FreezesNothing(_Moving):
    async def freeze(self, note: str | None) -> None:
        self.world.note = note

    async def frozen(self) -> str | None:
        found: str | None = getattr(self.world, "note", None)
        return found


class NeverThaws(_Moving):
    async def freeze(self, note: str | None) -> None:
        await super().freeze(note or "still")


class ForgetsTheNote(_Moving):
    async def freeze(self, note: str | None) -> None:
        await super().freeze(None if note is None else "closed")


class RisesByOneOnly(_Moving):
    async def bump(self, above: int = 0) -> int:
        return await super().bump(0)


class DoesNotRise(_Moving):
    async def bump(self, above: int = 0) -> int:
        return self.world.epoch + 1  # type: ignore[no-any-return]


class WipesAtABump(_Moving):
    async def bump(self, above: int = 0) -> int:
        self.world.entries.clear()
        self.world.keys.clear()
        return await super().bump(above)


class EndsLeasesNever(_Moving):
    async def freeze(self, note: str | None) -> None:
        for lease in self.world.leases.values():
            lease.due, self.world.next_due = lease.due + 1e6, 1e9
        self.world.end = lambda lease: None
        await super().freeze(note)


class ForgetsRequests(_Moving):
    async def freeze(self, note: str | None) -> None:
        self.world.requests.clear()
        await super().freeze(note)


BROKEN = {
    FreezesNothing: "a_frozen_store_takes_no_writes_until_it_thaws",
    NeverThaws: "a_frozen_store_takes_no_writes_until_it_thaws",
    ForgetsTheNote: "a_frozen_store_takes_no_writes_until_it_thaws",
    EndsLeasesNever: "a_frozen_store_still_ends_leases",
    ForgetsRequests: "what_was_applied_before_is_still_answered_while_frozen",
    RisesByOneOnly: "a_bump_rises_above_its_own_and_what_is_asked",
    DoesNotRise: "a_token_of_before_a_bump_is_refused",
    WipesAtABump: "a_bump_leaves_what_is_there_and_its_revisions",
}


async def caught(store: MemoryStore, name: str) -> None:
    cases = dict(conformance_moving.CASES)
    with pytest.raises((Violation, ReadOnly)):
        await cases[name](lambda: store)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
async def test_a_broken_mover_is_caught(broken: type[_Moving], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.verify.conformance.PATIENCE_S", 0.8)
    store = MemoryStore()
    store._moving = broken(store._link, lambda: store.world)
    await caught(store, BROKEN[broken])


async def test_a_bookmark_that_lives_on_after_a_bump_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgiving(MemoryMoving):
        async def bump(self, above: int = 0) -> int:
            return self._world().epoch

    monkeypatch.setattr("atoll.verify.conformance.PATIENCE_S", 0.3)
    store = MemoryStore()
    store._moving = Forgiving(store._link, lambda: store.world)
    await caught(store, "a_bookmark_of_before_a_bump_is_out_of_date")


class Mute(MemoryExamining):
    """Says that something breaks, and not how to mend it."""

    async def examine(self) -> list[Finding]:
        return [Finding(setting="x", value="y", weight=Weight.BREAKS, cost="It breaks.")]


class NoSentence(MemoryExamining):
    async def examine(self) -> list[Finding]:
        return [Finding(setting="x", value="y", weight=Weight.NOTE, cost="bad")]


class LightFirst(MemoryExamining):
    async def examine(self) -> list[Finding]:
        note = Finding(setting="x", value="y", weight=Weight.NOTE, cost="So it is.")
        return [note, Finding(setting="z", value="y", weight=Weight.COSTS, cost="It costs.")]


@pytest.mark.parametrize("broken", [Mute, NoSentence, LightFirst], ids=lambda broken: broken.__name__)
async def test_a_report_that_helps_nobody_is_caught(broken: type[MemoryExamining]) -> None:
    store = MemoryStore()
    store._examining = broken(store._knobs)
    await caught(store, "what_is_examined_is_said_in_sentences")


async def test_a_lease_that_is_said_to_live_on_is_caught() -> None:
    store = MemoryStore()
    store.world.remaining = lambda lease: 10.0  # type: ignore[method-assign]
    await caught(store, "what_a_lease_has_left_is_told")
