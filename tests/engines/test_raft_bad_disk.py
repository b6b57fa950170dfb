"""4.4: a disk that is full, fails, or gives back other bytes: the member stops, says why, and never lies."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll import clock
from atoll.algorithms.raft.events import StoreChunk, Write
from atoll.algorithms.raft.messages import Entry, Membership
from atoll.engines.raft import checkpoints
from atoll.engines.raft.folder import DataFolder, FolderOptions, Identity
from atoll.engines.raft.wal import LogOptions
from atoll.errors import AtollError, ConfigurationError, DiskFull, FormatRefused, NotSent, OutcomeUnknown
from engines.disk import Disk
from engines.raft_log import all_of, entry, newest_segment, opened, put, refused, wrote

TESTS = str(Path(__file__).resolve().parents[1])


class Force:
    """A forced write that fails once it is told to; like the kernel, it says yes when asked again."""

    def __init__(self) -> None:
        self.fails = 0
        self.asked = 0

    def __call__(self, descriptor: int) -> None:
        self.asked += 1
        if self.fails:
            self.fails -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fdatasync(descriptor)


def test_a_log_whose_forced_write_failed_is_dead_for_ever(tmp_path: Path) -> None:
    force = Force()
    log = opened(tmp_path, LogOptions(force=force))
    wrote(log, entry(1))
    log.append([Write(1, 1, "", (entry(2),))])
    force.fails, asked = 1, force.asked
    with pytest.raises(OutcomeUnknown, match=r"could not be forced.*Input/output"):
        log.sync()
    assert force.asked == asked + 1
    assert log.last == 1, "it never says that the entry is durable"
    for again in (lambda: log.append([Write(2, 1, "", (entry(2),))]), log.sync):
        with pytest.raises(NotSent, match="closed for good"):
            again()
    assert force.asked == asked + 1, "the disk is not asked a second time"
    assert log.entries(1, 2, 100) == [entry(1)], "reading goes on"
    log.close()
    log = opened(tmp_path)
    assert all_of(log)[:1] == [entry(1)]
    log.close()


def test_what_a_killed_process_wrote_is_forced_before_it_is_believed(tmp_path: Path) -> None:
    """It may be in the kernel's memory alone, and a power cut would take it after it was shown."""
    log = opened(tmp_path)
    wrote(log, entry(1))
    log.close()
    force = Force()
    opened(tmp_path, LogOptions(force=force)).close()
    assert force.asked == 2, "the newest segment, and the names of all"
    force.fails = 1
    with pytest.raises(OSError):
        opened(tmp_path, LogOptions(force=force))


def test_what_a_killed_process_named_is_forced_before_it_is_believed(tmp_path: Path) -> None:
    """A power cut would take the name of a segment, or of a snapshot for which the log was dropped."""
    folder = DataFolder(tmp_path)
    folder.establish(Identity("c", "a", Membership(("a",))))
    folder.load()
    entries = tuple(put(n, "k", b"v") for n in range(1, 4))
    folder.log.append([Write(1, 1, "", entries)])
    folder.log.sync()
    folder.apply(entries)
    folder.make_snapshot()
    folder.close()
    forced: set[str] = set()

    def force(descriptor: int) -> None:
        forced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        os.fdatasync(descriptor)

    again = DataFolder(tmp_path, FolderOptions(log=LogOptions(force=force)))
    again.load()
    again.close()
    assert {str(tmp_path / "log"), str(tmp_path / "snapshots")} <= forced


def test_a_member_whose_disk_fails_when_it_is_opened_says_so(tmp_path: Path) -> None:
    force = Force()
    options = FolderOptions(log=LogOptions(force=force))
    folder = DataFolder(tmp_path, options)
    folder.establish(Identity("c", "a"))
    force.fails = 1
    with pytest.raises(ConfigurationError, match="Look at the disk"):
        folder.load()
    folder.close()


def test_a_log_that_would_ask_again_is_caught(tmp_path: Path) -> None:
    """Negative control: with the death taken away, a second sync shows an entry that nobody forced."""
    force = Force()
    log = opened(tmp_path, LogOptions(force=force))
    log.append([Write(1, 1, "", (entry(1),))])
    force.fails = 1
    with pytest.raises(OutcomeUnknown):
        log.sync()
    log.failed = None
    log.sync()
    assert log.last == 1
    log.close()


