"""3.10: a fleet that moves from one store to another shares locks, tokens and data all the while."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import atoll
from atoll import (
    ConfigurationError,
    Election,
    EpochChanged,
    Lock,
    LockLost,
    ReadOnly,
    Refused,
    Taken,
    Term,
    put,
)
from atoll.blocks.lock import Held
from atoll.blocks.removal import Moved, Removal
from atoll.engines.memory import MemoryStore
from atoll.ports.moving import DRAINING, mark, move_of, note
from atoll.ports.store import Store, Token

FLEET = Path(__file__).parent / "formerly_fleet.py"
PATIENCE_S = 40.0


# Real processes.


class Fleet:
    """Processes on two files, and the log that they write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.old, self.new = f"sqlite:///{folder}/old.db", f"sqlite:///{folder}/new.db"
        self.children: list[subprocess.Popen[bytes]] = []

    def start(self, url: str, formerly: str = "-", *, count: int = 2) -> None:
        for _ in range(count):
            words = [sys.executable, str(FLEET), str(self.folder), url, formerly]
            self.children.append(subprocess.Popen(words))

    def lines(self, first: str) -> list[list[str]]:
        log = self.folder / "log"
        found = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        return [line for line in found if line[0] == first]

    def turns(self) -> Counter[str]:
        return Counter(line[1] for line in self.lines("turn"))

    def tokens(self) -> list[Token]:
        return [Token(int(epoch), int(revision)) for _, _, epoch, revision in self.lines("turn")]

    def until(self, question: Callable[[], object], what: str) -> None:
        due = time.monotonic() + PATIENCE_S
        while not question():
            assert time.monotonic() < due, f"not so after {PATIENCE_S} s: {what}; {self.turns()}"
            time.sleep(0.02)

    def move(self) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "atoll", "store", "move", self.old, self.new],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stop(self) -> None:
        (self.folder / "stop").touch()
        for child in self.children:
            assert child.wait(PATIENCE_S) == 0


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    one = Fleet(tmp_path)
    try:
        yield one
    finally:
        for child in one.children:
            child.kill()
            child.wait()


def counted(url: str) -> int:
    async def ask() -> int:
        async with atoll.store(url) as store:
            entry = (await store.get("n")).entry
            return int(entry.value) if entry else 0

    return asyncio.run(ask())


def test_a_fleet_moves_while_it_runs_and_nothing_overlaps_or_is_lost(fleet: Fleet) -> None:
    fleet.start(fleet.old)
    fleet.start(fleet.new, fleet.old)
    fleet.until(lambda: fleet.turns()["old"] > 20 < fleet.turns()["both"], "both halves take turns")
    before = len(fleet.tokens())
    fleet.move()
    fleet.until(lambda: len(fleet.lines("refused")) == 2, "those without the word are refused")
    assert all(f"moved to {fleet.new}" in " ".join(line) for line in fleet.lines("refused"))
    fleet.start(fleet.new)
    fleet.until(lambda: fleet.turns()["new"] > 20, "those that have dropped the word take turns")
    fleet.stop()
    tokens = fleet.tokens()
    assert fleet.lines("overlap") == []
    assert tokens == sorted(set(tokens)), "a token went down, or came twice"
    assert len({token.epoch for token in tokens}) == 2 and len(tokens) > before
    assert counted(fleet.new) == len(tokens), "a count was lost or done twice"


def test_a_word_dropped_too_early_meets_a_locked_door(fleet: Fleet) -> None:
    fleet.start(fleet.old, count=1)
    fleet.start(fleet.new, fleet.old, count=1)
    fleet.until(lambda: fleet.turns()["old"] > 5 < fleet.turns()["both"], "both halves take turns")
    (fleet.folder / "stop-old").touch()
    assert fleet.children[0].wait(PATIENCE_S) == 0  # the last one without the word
    fleet.start(fleet.new, count=1)
    fleet.until(lambda: fleet.turns()["new"] > 30 and fleet.turns()["both"] > 30, "old word and no word")
    fleet.stop()
    assert fleet.lines("overlap") == []


def test_without_the_word_the_halves_overlap_and_it_is_seen(fleet: Fleet) -> None:
    fleet.start(fleet.old)
    fleet.start(fleet.new)
    fleet.until(lambda: fleet.lines("overlap"), "two fleets under two locks meet")


# One process, two stores of memory.


_numbers = itertools.count()


