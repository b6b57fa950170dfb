"""3.10: copy, move, backup and restore carry every value or none, and say what is in the way."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import atoll
from atoll import (
    ConfigurationError,
    FormatRefused,
    LimitReached,
    Lock,
    NotSent,
    OutcomeUnknown,
    ReadOnly,
    put,
)
from atoll.blocks import backup
from atoll.blocks.moving import copy
from atoll.blocks.removal import Removal, holds
from atoll.engines.memory import MemoryStore
from atoll.engines.sqlite.store import SqliteStore
from atoll.ports.moving import DRAINING, note
from atoll.ports.store import Store
from atoll.verify.doorway import Call
from atoll.verify.faults_in_process import through


async def filled(store: Store, count: int = 5) -> Store:
    for number in range(count):
        await store.transact(put(f"k/{number:03d}", b"%d" % number))
    return store


async def values(store: Store) -> dict[str, bytes]:
    entries = (await store.range(limit=10_000)).entries
    return {e.key: e.value for e in entries if not e.key.startswith("atoll/")}


def removal(source: Store, target: Store, *, wait_s: float = 5, force: bool = False) -> Removal:
    return Removal(source, target, wait_s=wait_s, interrupt=False, force=force, say=lambda text: None)


class Breaking:
    """A doorway that raises at the n-th call of a verb, before or after it was done."""

    def __init__(self, verb: str, at: int, error: Exception, *, after: bool = False) -> None:
        self.verb, self.left, self.error, self.after = verb, at, error, after
        self.broke = False

    async def call(self, call: Call, send):  # type: ignore[no-untyped-def]
        if call.verb == self.verb:
            self.left -= 1
            if self.left == 0 and not self.after:
                self.broke = True
                raise self.error
        answer = await send()
        if call.verb == self.verb and self.left == 0 and not self.broke:
            self.broke = True
            raise self.error
        return answer

    def stream(self, call: Call, start):  # type: ignore[no-untyped-def]
        return start(None)


async def test_copy_carries_every_value_and_leaves_what_dies_with_a_lease() -> None:
    source, target = await filled(MemoryStore(), 700), MemoryStore()
    async with Lock(source, "x"):
        copied = await copy(source, target)
        assert (copied.entries, copied.leased, copied.there, copied.one_moment) == (700, 1, 0, True)
    assert await values(target) == {f"k/{n:03d}": b"%d" % n for n in range(700)}
    assert (await source.transact(put("still", b"1"))).revision


async def test_copy_twice_writes_nothing_the_second_time() -> None:
    source, target = await filled(MemoryStore()), MemoryStore()
    await copy(source, target)
    before = (await target.range()).revision
    assert (await copy(source, target)).there == 5
    assert (await target.range()).revision == before


async def test_copy_into_small_transactions_works() -> None:
    source = await filled(MemoryStore(), 20)
    target = atoll.store("memory://?operations_max=3")
    await copy(source, target)
    assert await values(target) == await values(source)


async def test_copy_refuses_what_is_there_already_and_force_makes_it_like_the_source() -> None:
    source, target = await filled(MemoryStore()), MemoryStore()
    await target.transact(put("k/001", b"other"), put("mine", b"1"))
    with pytest.raises(ConfigurationError, match=r"found 2 other entries in memory:// \('k/001', 'mine'\)"):
        await copy(source, target)
    assert await values(target) == {"k/001": b"other", "mine": b"1"}, "nothing was written"
    await copy(source, target, force=True)
    assert await values(target) == await values(source)


async def test_copy_refuses_values_that_the_target_does_not_take_before_it_writes() -> None:
    source = await filled(MemoryStore())
    await source.transact(put("zzz", b"x" * 2000))
    target = atoll.store("memory://?value_bytes_max=1000")
    with pytest.raises(LimitReached, match=r"'zzz'.*takes 1024 and 1000"):
        await copy(source, target)
    assert await values(target) == {}


async def test_replies_lost_while_copying_do_no_harm() -> None:
    source, target = await filled(MemoryStore(), 300), atoll.store("memory://?reply_loss=0.1")
    await copy(source, target)
    assert len(await values(target)) == 300


async def test_a_source_that_is_written_meanwhile_is_told() -> None:
    source, target = await filled(MemoryStore(), 600), MemoryStore()

    class Busy(Breaking):
        async def call(self, call: Call, send):  # type: ignore[no-untyped-def]
            if call.verb == "range":
                await source.transact(put("busy", b"1"))
            return await send()

    assert not (await copy(through(source, Busy("", 0, NotSent(""))), target)).one_moment


async def test_after_a_failure_while_copying_the_old_store_takes_writes_again() -> None:
    source, target = await filled(MemoryStore(), 600), MemoryStore()
    broken = through(target, Breaking("transact", 2, NotSent("the target went away")))
    with pytest.raises(NotSent):
        await removal(source, broken).move()
    assert source.moving and await source.moving.frozen() is None
    await source.transact(put("k/000", b"newer"))
    assert (await removal(source, target, force=True).move()).done
    assert (await values(target)) == {**{f"k/{n:03d}": b"%d" % n for n in range(600)}, "k/000": b"newer"}


async def test_cancelling_a_move_leaves_the_old_store_in_use() -> None:
    source, target = await filled(MemoryStore()), MemoryStore()
    async with Lock(source, "x"):
        moving = asyncio.ensure_future(removal(source, target, wait_s=60).move())
        while (await target.get(DRAINING)).entry is None:
            await asyncio.sleep(0.01)
        moving.cancel()
        await asyncio.wait([moving])
        assert source.moving and await source.moving.frozen() is None
        assert (await target.get(DRAINING)).entry is None, "and its word is taken back"
        await source.transact(put("k", b"1"))


async def test_a_move_whose_last_answer_was_lost_is_known_to_be_done() -> None:
    source, target = await filled(MemoryStore()), MemoryStore()
    lost = Breaking("transact", 2, OutcomeUnknown("no answer"), after=True)  # the mark
    assert (await removal(source, through(target, lost)).move()).done
    assert lost.broke and source.moving and "was moved" in str(await source.moving.frozen())


async def test_a_move_that_was_killed_goes_on_when_it_is_asked_again() -> None:
    source, target = await filled(MemoryStore(), 600), MemoryStore()
    assert source.moving
    removing = removal(source, target)
    number, _ = await removing._number(source.moving)
    await source.moving.freeze(note(target.url, number, done=False))  # and then it was killed, half way
    await target.transact(put("k/000", b"0"))
    moved = await removal(source, target).move()
    assert moved.done and moved.move == number and moved.copied and moved.copied.there == 1
    again = await removal(source, target).move()
    assert again.done and again.copied is None, "a third time says that it is done"


async def test_a_holder_who_came_just_after_the_word_was_sent_finishes_and_the_move_goes_on() -> None:
    """Quicker than the mover's first look, it is taken for one who does not know the word."""

    class Late(Removal):
        async def _send_the_word(self, move: str) -> None:
            await super()._send_the_word(move)
            self._first = set()

    old, new = await filled(MemoryStore()), MemoryStore()
    both = atoll.store(new, formerly=old)
    assert old.moving is not None
    frozen = asyncio.Event()

    async def hold() -> None:
        async with Lock(both, "x") as held:
            inside.set()
            await frozen.wait()
            await both.transact(put("k/late", b"1"), guard=held)

    inside = asyncio.Event()
    async with both:
        holding = asyncio.ensure_future(hold())
        await inside.wait()
        mover = Late(old, new, wait_s=20, interrupt=False, force=False, say=lambda text: None)
        moving = asyncio.ensure_future(mover.move())
        while await old.moving.frozen() is None:
            await asyncio.sleep(0.01)
        frozen.set()
        assert (await moving).done
        await holding
    assert (await values(new))["k/late"] == b"1"


