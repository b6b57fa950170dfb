"""4.4: a snapshot is made while entries are applied; its pieces outlive a restart, and are checked first."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from atoll.algorithms.raft.events import StoreChunk, Write
from atoll.algorithms.raft.messages import Entry, Index, Kind, Membership, Snapshot
from atoll.engines.raft import snapshots
from atoll.engines.raft.folder import DataFolder, FolderOptions, Identity
from atoll.errors import ConfigurationError, FormatRefused, NotReady
from engines.raft_log import SMALL, put, refused

BOOTSTRAP = Membership(("a", "b"), places={"a": "h:1", "b": "h:2"})
PIECE = 4000
OPTIONS = FolderOptions(log=SMALL)


def member(path: Path, name: str = "a", bootstrap: Membership = BOOTSTRAP) -> DataFolder:
    """A member's folder, made or opened again."""
    folder = DataFolder(path, OPTIONS)
    if folder.identity is None:
        folder.establish(Identity("cluster-1", name, bootstrap))
    folder.load()
    return folder


def grow(folder: DataFolder, count: int) -> None:
    """Entries forced and applied."""
    for _ in range(0, count, 10):
        first = folder.log.last + 1
        entries = tuple(put(n, f"k{n % 50}", b"%d" % n * 30, client=4) for n in range(first, first + 10))
        folder.log.append([Write(1, 1, "a", entries)])
        folder.log.sync()
        folder.apply(entries)


def pieces(folder: DataFolder, snapshot: Snapshot) -> list[StoreChunk]:
    found: list[StoreChunk] = []
    offset, done = 0, False
    while not done:
        data, done = folder.read_chunk(snapshot, offset, PIECE)
        found.append(StoreChunk(snapshot, offset, data, done))
        offset += len(data)
    assert offset == snapshot.size
    return found


def compact(folder: DataFolder, snapshot: Snapshot, keep: int = 0) -> None:
    folder.log.note(snapshot)
    folder.log.compact(snapshot.index - keep)
    folder.log.show()
    folder.log.sync()


def test_who_joined_and_has_not_read_who_the_members_are_makes_none(tmp_path: Path) -> None:
    newcomer = member(tmp_path, "d", Membership(()))
    grow(newcomer, 20)
    with pytest.raises(NotReady, match="nobody named as a member up to entry 20"):
        newcomer.make_snapshot()
    assert newcomer.log.snapshot() is None
    newcomer.close()


def test_a_snapshot_is_the_state_with_its_members_and_sessions(tmp_path: Path) -> None:
    one, two = member(tmp_path / "a"), member(tmp_path / "b", "b", Membership(()))
    grow(one, 200)
    snapshot = one.make_snapshot()
    assert (snapshot.index, snapshot.term, snapshot.membership) == (200, 1, BOOTSTRAP)
    for chunk in pieces(one, snapshot):
        here, installed = two.store_chunk(chunk)
        assert installed == chunk.done and here == chunk.offset + len(chunk.data)
    two.log.begin_anew(snapshot)
    two.log.show()
    assert two.state.hash() == one.state.hash()
    repeated = put(200, "k0", b"other", client=4)
    again = Entry(1, 201, Kind.COMMAND, repeated.data, 4, 200)
    assert two.apply([again]) == one.apply([again]), "whoever asks again is answered as before"
    two.log.append([Write(1, 1, "a", (again,))])
    two.log.sync()
    one.close()
    two.close()
    two = member(tmp_path / "b")
    assert (two.applied, two.log.first, two.log.last) == (201, 201, 201)
    two.close()


def test_a_snapshot_has_the_members_of_its_own_index(tmp_path: Path) -> None:
    import msgspec

    folder = member(tmp_path)
    grow(folder, 10)
    joint = Membership(("a", "b", "c"), outgoing=("a", "b"))
    folder.apply([Entry(1, 11, Kind.MEMBERSHIP, msgspec.msgpack.encode(joint))])
    assert folder.make_snapshot().membership == joint
    folder.apply([put(12, "k", b"")])
    assert folder.make_snapshot().membership == joint
    folder.close()


def test_one_who_was_installed_hands_on_the_members_it_was_given(tmp_path: Path) -> None:
    one, two = member(tmp_path / "a"), member(tmp_path / "b", "b", Membership(()))
    grow(one, 20)
    snapshot = one.make_snapshot()
    for chunk in pieces(one, snapshot):
        two.store_chunk(chunk)
    two.log.begin_anew(snapshot)
    two.log.show()
    two.apply([put(21, "k", b"")])
    assert two.make_snapshot().membership == BOOTSTRAP
    one.close()
    two.close()