class Two:
    """An old and a new store, and handles with and without the word."""

    def __init__(self) -> None:
        number = next(_numbers)
        self.old_name, self.new_name = f"old-{number}", f"new-{number}"
        self.old: Store = MemoryStore(name=self.old_name)
        self.new: Store = MemoryStore(name=self.new_name)

    def both(self) -> Store:
        return atoll.store(self.new, formerly=self.old)

    async def move(self, *, wait_s: float = 5.0, interrupt: bool = False, force: bool = False) -> Moved:
        return await Removal(
            self.old, self.new, wait_s=wait_s, interrupt=interrupt, force=force, say=lambda text: None
        ).move()


@pytest.fixture
def two() -> Two:
    return Two()


async def test_until_the_move_everything_goes_to_the_old_store(two: Two) -> None:
    both = two.both()
    await both.transact(put("k", b"1"))
    assert (await two.old.get("k")).entry and (await two.new.get("k")).entry is None
    await two.old.transact(put("k", b"2"))
    entry = (await both.get("k")).entry
    assert entry and entry.value == b"2"
    assert await both.epoch() == 1


async def test_after_the_move_everything_goes_to_the_new_one(two: Two) -> None:
    both, other = two.both(), two.both()
    await both.transact(put("k", b"1"))
    moved = await two.move()
    assert moved.done and moved.copied and moved.copied.entries == 1
    await both.transact(put("k", b"2"))
    for handle in (both, other, two.new):
        entry = (await handle.get("k")).entry
        assert entry and entry.value == b"2"
    assert (await other.range("k")).entries[0].value == b"2"
    with pytest.raises(ReadOnly, match="moved to memory://new"):
        await two.old.transact(put("k", b"3"))


async def test_a_moved_store_never_hands_out_a_lower_token(two: Two) -> None:
    assert two.old.moving
    await two.old.moving.bump(above=6)
    async with Lock(two.old, "x") as held:
        before = held.token
    both = two.both()
    async with Lock(both, "x") as held:
        mixed = held.token
    await two.move()
    async with Lock(both, "x") as held:
        after = held.token
    async with Lock(MemoryStore(name=two.new_name), "x") as held:
        last = held.token
    assert before < mixed < after < last and before.epoch == 7 and after.epoch == 8


async def test_a_lock_is_held_in_both_and_given_up_in_both(two: Two) -> None:
    async with Lock(two.both(), "x") as held:
        assert held.token.epoch == 1
        for single in (two.old, two.new):
            with pytest.raises(Taken):
                async with Lock(single, "x", wait_s=0):
                    pass
    for single in (two.old, two.new):
        async with Lock(single, "x", wait_s=0):
            pass


async def test_losing_either_is_losing_it(two: Two) -> None:
    for single in (two.old, two.new):
        both = two.both()
        with pytest.raises(LockLost):
            async with Lock(both, "x", ttl_s=0.6):
                (entry,) = (await single.range("lock/x/owner")).entries
                assert single.leasing and entry.lease
                await single.leasing.revoke(entry.lease)
                await asyncio.sleep(10)
        for one in (two.old, two.new):
            async with Lock(one, "x", wait_s=5):  # and nothing of it is left in the other
                pass


async def test_who_cannot_have_the_second_gives_the_first_back(two: Two) -> None:
    async with Lock(two.new, "x"):
        with pytest.raises(Taken):
            async with Lock(two.both(), "x", wait_s=0.1):
                pass
        async with Lock(two.old, "x", wait_s=0):
            pass


async def test_the_move_waits_for_a_holder_and_for_nobody_who_only_waits(two: Two) -> None:
    both, entered, leave = two.both(), asyncio.Event(), asyncio.Event()
    tokens: list[Token] = []

    async def holder() -> None:
        async with Lock(both, "x") as held:
            tokens.append(held.token)
            entered.set()
            await leave.wait()

    async def waiter() -> None:
        async with Lock(both, "x") as held:
            tokens.append(held.token)

    holding = asyncio.ensure_future(holder())
    await entered.wait()
    waiting = asyncio.ensure_future(waiter())
    moving = asyncio.ensure_future(two.move(wait_s=20))
    while (await two.new.get(DRAINING)).entry is None:
        await asyncio.sleep(0.01)
    assert not waiting.done() and not moving.done()
    await both.transact(put("k", b"a holder finishes its writes"))
    leave.set()
    assert (await moving).done
    await asyncio.gather(holding, waiting)
    assert tokens[0].epoch == 1 and tokens[1].epoch == 2


