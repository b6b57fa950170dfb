"""A6: the virtual disk: what a power cut may take, shown on small files and on SQLite, right and wrong."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from functools import partial

import apsw
import pytest

from atoll.verify.virtual_disk import SECTOR, PowerLoss, VirtualDisk
from atoll.verify.virtual_sqlite import SqliteVirtualVfs

LOSSES = [*PowerLoss]


def after(disk: VirtualDisk, how: PowerLoss, seed: int = 0) -> VirtualDisk:
    return disk.power_loss(how, random.Random(seed))


def test_what_was_not_forced_may_be_lost_and_what_was_forced_may_not() -> None:
    disk = VirtualDisk()
    file = disk.open("log")
    file.append(b"one")
    file.sync()
    disk.sync_folder()
    file.append(b"two")
    assert file.read() == b"onetwo"
    assert after(disk, PowerLoss.DROPPED).open("log").read() == b"one"
    assert after(disk, PowerLoss.KEPT).open("log").read() == b"onetwo"
    assert file.read() == b"onetwo"


def test_a_forced_file_with_an_unforced_name_cannot_be_found() -> None:
    disk = VirtualDisk()
    file = disk.open("data/log")
    file.append(b"one")
    file.sync()
    assert not after(disk, PowerLoss.LOST_ENTRIES).exists("data/log")
    disk.sync_folder("elsewhere")
    assert not after(disk, PowerLoss.LOST_ENTRIES).exists("data/log")
    disk.sync_folder("data")
    assert after(disk, PowerLoss.LOST_ENTRIES).open("data/log").read() == b"one"


def test_a_rename_is_whole_or_not_there() -> None:
    seen = set()
    for seed in range(40):
        disk = VirtualDisk()
        for name, text in (("now", b"old"), ("new", b"new")):
            disk.open(name).append(text)
            disk.open(name).sync()
        disk.sync_folder()
        disk.rename("new", "now")
        found = after(disk, PowerLoss.REORDERED, seed)
        seen.add((found.open("now").read(), found.exists("new")))
    assert seen == {(b"old", True), (b"new", False)}


def test_writes_survive_in_any_order_and_the_holes_are_zeros() -> None:
    seen = set()
    for seed in range(60):
        disk = VirtualDisk()
        file = disk.open("log")
        disk.sync_folder()
        file.append(b"a")
        file.append(b"b")
        seen.add(after(disk, PowerLoss.REORDERED, seed).open("log").read())
    assert seen == {b"", b"a", b"ab", b"\0b"}


def test_the_last_write_is_torn_at_a_sector() -> None:
    seen = set()
    for seed in range(60):
        disk = VirtualDisk()
        file = disk.open("log")
        disk.sync_folder()
        file.append(b"x" * 3 * SECTOR)
        seen.add(len(after(disk, PowerLoss.TORN, seed).open("log").read()))
    assert seen == {0, SECTOR, 2 * SECTOR, 3 * SECTOR}


def test_after_a_failed_fsync_the_next_one_succeeds_and_saves_nothing_of_before() -> None:
    disk = VirtualDisk()
    file = disk.open("log")
    disk.sync_folder()
    disk.fail_sync_at = disk.syncs + 1
    file.append(b"one")
    with pytest.raises(OSError) as raised:
        file.sync()
    assert raised.value.errno == errno.EIO
    file.append(b"two")
    file.sync()
    assert file.read() == b"onetwo"
    assert after(disk, PowerLoss.DROPPED).open("log").read() == b"\0\0\0two"


def test_a_full_disk_refuses_the_write_and_keeps_the_rest() -> None:
    disk = VirtualDisk(bytes_max=5)
    disk.open("a").append(b"123")
    with pytest.raises(OSError) as raised:
        disk.open("b").append(b"456")
    assert raised.value.errno == errno.ENOSPC
    disk.open("a").write(0, b"321")
    assert disk.open("a").read() == b"321" and disk.open("b").size == 0


def test_names_and_missing_files_are_as_on_a_real_disk() -> None:
    disk = VirtualDisk()
    disk.open("d/a"), disk.open("d/b"), disk.open("c")
    assert disk.listdir("d") == ["d/a", "d/b"] and disk.listdir() == ["c"]
    disk.unlink("d/a")
    for wrong in (lambda: disk.unlink("d/a"), lambda: disk.rename("d/a", "x")):
        with pytest.raises(FileNotFoundError):
            wrong()
    with pytest.raises(FileNotFoundError):
        disk.open("d/a", create=False)
    file = disk.open("c")
    file.write(3, b"x")
    file.truncate(2)
    assert file.read() == b"\0\0"


class Snapshots:
    """A value kept by the rename trick: write aside, force, rename, force the folder; `forget` skips one."""

    def __init__(self, disk: VirtualDisk, forget: str = "") -> None:
        self._disk, self._forget = disk, forget

    def save(self, value: bytes) -> None:
        aside = self._disk.open("value.new")
        aside.truncate(0)
        for at in range(0, len(value), SECTOR):
            aside.write(at, value[at : at + SECTOR])
        if self._forget != "sync":
            aside.sync()
        if self._forget == "rename":
            self._disk.open("value").write(0, value)
            self._disk.open("value").sync()
        else:
            self._disk.rename("value.new", "value")
        if self._forget != "folder":
            self._disk.sync_folder()

    @staticmethod
    def load(disk: VirtualDisk) -> bytes:
        return disk.open("value", create=False).read() if disk.exists("value") else b""


def broken_promises(forget: str) -> list[str]:
    """Save five values, cut the power at each change; the value found is the acknowledged or the next."""
    disk, acknowledged, saving = VirtualDisk(), b"", b""
    found = list[str]()

    def cut() -> None:
        for how in LOSSES:
            for seed in range(5):
                value = Snapshots.load(after(disk, how, seed))
                if value not in (acknowledged, saving):
                    found.append(f"{how.value}: {len(value)} bytes, expected {len(acknowledged)}")

    disk.on_change = cut
    keeper = Snapshots(disk, forget)
    for n in range(1, 6):
        saving = bytes([n]) * (n * SECTOR)
        keeper.save(saving)
        acknowledged = saving
        cut()
    return found


def test_the_rename_trick_survives_a_power_cut_at_every_step() -> None:
    assert broken_promises("") == []


@pytest.mark.parametrize("forget", ["sync", "folder", "rename"])
def test_the_rename_trick_without_one_of_its_steps_is_caught(forget: str) -> None:
    assert broken_promises(forget)


def lost_by_sqlite(journal: str, synchronous: str, locking: str) -> list[str]:
    """Insert rows with the power cut at every change of the disk; what was acknowledged and is not there."""
    disk, acknowledged = VirtualDisk(), 0
    problems, dice = list[str](), random.Random(f"{journal} {synchronous} {locking}")

    def check() -> None:
        how = dice.choice(LOSSES)
        vfs = SqliteVirtualVfs(disk.power_loss(how, dice))
        database = vfs.connect("a.db")
        try:
            database.pragma("locking_mode", locking)
            if database.pragma("integrity_check") != "ok":
                problems.append(f"{how.value}: damaged")
            there = [row[0] for row in database.execute("select x from t order by x")]
            if there not in ([*range(acknowledged)], [*range(acknowledged + 1)]):
                problems.append(f"{how.value}: {len(there)} rows of {acknowledged}")
        except apsw.Error as error:
            problems.append(f"{how.value}: {error}")
        finally:
            database.close()

    database = SqliteVirtualVfs(disk).connect("a.db")
    database.pragma("locking_mode", locking)
    database.pragma("journal_mode", journal)
    database.pragma("synchronous", synchronous)
    database.execute("create table t(x, y)")
    disk.on_change = check
    for n in range(12):
        database.execute("insert into t values(?, ?)", (n, "y" * 1500))
        acknowledged += 1
        check()
    disk.on_change = None
    database.close()
    return problems


@pytest.mark.parametrize(
    ("journal", "synchronous", "locking"),
    [
        ("wal", "full", "exclusive"),
        ("truncate", "full", "exclusive"),
        ("truncate", "full", "normal"),
        ("persist", "full", "normal"),
        ("delete", "extra", "normal"),
    ],
)
def test_sqlite_keeps_every_acknowledged_row_whenever_the_power_is_cut(
    journal: str, synchronous: str, locking: str
) -> None:
    assert lost_by_sqlite(journal, synchronous, locking) == []


@pytest.mark.parametrize(
    ("journal", "synchronous", "locking"),
    [
        ("wal", "normal", "exclusive"),
        ("wal", "off", "exclusive"),
        ("delete", "off", "normal"),
        ("truncate", "normal", "normal"),
        # SQLite forces the folder after it removes a journal with EXTRA only: with FULL it may come back.
        ("delete", "full", "normal"),
    ],
)
def test_sqlite_with_less_is_caught_losing_rows(journal: str, synchronous: str, locking: str) -> None:
    assert lost_by_sqlite(journal, synchronous, locking)


def set_on(name: str, value: int, disk: VirtualDisk) -> None:
    setattr(disk, name, value)


def lost_with_a_failing_disk(fail: Callable[[VirtualDisk], None]) -> int:
    disk = VirtualDisk()
    fail(disk)
    database = SqliteVirtualVfs(disk).connect("a.db")
    database.pragma("synchronous", "extra")
    database.execute("create table t(x, y)")
    rows = 0
    for n in range(60):
        try:
            database.execute("insert into t values(?, ?)", (n, "y" * 700))
            rows += 1
        except apsw.Error:
            break
    else:
        raise AssertionError("the disk was to fail, and did not")
    found = SqliteVirtualVfs(disk.power_loss(PowerLoss.DROPPED, random.Random(0))).connect("a.db")
    there = len(list(found.execute("select x from t")))
    found.close()
    database.close()
    return rows - there


def test_sqlite_says_so_when_the_disk_is_full_and_keeps_what_it_acknowledged() -> None:
    for size in range(13_000, 20_000, 500):
        assert lost_with_a_failing_disk(partial(set_on, "bytes_max", size)) <= 0


def test_sqlite_says_so_when_an_fsync_fails_and_keeps_what_it_acknowledged() -> None:
    for at in range(8, 60):
        assert lost_with_a_failing_disk(partial(set_on, "fail_sync_at", at)) <= 0
