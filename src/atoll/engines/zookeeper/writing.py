"""Writing: one transaction as one multi, judged by what was seen and checked in the moment it is made.

A notary. What the parties claim is looked up beforehand, or believed from a slip on the desk; but the deed
itself says of each thing it stands on "as long as this is still so", and where one is not, nothing of it
holds and everything is looked up again.

A node that is deleted and made again starts anew at version 0, so a version alone can be mistaken. Every
creation therefore raises the version of its key's bucket of lives, and whoever stands on a key that is there
checks that bucket too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from atoll.engines.zookeeper import names, wire
from atoll.engines.zookeeper.limits import REQUEST_BYTES_MAX
from atoll.engines.zookeeper.opened import Meta, Opened, Seen
from atoll.engines.zookeeper.wire import Line
from atoll.errors import LimitReached, ReadOnly
from atoll.ports import refusal
from atoll.ports.register import Applied, Entry, Unmet
from atoll.ports.store import Compare, Field, Guard, Operation, Put


class Asked(NamedTuple):
    """One call of `transact`."""

    then: Sequence[Operation]
    compare: Sequence[Compare]
    guard: Guard | None
    request_id: str | None

    @property
    def keys(self) -> list[str]:
        """Every key it touches or stands on."""
        guarded = [self.guard.owner_key] if self.guard is not None else []
        found = [*guarded, *(c.key for c in self.compare), *(op.key for op in self.then)]
        return list(dict.fromkeys(found))

    @property
    def lease(self) -> str | None:
        return next((op.lease for op in self.then if isinstance(op, Put) and op.lease is not None), None)


@dataclass(frozen=True, slots=True)
class Known:
    """What a judgement stands on. `fresh`: read after the call began, and newest then. `before`: the
    transaction that was this very request, 0 for none."""

    meta: Meta
    seen: dict[str, Seen]
    zxid: int
    fresh: bool
    before: int = 0


def guess(opened: Opened, asked: Asked) -> Known | None:
    """What the slips say, and that what is to be absent is; None where a key is not known at all."""
    absent = {c.key for c in asked.compare if c.field is not Field.VALUE and c.expected == 0}
    seen: dict[str, Seen] = {}
    for key in asked.keys:
        slip = opened.slips.get(key)
        if slip is None and key not in absent:
            return None
        seen[key] = slip or Seen(None)
    return Known(opened.meta, seen, 0, False)


def judged(opened: Opened, asked: Asked, known: Known) -> Unmet | None:
    """None when everything holds; Unmet, or raises Refused, EpochUncertain, ReadOnly."""
    if asked.then and known.meta.frozen is not None:
        raise ReadOnly(
            f"{opened.url} takes no writes: {known.meta.frozen}. Nothing was written. Whoever froze it lets "
            "writes in again with freeze(None)."
        )
    if asked.guard is not None:
        opened.noted.check(opened.url)
        owner = known.seen[asked.guard.owner_key].entry
        refusal.check_guard(asked.guard, owner, known.meta.epoch, known.zxid)
    entries = {c.key: known.seen[c.key].entry for c in asked.compare}
    if all(c.holds(entries[c.key]) for c in asked.compare):
        return None
    return Unmet(entries, known.zxid)


@dataclass(slots=True)
class Plan:
    """The lines of a multi, and which of them make directories, life, the request's node, the counter."""

    lines: list[Line] = field(default_factory=list)
    rooms: dict[int, str] = field(default_factory=dict)
    lives: dict[str, int] = field(default_factory=dict)
    sets: dict[str, int] = field(default_factory=dict)

    def add(self, line: Line) -> int:
        self.lines.append(line)
        return len(self.lines) - 1