async def test_while_holders_finish_nobody_begins_anything_new(two: Two) -> None:
    both = two.both()
    async with Lock(both, "x", owner="api-2"):
        moving = asyncio.ensure_future(two.move(wait_s=0.6))
        while (await two.new.get(DRAINING)).entry is None:
            await asyncio.sleep(0.01)
        with atoll.deadline(0.2), pytest.raises(ReadOnly, match="is being moved"):
            async with Lock(two.both(), "y"):
                pass
        entering = asyncio.ensure_future(take(Lock(two.both(), "y")))
        assert not (await moving).done
        assert (await entering).epoch == 1  # the move was given up, so life goes on


async def take(lock: Lock) -> Token:
    async with lock as held:
        return held.token


async def test_who_does_not_know_the_word_does_not_hold_up_the_move_for_ever(two: Two) -> None:
    stop = False

    async def stranger() -> None:
        while not stop:
            async with Lock(two.old, "x"):
                await asyncio.sleep(0.05)

    working = asyncio.ensure_future(stranger())
    await asyncio.sleep(0.02)
    async with asyncio.timeout(10):
        assert (await two.move(wait_s=60)).done
    with pytest.raises(ReadOnly, match=r"was moved to|is being moved to"):
        await working
    stop = True


async def test_two_moves_into_one_store_at_once_are_one_after_the_other(two: Two) -> None:
    await two.old.transact(put("k", b"1"))
    done = await asyncio.gather(two.move(), two.move(), return_exceptions=True)
    assert all(isinstance(one, Moved) and one.done for one in done), done


async def test_a_holder_who_does_not_finish_keeps_the_old_store_in_use(two: Two) -> None:
    both = two.both()
    async with Lock(both, "x", owner="api-2"):
        moved = await two.move(wait_s=0.3)
        assert not moved.done and [one.owner for one in moved.held] == ["api-2"]
        await both.transact(put("k", b"1"))
    assert (await two.old.get("k")).entry


async def test_a_leader_is_interrupted_and_leads_again_on_the_new_store(two: Two) -> None:
    both = two.both()
    terms: asyncio.Queue[Token] = asyncio.Queue()

    async def lead(term: Term) -> None:
        terms.put_nowait(term.token)
        await asyncio.sleep(60)

    leading = asyncio.ensure_future(Election(both, "nightly", ttl_s=0.8).lead(lead))
    first = await terms.get()
    moved = await two.move(wait_s=0.1, interrupt=True)
    assert moved.done and moved.interrupted
    async with asyncio.timeout(10):
        second = await terms.get()
    assert first.epoch < second.epoch
    leading.cancel()
    await asyncio.wait([leading])


async def test_a_write_during_the_move_waits_and_is_done_once(two: Two) -> None:
    both = two.both()
    await both.transact(put("k", b"1"))
    assert two.old.moving
    await two.old.moving.freeze(note("memory://new", "abcdef123456", done=False))
    writing = asyncio.ensure_future(both.transact(put("late", b"1")))
    await asyncio.sleep(0.05)
    entry = (await both.get("k")).entry
    assert entry and entry.value == b"1" and not writing.done(), "reads go on, a write waits"
    await two.new.transact(put("k", b"1"), put(mark("abcdef123456"), b""))
    await writing
    assert (await two.new.get("late")).entry and (await two.old.get("late")).entry is None


async def test_a_write_waits_no_longer_than_its_deadline(two: Two) -> None:
    both = two.both()
    assert two.old.moving
    await two.old.moving.freeze(note("memory://new", "abcdef123456", done=False))
    with atoll.deadline(0.2), pytest.raises(ReadOnly, match="is being moved to memory://new"):
        await both.transact(put("k", b"1"))


async def test_who_leaves_while_the_old_store_is_frozen_says_so_in_the_new_one(two: Two) -> None:
    both = two.both()
    async with Lock(both, "x", owner="api-2") as held:
        revision, moving = held.token.revision, two.old.moving
        assert moving
        await moving.freeze(note("memory://new", "abcdef123456", done=False))
    said = (await two.new.get("atoll/left/abcdef123456/lock/x/owner")).entry
    assert said and said.value == str(revision).encode()