def test_a_new_segment_that_cannot_be_forced_ends_the_log(tmp_path: Path) -> None:
    force = Force()
    log = opened(tmp_path, LogOptions(segment_bytes=8192, force=force))
    wrote(log, *(entry(n) for n in range(1, 30)))
    log.append([Write(1, 1, "", (entry(30),))])
    before = force.asked
    while force.asked == before:  # until the next append needs a new segment
        last = log._written
        if log._index.spans[-1].end + 200 > 8192:
            force.fails = 1
        try:
            log.append([Write(1, 1, "", (entry(last + 1),))])
        except OutcomeUnknown:
            break
    else:
        pytest.fail("no segment was begun")
    assert log.failed is not None
    log.close()
    log = opened(tmp_path)
    assert log.last >= 29
    log.close()


FULL = """
import resource, signal, sys
from pathlib import Path
from atoll.errors import DiskFull, NotSent
from engines.raft_log import all_of, entry, opened, wrote
from atoll.engines.raft.wal import LogOptions
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
log = opened(Path(sys.argv[1]), LogOptions(segment_bytes=16_384))
number = 0
try:
    while True:
        wrote(log, entry(number + 1, size=9_000 if number == 40 else 200))
        number += 1
        if number == 40:
            wrote(log, entry(41, size=30_000))
except DiskFull as error:
    print("full", number, error)
try:
    wrote(log, entry(number + 1))
except NotSent as error:
    print("dead", error)
"""


def test_a_full_disk_stops_the_member_with_a_sentence_and_harms_nothing(tmp_path: Path) -> None:
    """RLIMIT_FSIZE is the disk's end: no file may grow beyond it."""
    answer = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": TESTS},
    )
    lines = answer.stdout.splitlines()
    assert len(lines) == 2, answer.stdout + answer.stderr
    word, number, *sentence = lines[0].split()
    assert (word, int(number)) == ("full", 40)
    assert "Free space there" in " ".join(sentence)
    assert lines[1].startswith("dead the log in")
    log = opened(tmp_path)
    assert all_of(log) == [entry(n, size=200) for n in range(1, 41)]
    wrote(log, entry(41))
    log.close()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 20_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for one MiB, where we may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if done.returncode != 0:
        pytest.skip("a small tmpfs cannot be mounted here; it needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def test_a_member_on_a_full_disk_stops_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    options = FolderOptions(log=LogOptions(segment_bytes=64 << 10))
    folder = DataFolder(small_disk / "a", options)
    folder.establish(Identity("c", "a", Membership(("a",))))
    folder.load()
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(450 << 10))
    written = 0

    def one(number: int) -> Entry:
        return put(number, f"k{number}", b"v" * 900)

    with pytest.raises(DiskFull, match=r"Free space|no room"):
        while True:
            folder.log.append([Write(1, 1, "a", (one(written + 1),))])
            folder.log.sync()
            written += 1
            if written % 20 == 0:
                folder.apply(folder.log.entries(folder.applied + 1, written + 1, 1 << 20))
    assert written > 20
    folder.close()
    ballast.unlink()
    folder = DataFolder(small_disk / "a", options)
    folder.load()
    assert folder.log.last >= written
    folder.apply(folder.log.entries(folder.applied + 1, folder.log.last + 1, 1 << 20))
    assert folder.state.get(f"k{written}").entry is not None
    folder.close()


def _member(path: Path, disk: Disk) -> DataFolder:
    folder = DataFolder(path, FolderOptions(vfs=disk.name))
    if folder.identity is None:
        folder.establish(Identity("c", "a", Membership(("a",))))
    folder.load()
    return folder


def test_a_state_whose_disk_is_full_is_dead_and_none_of_the_batch_is_in_it(tmp_path: Path) -> None:
    disk = Disk()
    folder = _member(tmp_path, disk)
    entries = tuple(put(n, f"k{n}", b"v" * 100) for n in range(1, 31))
    folder.log.append([Write(1, 1, "a", entries)])
    folder.log.sync()
    folder.apply(entries[:10])
    disk.full_after = 2000
    with pytest.raises(DiskFull):
        folder.apply(entries[10:])
    assert folder.applied == 10
    with pytest.raises(NotSent, match="closed after an error of the disk"):
        folder.apply(entries[10:])
    folder.close()
    disk.full_after = None
    folder = _member(tmp_path, disk)
    assert folder.applied == 10
    folder.apply(entries[10:])
    assert folder.state.revision() == 30
    folder.close()


