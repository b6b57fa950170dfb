"""The disk under the store: full, read-only, failing. What was answered is there."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from disk import Disk, integrity
from processes import HEAD

from atoll import errors
from atoll.engines.sqlite import place
from atoll.engines.sqlite.limits import StoreOptions
from atoll.engines.sqlite.store import SqliteStore
from atoll.ports.store import put


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 5 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no right to mount a tmpfs here: run as root, or in a user namespace")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_says_so_and_harms_nothing(small: Path) -> None:
    store = SqliteStore(str(small / "x.db"))
    written = 0
    with pytest.raises(errors.DiskFull, match="unharmed"):
        for number in range(1000):
            await store.transact(put(f"k{number:04}", os.urandom(40_000)))
            written += 1
    assert 20 < written < 200
    with pytest.raises(errors.NotApplied):
        await store.transact(put("again", os.urandom(1_000_000)))
    assert len((await store.range("k")).entries) == written
    await store.close()
    assert integrity(small / "x.db") == "ok"


async def test_room_made_later_is_used_without_reopening(tmp_path: Path) -> None:
    disk = Disk()
    async with SqliteStore(str(tmp_path / "x.db"), options=StoreOptions(vfs=disk.name)) as store:
        await store.transact(put("a", b"1"))
        disk.full_after = 5000
        with pytest.raises(errors.DiskFull):
            await store.transact(put("b", b"x" * 50_000))
        disk.full_after = None
        await store.transact(put("c", b"3"))
        assert [e.key for e in (await store.range("")).entries] == ["a", "c"]
    assert integrity(tmp_path / "x.db") == "ok"


async def test_only_those_whom_a_full_disk_has_no_room_for_are_refused(tmp_path: Path) -> None:
    disk = Disk()
    async with SqliteStore(str(tmp_path / "x.db"), options=StoreOptions(vfs=disk.name)) as store:
        await store.transact(put("a", b"1"))
        disk.full_after = 200_000
        calls = [store.transact(put(f"k{n}", b"x" * (200_000 if n == 7 else 100))) for n in range(10)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        kept = {f"k{n}" for n, answer in enumerate(answers) if not isinstance(answer, BaseException)}
        assert all(isinstance(a, errors.DiskFull) for a in answers if isinstance(a, BaseException))
        assert isinstance(answers[7], errors.DiskFull)
        assert {e.key for e in (await store.range("k")).entries} == kept
        disk.full_after = None


async def test_a_failed_fsync_is_unknown_and_closes_the_file(tmp_path: Path) -> None:
    disk = Disk()
    store = SqliteStore(str(tmp_path / "x.db"), options=StoreOptions(vfs=disk.name))
    for number in range(10):
        await store.transact(put(f"before{number}", b"1"))
    disk.fail_sync = True
    with pytest.raises(errors.OutcomeUnknown, match="may stand"):
        await store.transact(put("unknown", b"2"))
    with pytest.raises(errors.NotSent, match="open the handle again"):
        await store.transact(put("after", b"3"))
    with pytest.raises(errors.NotSent, match="open the handle again"):
        await store.get("before0")
    disk.fail_sync = False
    with pytest.raises(errors.NotSent):
        await store.transact(put("after", b"3"))
    await store.close()
    await store.transact(put("reopened", b"4"))
    found = {e.key for e in (await store.range("")).entries}
    assert found - {"unknown"} == {f"before{n}" for n in range(10)} | {"reopened"}
    await store.close()
    assert integrity(tmp_path / "x.db") == "ok"


async def test_a_batch_with_a_failed_fsync_is_unknown_to_all_of_it(tmp_path: Path) -> None:
    disk = Disk()
    store = SqliteStore(str(tmp_path / "x.db"), options=StoreOptions(vfs=disk.name))
    await store.open()
    disk.fail_sync = True
    calls = [store.transact(put(f"k{n}", b"x"), request_id=f"r{n}") for n in range(20)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    unknown = [a for a in answers if isinstance(a, errors.OutcomeUnknown)]
    assert unknown and {type(a) for a in answers} <= {errors.OutcomeUnknown, errors.NotSent}
    assert {a.id for a in unknown} <= {f"r{n}" for n in range(20)}
    await store.close()


def test_an_fsync_that_the_kernel_fails_is_unknown(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: apt-get install strace")
    code = (
        HEAD
        + """
async def main():
    store = SqliteStore(path)
    acknowledged = 0
    try:
        for n in range(100):
            await store.transact(put(f"k{n}", b"x"))
            acknowledged = n + 1
    except Exception as error:
        print(acknowledged, type(error).__name__)
    os._exit(0)