def planned(opened: Opened, asked: Asked, known: Known) -> Plan:
    """What to send so that it happens exactly if everything is still as known."""
    plan, tree, acl = Plan(), opened.tree, opened.link.ensemble.acl
    written = {op.key: op for op in asked.then}
    compared = {c.key for c in asked.compare} | (
        {asked.guard.owner_key} if asked.guard is not None else set()
    )
    plan.add(wire.check(tree.meta, known.meta.version))
    lives: dict[str, int] = {}
    for key, seen in known.seen.items():
        if seen.entry is not None:
            life = tree.life(key)
            lives[life] = min(seen.life, lives.get(life, seen.life))
    for life, version in lives.items():
        plan.add(wire.check(life, version))
    for room in dict.fromkeys(
        room for key, seen in known.seen.items() if seen.entry is None for room in tree.rooms_above(key)
    ):
        if room not in opened.rooms:
            plan.rooms[plan.add(wire.create(room, b"", acl, wire.CONTAINER))] = room
    for key, seen in known.seen.items():
        path, operation = tree.path(key), written.get(key)
        if isinstance(operation, Put):
            _put(plan, opened, operation, seen, compared=key in compared)
        elif operation is not None and seen.entry is not None:
            plan.add(wire.delete(path, seen.version))
        elif seen.entry is not None:
            plan.add(wire.check(path, seen.version))
        else:  # made and removed at once: succeeds only where there is none
            plan.add(wire.create(path, b"", acl))
            plan.add(wire.delete(path))
    for life in plan.lives:
        plan.lives[life] = plan.add(wire.set_data(life, b""))
    if asked.request_id is not None:
        plan.add(wire.create(tree.request(asked.request_id), b"", acl))
    plan.add(wire.set_data(tree.counter, b""))
    if (size := wire.size(plan.lines)) > REQUEST_BYTES_MAX:
        raise LimitReached(
            f"found a transaction of {size} bytes; ZooKeeper takes {REQUEST_BYTES_MAX} in one request "
            "(jute.maxbuffer). Split it, or keep large values in a file and their names here."
        )
    return plan


def _put(plan: Plan, opened: Opened, operation: Put, seen: Seen, *, compared: bool) -> None:
    tree, acl, before = opened.tree, opened.link.ensemble.acl, seen.entry
    path, flags = tree.path(operation.key), wire.EPHEMERAL if operation.lease is not None else 0
    if before is not None and before.lease == operation.lease:
        # Uncompared, it may be any version of this life of the node; the bucket's check sees to the life.
        line = wire.set_data(path, packed_for(operation, seen), seen.version if compared else -1)
        plan.sets[operation.key] = plan.add(line)
        return
    if before is not None:  # a node keeps its session for life: another lease is another node
        plan.add(wire.delete(path, seen.version))
    plan.add(wire.create(path, packed_for(operation, seen), acl, flags))
    plan.lives[tree.life(operation.key)] = -1


def packed_for(operation: Put, seen: Seen) -> bytes:
    """The value, with its create_revision where the node's own creation does not tell it."""
    before = seen.entry
    if before is None:
        return names.packed(operation.value)
    header = seen.header if before.lease == operation.lease else before.create_revision
    return names.packed(operation.value, header)


def applied(opened: Opened, asked: Asked, known: Known, plan: Plan, results: Sequence[object]) -> Applied:
    """The answer of a multi that happened, and the slips it leaves."""
    counter = results[-1]
    assert isinstance(counter, wire.Stat), results
    revision = counter.mzxid
    opened.knows_rooms(plan.rooms.values())
    answers: list[Entry | None] = []
    for operation in asked.then:
        seen, key = known.seen[operation.key], operation.key
        if not isinstance(operation, Put):
            answers.append(seen.entry)
            opened.slip(key, Seen(None))
            continue
        before = seen.entry
        created = before.create_revision if before is not None else revision
        entry = Entry(key, operation.value, revision, created, operation.lease)
        answers.append(entry)
        life_line = plan.lives.get(opened.tree.life(key))
        bumped = results[life_line] if life_line is not None else None
        life = bumped.version if isinstance(bumped, wire.Stat) else seen.life
        if key in plan.sets:
            version = results[plan.sets[key]].version  # type: ignore[attr-defined]
            opened.slip(key, Seen(entry, version, seen.header, life))
        else:
            opened.slip(key, Seen(entry, 0, created if before is not None else 0, life))
    return Applied(revision, tuple(answers))
