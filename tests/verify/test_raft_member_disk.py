"""4.2: a simulated member's disk: what was forced is found, whenever the power went; damage is refused."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from atoll.algorithms.raft.messages import Entry, Kind, Membership, Snapshot
from atoll.verify.raft.disk import Damaged, MemberDisk, PowerCut
from atoll.verify.virtual_disk import PowerLoss, VirtualDisk

Picture = tuple[int, str, tuple[Entry, ...], int]
"""Term, vote, entries behind the snapshot, the snapshot's index."""


def picture(files: MemberDisk) -> Picture:
    log = files.log
    snapshot = log.snapshot()
    base = snapshot.index if snapshot else 0
    entries = tuple(log.entries(base + 1, log.last + 1, 1 << 40)) if log.last > base else ()
    return files.term, files.vote, entries, base


class Life:
    """Random writes, snapshots and installs; `allowed` are the pictures that may be found after a cut."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.files = MemberDisk.recovered(VirtualDisk())
        self.term = 1
        self.allowed: list[Picture] = [picture(self.files)]

    def act(self) -> None:
        chance = self.dice.random()
        before = picture(self.files)
        base = before[3]
        if chance < 0.75 or self.files.log.last - base < 3:
            self._write(before)
        elif chance < 0.9:
            index = self.dice.randint(base + 1, self.files.log.last)
            self._snapshot(before, index, self.files.log.term(index) or 0, self.files.save)
        else:
            index = self.files.log.last + self.dice.randint(-2, 5)
            term = self.files.log.term(index) if self.dice.random() < 0.3 else None
            self._snapshot(before, index, term or self.term + 1, self.files.install)

    def _write(self, before: Picture) -> None:
        writes, now = [], before
        for _ in range(self.dice.randint(1, 4)):
            self.term += self.dice.random() < 0.3
            term, vote, (_, _, entries, base) = self.term, self.dice.choice(("", "a", "b")), now
            first = (
                base
                + 1
                + len(entries)
                - (self.dice.randint(0, len(entries)) if self.dice.random() < 0.2 else 0)
            )
            new = tuple(
                Entry(term, index, Kind.COMMAND, self.dice.randbytes(self.dice.choice((3, 60, 700))))
                for index in range(first, first + self.dice.randint(0, 3))
            )
            kept = (*entries[: new[0].index - base - 1], *new) if new else entries
            now = (term, vote, kept, base)
            writes.append((term, vote, new))
            self.allowed.append(now)  # a torn batch is any number of its writes
        self.files.append(writes)
        self.files.force()
        self.allowed = [now]
        assert picture(self.files) == now

    def _snapshot(
        self, before: Picture, index: int, term: int, make: Callable[[Snapshot, bytes], None]
    ) -> None:
        found, vote, entries, base = before
        if index <= base:
            return
        agrees = self.files.log.term(index) == term
        self.allowed.append((found, vote, entries[index - base :] if agrees else (), index))
        make(Snapshot(index, term, Membership(("a",))), self.dice.randbytes(300))
        self.allowed = self.allowed[-1:]
        self.term = max(self.term, term)

    def cut(self, how: PowerLoss | None) -> None:
        disk = self.files.disk
        disk.on_change = None
        found = disk if how is None else disk.power_loss(how, self.dice)
        self.files = MemberDisk.recovered(found)
        assert picture(self.files) in self.allowed, how
        self.allowed = [picture(self.files)]


@pytest.mark.parametrize("how", [None, *PowerLoss])
def test_what_was_forced_is_found_and_of_a_torn_batch_only_its_beginning(how: PowerLoss | None) -> None:
    torn = 0
    for seed in range(25):
        life = Life(seed)
        for _ in range(20):
            left = life.dice.randint(1, 60)

            def change() -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    raise PowerCut("here")

            life.files.disk.on_change = change
            try:
                while True:
                    life.act()
            except PowerCut:
                life.cut(how)
            torn += life.files.rewritten
    assert torn or how not in (PowerLoss.TORN, PowerLoss.REORDERED)


def test_the_power_may_go_while_a_member_recovers() -> None:
    for seed in range(60):
        life = Life(seed)
        for _ in range(12):
            life.act()
        wanted = picture(life.files)
        disk = life.files.disk.power_loss(PowerLoss.KEPT, life.dice)
        for at in range(1, 9):
            left = at

            def change() -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    raise PowerCut("here")

            disk.on_change = change
            try:
                MemberDisk.recovered(disk)
            except PowerCut:
                disk.on_change = None
                disk = disk.power_loss(life.dice.choice([*PowerLoss]), life.dice)
        disk.on_change = None
        assert picture(MemberDisk.recovered(disk)) == wanted


def test_a_flipped_bit_is_refused_and_in_the_last_batch_taken_for_a_torn_tail() -> None:
    flipped = 0
    for seed in range(60):
        life = Life(seed)
        for _ in range(20):
            life.act()
        if life.files.flip(life.dice.random()):
            flipped += 1
            with pytest.raises(Damaged):
                MemberDisk.recovered(life.files.disk)
    assert flipped > 30
    life = Life(1)
    for _ in range(3):
        life._write(picture(life.files))
    before = picture(life.files)
    assert life.files.flip(0.5, last=True)
    assert picture(MemberDisk.recovered(life.files.disk)) != before


def test_a_failed_force_is_an_error_and_what_is_found_afterwards_is_written_anew() -> None:
    life = Life(3)
    life._write(picture(life.files))
    disk = life.files.disk
    disk.fail_sync_at = disk.syncs + 1
    life.files.append([(9, "c", ())])
    with pytest.raises(OSError):
        life.files.force()
    disk.fail_sync_at = None
    again = MemberDisk.recovered(disk)
    assert (again.term, again.vote) == (9, "c")
    found = MemberDisk.recovered(again.disk.power_loss(PowerLoss.DROPPED, random.Random(1)))
    assert (found.term, found.vote) == (9, "c")
