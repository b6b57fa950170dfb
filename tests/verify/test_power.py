"""3.4: the disk that forgets what was not forced: it keeps what it must, and loses the rest."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from atoll.verify.power import mount
from atoll.verify.power.disk import Disk
from atoll.verify.power.mount import PowerDisk

needs_disk = pytest.mark.skipif(bool(mount.missing()), reason=mount.missing() or "-")

COMMIT_50 = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute(f"PRAGMA journal_mode={sys.argv[2]}")
db.execute(f"PRAGMA synchronous={sys.argv[3]}")
db.execute("CREATE TABLE t (x)")
db.commit()
for n in range(50):
    db.execute("INSERT INTO t VALUES (?)", (n,))
    db.commit()
os.kill(os.getpid(), 9)
"""
COUNT = (
    "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM t').fetchone())"
)


def write(path: Path, data: bytes, *, force: bool, flags: int = os.O_CREAT) -> None:
    handle = os.open(path, os.O_RDWR | os.O_APPEND | flags, 0o644)
    try:
        os.write(handle, data)
        if force:
            os.fsync(handle)
    finally:
        os.close(handle)


async def off_loop(work: Callable[[], object]) -> object:
    return await asyncio.to_thread(work)


@needs_disk
async def test_what_was_forced_is_there_and_nothing_else(tmp_path: Path) -> None:
    async with PowerDisk(tmp_path) as disk:

        def before() -> None:
            write(disk.path / "a", b"forced", force=True)
            write(disk.path / "a", b" and not", force=False)
            write(disk.path / "b", b"never forced", force=False)
            os.mkdir(disk.path / "folder")
            assert (disk.path / "a").read_bytes() == b"forced and not"

        await off_loop(before)
        counts = await disk.cut()
        assert counts.undone_bytes == len(b" and not") + len(b"never forced")
        assert await off_loop(lambda: os.listdir(disk.path)) == ["a"]
        assert await off_loop((disk.path / "a").read_bytes) == b"forced"
    assert not os.path.ismount(tmp_path / "disk")


@needs_disk
async def test_a_name_stays_when_something_was_forced_after_it(tmp_path: Path) -> None:
    async with PowerDisk(tmp_path) as disk:

        def before() -> None:
            write(disk.path / "new", b"1", force=True)
            os.rename(disk.path / "new", disk.path / "named")
            write(disk.path / "other", b"2", force=True)
            os.rename(disk.path / "named", disk.path / "renamed again")
            os.unlink(disk.path / "other")

        await off_loop(before)
        await disk.cut()
        assert await off_loop(lambda: sorted(os.listdir(disk.path))) == ["named", "other"]


@needs_disk
@pytest.mark.parametrize(("mode", "synchronous", "kept"), [("WAL", "FULL", "50"), ("WAL", "NORMAL", None)])
async def test_sqlite_keeps_on_it_what_its_pages_say(
    tmp_path: Path, mode: str, synchronous: str, kept: str | None
) -> None:
    async with PowerDisk(tmp_path) as disk:
        db = str(disk.path / "x.db")
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", COMMIT_50, db, mode, synchronous)
        await child.wait()
        counts = await disk.cut()
        assert counts.undone_bytes > 0
        reader = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            COUNT,
            db,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        said, _ = await reader.communicate()
        assert (said.decode().strip() or None) == kept, "NORMAL in a WAL may lose what was answered"


@needs_disk
async def test_a_disk_that_hangs_holds_the_next_fsync_so_every_cut_bites(tmp_path: Path) -> None:
    async with PowerDisk(tmp_path) as disk:
        assert not await disk.hang(0.1), "nobody writes"
        writer = asyncio.create_task(
            asyncio.to_thread(write, disk.path / "a", b"asked to be forced", force=True)
        )
        assert await disk.hang(20)
        assert not writer.done(), "it was told that its bytes are safe"
        counts = await disk.cut(seed=1)
        assert counts.undone_bytes == len(b"asked to be forced")
        with pytest.raises(OSError, match=r"\[Errno (103|107|5)\]"):
            await writer
        await off_loop(lambda: write(disk.path / "a", b"x", force=True))
        assert await off_loop((disk.path / "a").read_bytes) == b"x", "after the cut it answers again"


def test_some_of_what_was_not_forced_is_lost_whatever_the_dice_say(tmp_path: Path) -> None:
    for seed in range(40):
        disk = Disk(tmp_path / str(seed))
        path = tmp_path / str(seed) / "content" / "a"
        path.write_bytes(b"")
        handle, node = os.open(path, os.O_RDWR), disk.node(str(path))
        for place in range(seed % 3 + 1):
            disk.write(node, handle, b"1234", place * 4)
        os.close(handle)
        disk.cut(random.Random(seed))
        assert disk.counts.undone_bytes > 0


@needs_disk
async def test_a_disk_whose_owner_is_killed_is_unmounted(tmp_path: Path) -> None:
    code = (
        "import asyncio, os, sys\nfrom pathlib import Path\nfrom atoll.verify.power.mount import PowerDisk\n"
        "async def go():\n"
        "    async with PowerDisk(Path(sys.argv[1])) as disk:\n"
        "        os.kill(os.getpid(), 9)\n"
        "asyncio.run(go())\n"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(tmp_path))
    assert await child.wait() == -9
    async with asyncio.timeout(10):
        while os.path.ismount(tmp_path / "disk"):
            await asyncio.sleep(0.02)


def test_the_undo_log_goes_back_write_by_write_with_dice(tmp_path: Path) -> None:
    found = set()
    for seed in range(40):
        folder = tmp_path / str(seed)
        folder.mkdir()
        disk = Disk(folder)
        path = disk.below(1, "x")
        Path(path).write_bytes(b"....")
        node = disk.made(path)
        disk.force(node)
        handle = os.open(path, os.O_RDWR)
        for n in range(4):
            disk.write(node, handle, str(n).encode(), n)
        disk.resize(node, 2)
        os.close(handle)
        disk.cut(random.Random(seed))
        found.add(Path(path).read_bytes())
    assert found == {b"....", b"0...", b"01..", b"012.", b"0123"}, "some of it is always lost"