def test_entries_are_applied_while_a_snapshot_is_made(tmp_path: Path) -> None:
    folder = member(tmp_path)
    grow(folder, 3000)
    made: list[Snapshot] = []
    thread = threading.Thread(target=lambda: made.append(folder.make_snapshot()))
    thread.start()
    during = 0
    while thread.is_alive():
        folder.apply([put(folder.applied + 1, "x", b"y" * 50)])
        during += 1
    thread.join()
    (snapshot,) = made
    assert 3000 <= snapshot.index <= folder.applied
    assert during > 0
    target = tmp_path / "out.db"
    folder.snapshots.unpack(snapshot, target)
    again = member(tmp_path / "again", "c")
    again.state.replace(target)
    index: Index = again.state.applied
    assert index == snapshot.index
    again.apply([put(n, "x", b"y" * 50) for n in range(index + 1, folder.applied + 1)])
    assert again.state.hash() == folder.state.hash()
    again.close()
    folder.close()


def test_a_piece_at_the_beginning_begins_anew(tmp_path: Path) -> None:
    """Two leaders' bodies of one entry may differ."""
    one, two = member(tmp_path / "a"), member(tmp_path / "b", "b", Membership(()))
    grow(one, 300)
    chunks = pieces(one, one.make_snapshot())
    other = StoreChunk(chunks[0].snapshot, 0, b"z" * PIECE, False)
    assert two.store_chunk(other) == (PIECE, False)
    assert two.store_chunk(chunks[1]) == (2 * PIECE, False)
    for chunk in chunks:
        here, installed = two.store_chunk(chunk)
    assert (here, installed) == (chunk.snapshot.size, True)
    one.close()
    two.close()