asyncio.run(main())
"""
    )
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]
    command += ["-e", "inject=fsync,fdatasync:error=EIO:when=20+"]
    path = str(tmp_path / "x.db")
    answer = subprocess.run([*command, sys.executable, "-c", code, path], capture_output=True, text=True)
    if "ptrace" in answer.stderr or "Operation not permitted" in answer.stderr:
        pytest.skip("no right to trace a process here")
    acknowledged, name = answer.stdout.split()
    assert name == "OutcomeUnknown" and 5 < int(acknowledged) < 30
    assert integrity(path) == "ok"

    async def found() -> set[str]:
        async with SqliteStore(path) as store:
            return {e.key for e in (await store.range("k")).entries}

    assert {f"k{n}" for n in range(int(acknowledged))} <= asyncio.run(found())


async def test_a_folder_that_may_not_be_written_is_named(small: Path) -> None:
    async with SqliteStore(str(small / "x.db")) as store:
        await store.transact(put("a", b"1"))
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    for name in ("x.db", "new.db"):
        store = SqliteStore(str(small / name))
        with pytest.raises(errors.ReadOnly, match="may be read but not written"):
            await store.open()
        await store.close()
    subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True)
    async with SqliteStore(str(small / "x.db")) as store:
        assert (await store.get("a")).entry


async def test_a_missing_folder_is_named_with_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="mkdir -p"):
        await SqliteStore(str(tmp_path / "no" / "x.db")).open()
    with pytest.raises(errors.ConfigurationError, match="expected a file"):
        await SqliteStore(str(tmp_path)).open()
    with pytest.raises(errors.ConfigurationError, match="memory://"):
        await SqliteStore(":memory:").open()


async def test_garbage_is_refused_and_left_alone(tmp_path: Path) -> None:
    garbage = b"this is a diary, not a database. " * 200
    (tmp_path / "x.db").write_bytes(garbage)
    store = SqliteStore(str(tmp_path / "x.db"))
    with pytest.raises(errors.FormatRefused, match="no SQLite database"):
        await store.open()
    await store.close()
    assert (tmp_path / "x.db").read_bytes() == garbage


async def test_tables_of_somebody_else_in_the_file_are_left_alone(tmp_path: Path) -> None:
    theirs = apsw.Connection(str(tmp_path / "x.db"))
    theirs.execute("CREATE TABLE flight (id); INSERT INTO flight VALUES (1)")
    theirs.close()
    async with SqliteStore(str(tmp_path / "x.db")) as store:
        await store.transact(put("a", b"1"))
    again = apsw.Connection(str(tmp_path / "x.db"))
    assert again.execute("SELECT id FROM flight").get == 1
    names = [row[0] for row in again.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    assert {name for name in names if not name.startswith("atoll_")} == {"flight"}
    again.close()


async def test_a_file_deleted_or_replaced_while_open_takes_no_more_writes(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "x.db"))
    await store.transact(put("a", b"1"))
    for path in tmp_path.glob("x.db*"):
        path.rename(tmp_path / f"moved-{path.name}")
    with pytest.raises(errors.NotSent, match="not there any more"):
        await store.transact(put("b", b"2"))
    with pytest.raises(errors.NotSent, match="not there any more"):
        await store.get("a")
    await store.close()
    async with store:
        assert (await store.get("a")).entry is None
        (tmp_path / "x.db").rename(tmp_path / "again.db")
        (tmp_path / "x.db").write_bytes(b"")
        with pytest.raises(errors.NotSent, match="replaced by another"):
            await store.transact(put("c", b"3"))


def test_a_network_file_system_is_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/vda rw\n"
        "2 1 0:50 / /srv/team rw shared:1 - nfs4 server:/team rw\n"
        "3 1 0:51 / /srv/team/local rw - tmpfs tmpfs rw\n"
        "4 1 0:52 / /Users/my\\040files rw - fuse.osxfs osxfs rw\n"
    )
    kinds = {
        folder: place.file_system(folder, str(mounts))
        for folder in (
            "/srv",
            "/srv/team",
            "/srv/team/a",
            "/srv/teams",
            "/srv/team/local/x",
            "/Users/my files",
        )
    }
    assert list(kinds.values()) == ["ext4", "nfs4", "nfs4", "ext4", "tmpfs", "fuse.osxfs"]


async def test_a_folder_on_a_network_is_opened_only_when_said_to_be_one_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "file_system", lambda folder: "nfs4")
    store = SqliteStore(str(tmp_path / "x.db"))
    with pytest.raises(errors.ConfigurationError, match="shared_kernel=true"):
        await store.open()
    await store.close()
    async with SqliteStore(str(tmp_path / "x.db"), options=StoreOptions(shared_kernel=True)) as store:
        await store.transact(put("a", b"1"))


def test_an_old_sqlite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(errors.ConfigurationError, match=r"3\.51\.3"):
        place.check_library()
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.10")
    place.check_library()
