"""4.4: the power is cut at every moment of a member's life; its promises stand, and its parts agree.

A member writes, votes, is corrected by a new leader, applies, makes snapshots, drops its log and is given a
snapshot by another. At each cut: no forced entry is lost, no vote forgotten, the state is that of some prefix
of the log and not beyond it, and all of it can be applied again with the same digest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from atoll.algorithms.raft.events import StoreChunk, Write
from atoll.algorithms.raft.messages import Entry, Membership, Snapshot
from atoll.engines.raft import checkpoints
from atoll.engines.raft.folder import DataFolder, FolderOptions, Identity
from atoll.engines.raft.state import State
from atoll.engines.raft.wal import LogOptions
from atoll.verify.crash_states import Bounds, CrashReport, explore
from atoll.verify.judgement import Answer
from atoll.verify.vfs_recorder import Film
from engines.raft_film import filmed
from engines.raft_log import SMALL, put

ME = Identity("cluster-1", "a", Membership(("a", "b", "c")))
BOUNDS = Bounds(frames_max=70, samples=2, opened_max=500)
FEW = Bounds(frames_max=16, samples=1, opened_max=90)


def _entry(index: int, term: int) -> Entry:
    return put(index, f"k/{index % 7}", b"%d.%d" % (term, index) * 20, term=term, client=term)


class Script:
    """What one member goes through. `committed`: the entries that ever count, by index."""

    def __init__(self, film: Film, folder: DataFolder) -> None:
        self.film = film
        self.folder = folder
        self.committed: dict[int, Entry] = {}

    def write(self, term: int, vote: str, *entries: Entry) -> None:
        self.folder.log.append([Write(1, term, vote, entries)])
        self.folder.log.sync()
        first = entries[0].index if entries else 0
        for one in entries:
            self.film.mark(f"acked {one.index} {one.term} from {first}")
        self.film.mark(f"voted {term} {vote}")

    def commit(self, low: int, high: int) -> None:
        entries = self.folder.log.entries(low, high + 1, 1 << 20)
        self.committed |= {one.index: one for one in entries}
        self.folder.apply(entries)

    def copy_pages(self) -> None:
        """What `checkpoints.py` does on its thread, at a moment of our choice."""
        connection = self.folder.state._connect()
        checkpoints.copy(connection)
        connection.close()

    def snapshot(self) -> None:
        snapshot = self.folder.make_snapshot()
        log = self.folder.log
        log.note(snapshot)
        self.film.mark(f"snapshot {snapshot.index}")
        log.compact(snapshot.index - 2)
        log.show()
        log.sync()

    def install(self, body: bytes, snapshot: Snapshot) -> None:
        half = len(body) // 2
        for offset, data in ((0, body[:half]), (half, body[half:])):
            self.folder.store_chunk(StoreChunk(snapshot, offset, data, offset > 0))
        self.folder.log.begin_anew(snapshot)
        self.folder.log.show()
        self.film.mark(f"snapshot {snapshot.index}")


class Told(NamedTuple):
    """A snapshot of another member that is far ahead, and what it applied."""

    body: bytes
    snapshot: Snapshot
    entries: list[Entry]


def _far_ahead(folder: Path, upto: list[Entry]) -> Told:
    other = DataFolder(folder)
    other.establish(Identity("cluster-1", "b", ME.bootstrap))
    other.load()
    entries = upto + [_entry(n, 3) for n in range(len(upto) + 1, 60)]
    other.apply(entries)
    snapshot = other.make_snapshot()
    body, _ = other.read_chunk(snapshot, 0, 1 << 30)
    other.close()
    return Told(body, snapshot, entries)


def _live(
    film: Film, folder: Path, vfs: str, told: Callable[[list[Entry]], Told], force: Callable[[int], None]
) -> dict[int, Entry]:
    """The member's life, on film."""
    options = FolderOptions(log=LogOptions(segment_bytes=8192, cache_bytes=512, force=force), vfs=vfs)
    member = DataFolder(folder, options)
    member.establish(ME)
    film.mark("established")
    member.load()
    script = Script(film, member)
    script.write(1, "a")
    for low in range(1, 13, 3):
        script.write(1, "a", *(_entry(n, 1) for n in range(low, low + 3)))
    script.commit(1, 6)
    script.copy_pages()
    script.write(2, "b")
    script.write(2, "b", *(_entry(n, 2) for n in range(9, 20)))  # a new leader corrects 9 to 12
    script.commit(7, 15)
    script.snapshot()
    for low in range(20, 40, 4):
        script.write(2, "b", *(_entry(n, 2) for n in range(low, low + 4)))
        script.commit(low - 4, low - 1)
    script.copy_pages()
    script.commit(36, 37)
    script.snapshot()
    member.close()
    member = DataFolder(folder, options)
    member.load()
    script.folder = member
    script.write(3, "")
    far = told([script.committed[n] for n in range(1, max(script.committed) + 1)])
    script.committed |= {one.index: one for one in far.entries}
    script.install(far.body, far.snapshot)
    script.write(3, "c", *(_entry(n, 3) for n in range(60, 66)))
    script.commit(60, 64)
    script.copy_pages()
    member.close()
    return script.committed