async def test_a_store_frozen_by_somebody_else_is_not_moved() -> None:
    source, target = await filled(MemoryStore()), MemoryStore()
    assert source.moving
    await source.moving.freeze("closed for the night")
    with pytest.raises(ConfigurationError, match=r"closed for the night.*atoll store thaw"):
        await removal(source, target).move()


async def test_what_leases_hold_is_told_with_owner_and_since() -> None:
    store = MemoryStore()
    async with Lock(store, "x", owner="api-2"):
        (one,) = await holds(store)
    assert (one.key, one.owner, one.waits) == ("lock/x/owner", "api-2", False) and one.since


async def test_a_moved_file_never_hands_out_a_lower_token(tmp_path: Path) -> None:
    async with SqliteStore(str(tmp_path / "a.db")) as source, SqliteStore(str(tmp_path / "b.db")) as target:
        await source.moving.bump(above=40)
        async with Lock(source, "x") as held:
            before = held.token
        await removal(source, target).move()
        async with Lock(target, "x") as held:
            assert held.token > before
        with pytest.raises(ReadOnly, match=r"moved to .*b\.db"):
            await source.transact(put("k", b"1"))


# Backup and restore.


async def test_a_backup_is_restored_with_its_values_above_both_epochs(tmp_path: Path) -> None:
    source, target, path = await filled(MemoryStore(), 30), MemoryStore(), tmp_path / "a.bak"
    await source.transact(put("bytes", bytes(range(256))), put("text/é ", b""))
    assert source.moving and target.moving
    await source.moving.bump(above=4)
    saved = await backup.backup(source, path)
    assert (saved.entries, saved.epoch) == (32, 5)
    assert os.stat(path).st_mode & 0o777 == 0o600
    copied, epoch = await backup.restore(target, path)
    assert copied.entries == 32 and epoch == 6 == await target.epoch()
    assert await values(target) == await values(source)
    await target.moving.bump(above=9)
    assert (await backup.restore(target, path))[1] == 11, "above the place's own too"