def test_a_state_whose_pages_were_spoilt_says_how_it_is_made_anew(tmp_path: Path) -> None:
    disk = Disk()
    folder = _member(tmp_path, disk)
    entries = tuple(put(n, f"k{n:05}", b"v" * 300) for n in range(1, 401))
    folder.log.append([Write(1, 1, "", entries)])
    folder.log.sync()
    folder.apply(entries)
    whole = folder.state.hash()
    connection = folder.state._connect()
    checkpoints.copy(connection)
    connection.close()
    folder.close()
    (path,) = (tmp_path / "state").glob("*.db")
    Path(f"{path}-wal").unlink()
    data = bytearray(path.read_bytes())
    for page in range(0, len(data), 4096):
        if b"k00200" in data[page : page + 4096]:
            data[page : page + 4096] = b"spoilt..." * 455 + b"."
    path.write_bytes(data)
    folder = _member(tmp_path, disk)
    with pytest.raises(FormatRefused, match="made anew from snapshot and log"):
        folder.apply([put(401, "k00200", b"")])
    folder.close()
    shutil.rmtree(tmp_path / "state")
    folder = _member(tmp_path, disk)
    folder.apply(folder.log.entries(folder.applied + 1, 401, 1 << 20))
    assert folder.state.hash() == whole
    folder.close()


def _filled(folder: DataFolder, first: int, count: int) -> None:
    for number in range(first, first + count):
        folder.apply([put(number, f"k{number}", b"v" * 300)])


def test_pages_that_cannot_be_forced_into_the_file_end_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed force is not tried again: the kernel may have thrown the pages away, and would say yes."""
    monkeypatch.setattr(checkpoints, "PAGES", 50)
    disk = Disk()
    folder = _member(tmp_path, disk)
    disk.fail_sync = True
    until = clock.loop_now() + 30
    with pytest.raises(NotSent, match="could not be copied into the file"):
        while clock.loop_now() < until:
            _filled(folder, folder.applied + 1, 1)
    applied = folder.applied
    folder.log.append([Write(1, 1, "", tuple(put(n, f"k{n}", b"") for n in range(1, applied + 1)))])
    folder.log.sync()
    folder.close()
    disk.fail_sync = False
    folder = _member(tmp_path, disk)
    assert folder.applied == applied
    _filled(folder, applied + 1, 10)
    assert folder.state.revision() == applied + 10
    folder.close()


def test_pages_are_copied_while_entries_are_applied_and_the_log_of_pages_stays_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "PAGES", 50)
    monkeypatch.setattr(checkpoints, "PAGES_MAX", 200)
    disk = Disk()
    folder = _member(tmp_path, disk)
    before = disk.syncs
    _filled(folder, 1, 1500)
    assert disk.syncs > before
    (pages,) = (tmp_path / "state").glob("*.db-wal")
    assert pages.stat().st_size < 600 * 4200, "1,500 commits would take more than 4,500 pages"
    folder.close()


def test_a_snapshot_that_finds_no_room_leaves_the_member_at_work(tmp_path: Path) -> None:
    disk = Disk()
    folder = _member(tmp_path, disk)
    folder.apply([put(n, f"k{n}", b"v" * 500) for n in range(1, 101)])
    disk.full_after = 0
    with pytest.raises(AtollError):
        folder.make_snapshot()
    disk.full_after = None
    assert folder.snapshots.newest() is None
    assert not list((tmp_path / "snapshots").iterdir())
    folder.apply([put(101, "k", b"")])
    assert folder.make_snapshot().index == 101
    folder.close()


def test_a_snapshot_that_cannot_be_forced_is_not_shown(tmp_path: Path) -> None:
    force = Force()
    options = FolderOptions(log=LogOptions(force=force))
    folder = DataFolder(tmp_path / "a", options)
    folder.establish(Identity("c", "a", Membership(("a",))))
    folder.load()
    folder.apply([put(n, f"k{n}", b"v") for n in range(1, 11)])
    snapshot = folder.make_snapshot()
    body, _ = folder.read_chunk(snapshot, 0, 1 << 30)
    other = DataFolder(tmp_path / "b", options)
    other.establish(Identity("c", "b"))
    other.load()
    force.fails = 1
    with pytest.raises(OutcomeUnknown):
        other.store_chunk(StoreChunk(snapshot, 0, body, True))
    assert other.snapshots.newest() is None
    folder.apply([put(11, "k", b"")])
    force.fails = 1
    with pytest.raises(OutcomeUnknown):
        folder.make_snapshot()
    assert folder.snapshots.newest() == snapshot
    folder.close()
    other.close()


def test_an_entry_that_the_disk_gives_back_changed_is_not_handed_on(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(1, 40):
        wrote(log, entry(number, size=200))
    path = sorted(tmp_path.glob("*.log"))[0]
    data = bytearray(path.read_bytes())
    data[4096 + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(OutcomeUnknown, match=rf"{path.name} at \d+: it was written and has changed"):
        log.entries(1, 5, 10_000)
    assert log.failed is not None
    log.close()
    with pytest.raises(FormatRefused) as caught:
        opened(tmp_path)
    refused(caught.value, path.name, "was durable up to")
    assert newest_segment(tmp_path) != path