class Found(NamedTuple):
    """A member as it opens after the power came back."""

    established: bool
    entries: dict[int, int]
    hard: tuple[int, str]
    first: int
    snapshot: int
    applied: int
    digest: str
    again: str
    """The digest after all committed entries were applied that the log still has."""
    reached: int


def _survey(committed: dict[int, Entry]) -> Callable[[Path], Any]:
    async def survey(folder: Path) -> Found | None:
        member = DataFolder(folder, FolderOptions(log=SMALL))
        if member.identity is None:
            member.close()
            return None
        try:
            member.load()
            log, state = member.log, member.state
            entries = {n: log.term(n) or 0 for n in range(log.first, log.last + 1)}
            (applied, digest), first = state.hash(), log.first
            newest = log.snapshot()
            while (here := committed.get(number := state.applied + 1)) and log.term(number) == here.term:
                state.apply(log.entries(number, number + 1, 1))
            reached, again = state.hash()
            snapshot = newest.index if newest else 0
            return Found(True, entries, log.term_and_vote, first, snapshot, applied, digest, again, reached)
        finally:
            member.close()

    return survey


def _verdict(digests: dict[int, str]) -> Callable[[Any, Sequence[str]], list[str]]:
    def verdict(found: Found | None, marks: Sequence[str]) -> list[str]:
        if found is None:
            return ["the member does not know itself"] if "established" in marks else []
        wanted: dict[int, int] = {}
        voted, snapshot = (0, ""), 0
        for mark in marks:
            match mark.split():
                case ["acked", index, term, "from", first]:
                    if int(index) == int(first):
                        wanted = {n: t for n, t in wanted.items() if n < int(first)}
                    wanted[int(index)] = int(term)
                case ["voted", term, *vote]:
                    voted = (int(term), "".join(vote))
                case ["snapshot", index]:
                    snapshot = max(snapshot, int(index))
        problems = []
        if found.snapshot < snapshot:
            problems.append(f"the snapshot at {snapshot} is lost, there is {found.snapshot}")
        for index, term in wanted.items():
            here = found.entries.get(index)
            if index > found.snapshot and here != term and not (here is not None and here > term):
                problems.append(f"entry {index} of term {term} was forced and is {here}")
        if found.hard < voted and not (found.hard[0] > voted[0] or found.hard[0] == voted[0]):
            problems.append(f"term and vote {voted} were forced and are {found.hard}")
        if found.hard[0] == voted[0] and voted[1] and found.hard[1] != voted[1]:
            problems.append(f"the vote {voted} was forced and is {found.hard}")
        if found.applied + 1 < found.first:
            problems.append(f"the state is at {found.applied}, the log begins at {found.first}")
        if found.digest != digests[found.applied]:
            problems.append(f"the state at {found.applied} is not that of its prefix")
        if found.again != digests[found.reached]:
            problems.append(f"applied again up to {found.reached} it is another state")
        return problems

    return verdict


def _digests(folder: Path, committed: dict[int, Entry]) -> dict[int, str]:
    """What the state is after each entry, on a disk that nothing befalls."""
    folder.mkdir()
    state = State(folder / "state.db")
    found = dict([state.hash()])
    for index in sorted(committed):
        state.apply([committed[index]])
        found |= dict([state.hash()])
    state.close()
    return found


async def _crashes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Film], Callable[[int], None]] | None = None,
) -> CrashReport:
    def told(upto: list[Entry]) -> Told:
        return _far_ahead(tmp_path / "other", upto)

    with filmed(tmp_path / "member", monkeypatch) as (film, vfs):
        force = film.force if spoil is None else spoil(film)
        committed = _live(film, tmp_path / "member", vfs, told, force)
    digests = _digests(tmp_path / "reference", committed)
    bounds = BOUNDS if spoil is None else FEW
    return await explore(film.steps, _survey(committed), _verdict(digests), seed=4, bounds=bounds)


async def test_no_cut_of_power_takes_what_a_member_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = await _crashes(tmp_path, monkeypatch)
    assert report.answer is Answer.YES, "\n".join(str(loss) for loss in report.losses)
    assert report.acknowledged > 40 and report.opened > 100, report.figures()


async def test_a_log_that_does_not_force_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    report = await _crashes(tmp_path, monkeypatch, lambda film: lambda descriptor: None)
    assert report.answer is Answer.NO


async def test_a_log_that_forgets_to_force_its_folder_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: a new segment whose name is lost takes its entries with it."""
    import os

    def spoil(film: Any) -> Callable[[int], None]:
        def force(descriptor: int) -> None:
            if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
                film.force(descriptor)

        return force

    report = await _crashes(tmp_path, monkeypatch, spoil)
    assert report.answer is Answer.NO


async def test_a_state_that_says_it_is_further_than_it_is_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: applied and its index in two transactions, the index first."""
    real = State._apply

    def torn(self: State, entries: Sequence[Entry], *, guarded: bool) -> list[bytes]:
        self._connection.execute("UPDATE atoll_raft SET applied = ?", (entries[-1].index,))
        return real(self, entries, guarded=guarded)

    monkeypatch.setattr(State, "_apply", torn)
    report = await _crashes(tmp_path, monkeypatch)
    assert report.answer is Answer.NO