async def test_a_restore_refuses_what_is_there_and_force_writes_over_it(tmp_path: Path) -> None:
    source, target, path = await filled(MemoryStore()), MemoryStore(), tmp_path / "a.bak"
    await backup.backup(source, path)
    await target.transact(put("mine", b"1"))
    with pytest.raises(ConfigurationError, match="1 other entries"):
        await backup.restore(target, path)
    await backup.restore(target, path, force=True)
    assert await values(target) == await values(source)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda data: data[: len(data) // 2], "no JSON object|not as it was written"),
        (lambda data: data.replace(b'"k/003"', b'"k/009"'), "not as it was written"),
        (lambda data: data.replace(b'"atoll_backup": 1', b'"atoll_backup": 2'), "format 2"),
        (lambda data: b"", "no JSON object"),
        (lambda data: b"SQLite format 3\0", "no JSON object"),
        (lambda data: b"\n".join(line for line in data.split(b"\n") if b"k/003" not in line), "4"),
    ],
)
async def test_a_spoiled_backup_is_refused_and_nothing_is_written(
    spoil: object, sentence: str, tmp_path: Path
) -> None:
    assert callable(spoil)
    source, target, path = await filled(MemoryStore()), MemoryStore(), tmp_path / "a.bak"
    await backup.backup(source, path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(FormatRefused, match=sentence):
        await backup.restore(target, path)
    assert await values(target) == {} and await target.epoch() == 1


async def test_a_backup_does_not_write_over_a_file_and_leaves_none_half_written(tmp_path: Path) -> None:
    source, path = await filled(MemoryStore()), tmp_path / "a.bak"
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match="there already"):
        await backup.backup(source, path)
    assert path.read_text() == "mine" and [one.name for one in tmp_path.iterdir()] == ["a.bak"]
    with pytest.raises(FileNotFoundError):
        await backup.backup(source, tmp_path / "none" / "a.bak")


# Check.


async def test_check_finds_nothing_wrong_with_a_good_store(tmp_path: Path) -> None:
    async with SqliteStore(str(tmp_path / "a.db")) as store, Lock(store, "x"):
        checked = await backup.check(await filled(store))
    assert (checked.entries, checked.leased, checked.faults, checked.epoch) == (6, 1, (), 1)


async def test_check_finds_a_file_that_was_written_by_hand(tmp_path: Path) -> None:
    import apsw

    path = str(tmp_path / "a.db")
    async with SqliteStore(path) as store:
        await filled(store)
    connection = apsw.Connection(path)
    connection.execute("UPDATE atoll_entry SET revision = 99 WHERE key = 'k/001'")
    connection.execute("UPDATE atoll_entry SET lease = 'none' WHERE key = 'k/002'")
    connection.close()
    async with SqliteStore(path) as store:
        faults = " ".join((await backup.check(store)).faults)
    assert "'k/001' was created at 2 and written at 99, and the store is at 5" in faults
    assert "'k/002' stands under lease none" in faults


async def test_check_finds_a_store_that_lists_keys_twice_or_out_of_order() -> None:
    class Shuffled(MemoryStore):
        async def range(self, *words, **named):  # type: ignore[no-untyped-def, override]
            page = await super().range(*words, **named)
            return page._replace(entries=page.entries[::-1])

    faults = (await backup.check(await filled(Shuffled()))).faults
    assert any("not in bytewise order" in fault for fault in faults)