def test_two_who_ask_for_a_snapshot_at_once_both_get_one(tmp_path: Path) -> None:
    folder = member(tmp_path)
    grow(folder, 1000)
    made: list[Snapshot] = []
    threads = [threading.Thread(target=lambda: made.append(folder.make_snapshot())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.index for one in made] == [1000] * 4
    assert len(list((tmp_path / "snapshots").iterdir())) == 1
    folder.close()


def test_receiving_goes_on_after_a_restart_where_it_was(tmp_path: Path) -> None:
    one, two = member(tmp_path / "a"), member(tmp_path / "b", "b", Membership(()))
    grow(one, 300)
    chunks = pieces(one, one.make_snapshot())
    assert len(chunks) > 4
    for chunk in chunks[:3]:
        two.store_chunk(chunk)
    two.close()
    two = member(tmp_path / "b")
    last = chunks[-1]
    assert two.store_chunk(last) == (3 * PIECE, False), "it says what is here"
    assert two.store_chunk(chunks[1]) == (3 * PIECE, False), "a piece that came twice is not kept"
    for chunk in chunks[3:]:
        here, installed = two.store_chunk(chunk)
    assert (here, installed) == (last.snapshot.size, True)
    assert two.store_chunk(last) == (last.snapshot.size, True), "and once more"
    assert two.state.hash() == one.state.hash()
    one.close()
    two.close()


@pytest.mark.parametrize("place", [0, 14, 22, 30, 90, 5000, -1])
def test_a_snapshot_with_a_bit_turned_over_is_thrown_away(tmp_path: Path, place: int) -> None:
    one, two = member(tmp_path / "a"), member(tmp_path / "b", "b")
    grow(one, 100)
    grow(two, 10)
    before = two.state.hash()
    snapshot = one.make_snapshot()
    body = bytearray(one.read_chunk(snapshot, 0, 1 << 30)[0])
    body[place] ^= 4
    assert two.store_chunk(StoreChunk(snapshot, 0, bytes(body), True)) == (0, False)
    assert two.state.hash() == before
    assert two.snapshots.newest() is None
    body[place] ^= 4
    assert two.store_chunk(StoreChunk(snapshot, 0, bytes(body), True)) == (snapshot.size, True)
    one.close()
    two.close()


def test_a_receiver_that_does_not_check_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    monkeypatch.setattr(snapshots.Snapshots, "_sealed", lambda self, file: True)
    one, two = member(tmp_path / "a"), member(tmp_path / "b", "b")
    grow(one, 100)
    snapshot = one.make_snapshot()
    body = bytearray(one.read_chunk(snapshot, 0, 1 << 30)[0])
    body[-20] ^= 4
    assert two.store_chunk(StoreChunk(snapshot, 0, bytes(body), True)) != (0, False)
    one.close()
    two.close()


def test_more_than_was_announced_is_not_taken(tmp_path: Path) -> None:
    one, two = member(tmp_path / "a"), member(tmp_path / "b", "b")
    grow(one, 100)
    snapshot = one.make_snapshot()
    assert two.store_chunk(StoreChunk(snapshot, 0, bytes(snapshot.size + 1), False)) == (0, False)
    assert not list((tmp_path / "b" / "snapshots").iterdir())
    one.close()
    two.close()


def test_two_snapshots_are_kept_and_the_older_may_still_be_read(tmp_path: Path) -> None:
    folder = member(tmp_path)
    made = []
    for _ in range(4):
        grow(folder, 50)
        made.append(folder.make_snapshot())
    assert folder.snapshots.newest() == made[-1]
    assert len(pieces(folder, made[-2])) > 1
    with pytest.raises(LookupError):
        folder.read_chunk(made[0], 0, PIECE)
    assert len(list((tmp_path / "snapshots").iterdir())) == 2
    folder.close()


def test_a_second_snapshot_of_the_same_entry_is_the_first(tmp_path: Path) -> None:
    folder = member(tmp_path)
    grow(folder, 50)
    assert folder.make_snapshot() == folder.make_snapshot()
    folder.close()


def test_a_state_that_is_behind_the_log_is_made_anew_from_the_snapshot(tmp_path: Path) -> None:
    folder = member(tmp_path)
    grow(folder, 300)
    compact(folder, folder.make_snapshot())
    grow(folder, 20)
    whole = folder.state.hash()
    assert folder.log.first > 1
    folder.close()
    for path in (tmp_path / "state").iterdir():
        path.unlink()
    folder = member(tmp_path)
    assert folder.applied == 300
    folder.apply(folder.log.entries(301, 321, 1 << 20))
    assert folder.state.hash() == whole
    folder.close()


def test_a_state_that_cannot_be_read_is_made_anew(tmp_path: Path) -> None:
    folder = member(tmp_path)
    grow(folder, 30)
    whole = folder.state.hash()
    folder.close()
    (path,) = (tmp_path / "state").glob("*.db")
    path.write_bytes(b"not a database at all" * 500)
    Path(f"{path}-wal").unlink()
    folder = member(tmp_path)
    assert folder.applied == 0
    folder.apply(folder.log.entries(1, 31, 1 << 20))
    assert folder.state.hash() == whole
    folder.close()


def test_a_state_that_knows_more_than_the_log_is_refused(tmp_path: Path) -> None:
    folder = member(tmp_path)
    grow(folder, 30)
    folder.apply([put(31, "k", b"")])
    folder.close()
    with pytest.raises(FormatRefused, match="applied entry 31") as caught:
        member(tmp_path)
    refused(caught.value, "lost what was promised", "under a new name")


def test_a_state_that_applied_another_entry_than_the_log_has_is_refused(tmp_path: Path) -> None:
    """As where the log was cut, and goes on in a later term, below what the state had applied."""
    folder = member(tmp_path)
    entries = tuple(put(n, "k", b"", term=2) for n in range(1, 31))
    folder.log.append([Write(1, 2, "a", entries)])
    folder.log.sync()
    folder.apply([put(n, "k", b"", term=1) for n in range(1, 21)])
    folder.close()
    with pytest.raises(FormatRefused, match="applied entry 20 of term 1") as caught:
        member(tmp_path)
    refused(caught.value, "with term 2 at 20", "lost what was promised", "under a new name")


def test_a_snapshot_of_the_future_is_refused(tmp_path: Path) -> None:
    folder = member(tmp_path)
    grow(folder, 30)
    folder.make_snapshot()
    folder.close()
    (path,) = (tmp_path / "snapshots").iterdir()
    data = bytearray(path.read_bytes())
    data[len(snapshots.MAGIC)] = snapshots.FORMAT + 1
    path.write_bytes(data)
    with pytest.raises(FormatRefused, match=r"format 2.*upgrade"):
        member(tmp_path)


# -- the folder ----------------------------------------------------------------------------------------


def test_a_folder_has_one_process_and_the_second_is_told_who(tmp_path: Path) -> None:
    folder = member(tmp_path)
    with pytest.raises(ConfigurationError, match=r"in use by pid \d+"):
        DataFolder(tmp_path)
    folder.close()
    DataFolder(tmp_path).close()


def test_a_folder_knows_who_it_is_and_says_so_once(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    assert folder.identity is None
    me = Identity("cluster-1", "a", BOOTSTRAP, "life-1")
    folder.establish(me)
    with pytest.raises(ConfigurationError, match="'a' of cluster cluster-1"):
        folder.establish(me)
    folder.close()
    folder = DataFolder(tmp_path)
    assert folder.identity == me
    folder.close()


@pytest.mark.parametrize("place", [0, 13, 17, 25])
def test_a_damaged_identity_is_refused(tmp_path: Path, place: int) -> None:
    member(tmp_path).close()
    path = tmp_path / "identity"
    data = bytearray(path.read_bytes())
    data[place] ^= 8
    path.write_bytes(data)
    with pytest.raises(FormatRefused):
        DataFolder(tmp_path)


def test_a_wiped_folder_is_nobody_and_one_that_was_wiped_in_part_is_refused(tmp_path: Path) -> None:
    import shutil

    member(tmp_path).close()
    (tmp_path / "identity").unlink()
    with pytest.raises(FormatRefused, match="wiped in part"):
        DataFolder(tmp_path)
    shutil.rmtree(tmp_path)
    folder = DataFolder(tmp_path)
    assert folder.identity is None
    folder.close()