def test_without_an_event_loop_the_word_is_the_same(tmp_path: Path) -> None:
    from atoll import sync

    old, new = f"sqlite:///{tmp_path}/old.db", f"sqlite:///{tmp_path}/new.db"
    with sync.store(new, formerly=old) as both, sync.store(old) as before, sync.store(new) as after:
        both.transact(put("k", b"1"))
        assert before.get("k").entry and after.get("k").entry is None
        with sync.Lock(both, "x") as held:
            both.transact(put("k", b"2"), guard=held)
            with pytest.raises(Taken), sync.Lock(after, "x", wait_s=0):
                pass


async def test_a_store_frozen_for_another_reason_says_so_at_once(two: Two) -> None:
    both = two.both()
    assert two.old.moving
    await two.old.moving.freeze("closed for the night")
    with pytest.raises(ReadOnly, match="closed for the night"):
        await both.transact(put("k", b"1"))


async def test_a_retry_of_what_was_done_before_the_move_is_known(two: Two) -> None:
    both = two.both()
    await both.transact(put("k", b"1"), request_id="r")
    await two.move()
    await both.transact(put("k", b"2"))
    again = await both.transact(put("k", b"1"), request_id="r")
    assert again.replayed  # type: ignore[union-attr]
    entry = (await both.get("k")).entry
    assert entry and entry.value == b"2"


async def test_a_watch_goes_on_with_the_whole_state_of_the_new_store(two: Two) -> None:
    both = two.both()
    await both.transact(put("k", b"1"))
    watch = both.observe("k")
    first = await anext(watch)
    assert first.reset and first.changed[0].value == b"1"
    await two.move()
    async with asyncio.timeout(10):
        again = await anext(watch)
        assert again.reset and again.changed[0].value == b"1"
        await both.transact(put("k", b"2"))
        assert (await anext(watch)).changed[0].value == b"2"
    await watch.aclose()  # type: ignore[attr-defined]


async def test_a_bookmark_of_before_the_move_is_out_of_date(two: Two) -> None:
    both = two.both()
    assert both.history
    bookmark = await both.history.now()
    reading = both.history.changes("", bookmark)
    following = asyncio.ensure_future(anext(reading))
    await asyncio.sleep(0)
    await two.move()
    with pytest.raises(EpochChanged):
        async with asyncio.timeout(10):
            await following
    with pytest.raises(EpochChanged):
        await anext(both.history.changes("", bookmark))


async def test_a_guard_of_before_the_move_is_refused_after_it(two: Two) -> None:
    both = two.both()

    class Late:
        """A holder who was frozen when the move ended its lease, and never looked at the clock."""

        def __init__(self, held: Held) -> None:
            self.owner_key, self.token = held.owner_key, held.token

        def check(self) -> None:
            return None

    with pytest.raises(LockLost):
        async with Lock(both, "x", ttl_s=0.6) as held:
            late = Late(held)
            await both.transact(put("k", b"1"), guard=late)
            moving = asyncio.ensure_future(two.move(wait_s=0.05, interrupt=True))
            await asyncio.sleep(20)
    assert (await moving).done
    with pytest.raises(Refused):
        await both.transact(put("k", b"2"), guard=late)


async def test_moving_back_needs_force_and_works(two: Two) -> None:
    await two.old.transact(put("k", b"1"), put("gone", b"1"))
    await two.move()
    await two.new.transact(put("k", b"2"))
    entry = (await two.new.get("gone")).entry
    assert entry
    await two.new.delete_if("gone", entry.revision)
    back = Two()
    back.old, back.new = two.new, two.old
    with pytest.raises(ConfigurationError, match="frozen"):
        await back.move()
    both = atoll.store(two.old, formerly=two.new)
    async with Lock(both, "x"):
        pass
    assert (await back.move(force=True)).done
    kept = [entry.key for entry in (await two.old.range()).entries]
    assert [key for key in kept if not key.startswith(("atoll/", "lock/"))] == ["k"]
    async with Lock(both, "x") as held:
        assert held.token.epoch == 3


async def test_one_store_twice_is_refused(two: Two) -> None:
    with pytest.raises(ConfigurationError, match="expected two"):
        atoll.store(two.old, formerly=two.old)


async def test_the_claims_are_the_weaker_of_both() -> None:
    both = atoll.store(
        "memory://claims-new?operations_max=50", formerly="memory://claims-old?forgets_at_failover=true"
    )
    claims = await both.open()
    assert (claims.operations_max, claims.forgets_at_failover) == (50, True)


def test_a_note_and_its_number_are_one() -> None:
    assert move_of(note("memory://x", "abcdef12", done=True)) == "abcdef12"
    assert move_of("closed for the night") is None and move_of(None) is None
