"""Reading: one key, or a span of them as of one revision.

A stocktaking while the shop is open. The shelves' lists are read first and the goods after, and with the last
of the goods the lists' own numbers again: where no number moved meanwhile, it was one moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from atoll import clock
from atoll.engines.zookeeper import names, wire
from atoll.engines.zookeeper.opened import Opened, Shelf, seen_of
from atoll.engines.zookeeper.wire import Failed, Line, Node, Stat
from atoll.errors import Overloaded
from atoll.ports import refusal
from atoll.ports.register import Entry, Got
from atoll.ports.store import Ranged

_FEW = 64
CHUNK_BYTES = 400_000
CHUNK_NODES = 2000
CHUNK_ANSWER_BYTES = 8_000_000


async def got(opened: Opened, key: str, due: float) -> Got:
    """One key, newest."""
    path = opened.tree.path(key)
    lines = [wire.get(opened.tree.meta), wire.get(path), wire.get(opened.tree.life(key))]
    reply = await opened.read(f"reading {key!r}", lines, due, newest=True)
    meta, node, life = reply.results
    opened.learn(meta)
    seen = seen_of(key, node, path, life)
    opened.slip(key, seen)
    return Got(seen.entry, reply.zxid)


@dataclass(slots=True)
class _Walk:
    """One try at a span: the directories read with their marks, and the names found in them."""

    low: str
    high: str | None
    marks: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    found: dict[str, str] = field(default_factory=dict)  # key -> path
    zxids: set[int] = field(default_factory=set)

    def holds(self, key: str) -> bool:
        return key >= self.low and (self.high is None or key < self.high)

    def may_hold(self, rooms: tuple[str, ...]) -> bool:
        """Whether a key of the span may stand in this directory."""
        first, last = refusal.span("/".join((*rooms, "")) if rooms else "")
        return (self.high is None or first < self.high) and (last is None or last > self.low)


async def ranged(
    opened: Opened, prefix: str, bounds: tuple[str, str | None], limit: int, due: float
) -> Ranged:
    """At most `limit` entries of low <= key < high in key order, as of one revision."""
    low, high = bounds
    what = f"reading the keys from {low!r}"
    stem, walk = _stem(prefix, low, high), _Walk(low, high)
    shelf = opened.shelves.get(opened.tree.room(stem)) if len(stem) == names.DEPTH else None
    if shelf is not None:
        answer = await _at_once(opened, walk, stem, shelf, (limit, due))
        if answer is not None:
            return answer
    else:
        await _list(opened, walk, stem, what, due)
    tries = 0
    while True:
        keys = sorted(walk.found)
        wanted = keys[:limit]
        entries = await _fetch(opened, walk, wanted, what, due)
        if entries is not None:
            return Ranged(tuple(entries), max(walk.zxids), len(keys) > limit)
        tries += 1
        if clock.loop_now() >= due:
            raise Overloaded(
                f"{len(wanted)} keys from {low!r} on {opened.url} did not stand still for one look in "
                f"{tries} tries. Nothing was changed; ask for fewer (limit), or later."
            )
        walk = _Walk(low, high)
        await _list(opened, walk, stem, what, due)


def _stem(prefix: str, low: str, high: str | None) -> tuple[str, ...]:
    """The deepest directory that surely holds the whole span."""
    stem = names.split(prefix)[0]
    rooms = names.split(low)[0]
    for depth in range(len(rooms), len(stem), -1):
        last = refusal.span("/".join((*rooms[:depth], "")))[1]
        if high is not None and last is not None and high <= last:
            return rooms[:depth]
    return stem


async def _at_once(
    opened: Opened, walk: _Walk, stem: tuple[str, ...], shelf: Shelf, terms: tuple[int, float]
) -> Ranged | None:
    """List and goods in one look, where the list is as remembered; else `walk` is left with the new list."""
    limit, due = terms
    path = opened.tree.room(stem)
    _sort_out(walk, stem, list(shelf.names), path)
    keys = sorted(walk.found)
    wanted = keys[:limit]
    lines = [wire.get(opened.tree.meta), wire.get(path), wire.children(path)]
    lines += [wire.get(walk.found[key]) for key in wanted]
    lines += [wire.get(opened.tree.life(key)) for key in wanted]
    reply = await opened.read(f"reading the keys from {walk.low!r}", lines, due, newest=True)
    meta, node, listed = reply.results[:3]
    opened.learn(meta)
    if _mark(node) != shelf.mark:
        walk.found.clear()
        _take_list(opened, walk, stem, (node, listed))
        walk.zxids.add(reply.zxid)
        return None
    nodes, lives = reply.results[3 : 3 + len(wanted)], reply.results[3 + len(wanted) :]
    entries = _entered(opened, walk, list(zip(wanted, nodes, lives, strict=True)))
    return Ranged(tuple(entries), reply.zxid, len(keys) > limit)


def _take_list(
    opened: Opened, walk: _Walk, rooms: tuple[str, ...], answers: tuple[Any, Any]
) -> list[tuple[str, ...]]:
    """Enter one directory as it was just read; answers the directories below it that are worth a look."""
    node, listed = answers
    path, there = opened.tree.room(rooms), listed if isinstance(listed, list) else []
    walk.marks[path] = _mark(node)
    if len(rooms) == names.DEPTH:
        opened.remember_shelf(path, _mark(node), there)
    return _sort_out(walk, rooms, there, path)


def _entered(opened: Opened, walk: _Walk, looks: list[tuple[str, Any, Any]]) -> list[Entry]:
    """The entries of keys, from their nodes and their buckets of lives; likely to be written next."""
    entries = []
    for key, node, life in looks:
        seen = seen_of(key, node, walk.found[key], life)
        if life is not None:
            opened.slip(key, seen)
        if seen.entry is not None:
            entries.append(seen.entry)
    return entries


async def _list(opened: Opened, walk: _Walk, stem: tuple[str, ...], what: str, due: float) -> None:
    """Read directories level by level; the first read is the newest, and the session never goes back."""
    level = [stem]
    newest = True
    while level:
        below: list[tuple[str, ...]] = []
        for part in chunks([wire.get(opened.tree.room(rooms)) for rooms in level], 2):
            lines = [line for one in part for line in (one, wire.children(one.path))]
            reply = await opened.read(what, [*lines, wire.get(opened.tree.meta)], due, newest=newest)
            opened.learn(reply.results[-1])
            newest = False
            walk.zxids.add(reply.zxid)
            here, level = level[: len(part)], level[len(part) :]
            for n, rooms in enumerate(here):
                below += _take_list(opened, walk, rooms, (reply.results[2 * n], reply.results[2 * n + 1]))
        level = below


def _sort_out(walk: _Walk, rooms: tuple[str, ...], listed: list[str], path: str) -> list[tuple[str, ...]]:
    """Enter the names of one directory; answers the directories below it that are worth a look."""
    below = []
    for name in listed:
        is_room, segment = names.child(name)
        if is_room:
            if walk.may_hold((*rooms, segment)):
                below.append((*rooms, segment))
        elif walk.holds(key := names.joined(rooms, segment)):
            walk.found[key] = f"{path}/{name}"
    return below


async def _fetch(
    opened: Opened, walk: _Walk, wanted: Sequence[str], what: str, due: float
) -> list[Entry] | None:
    """The entries; None where something moved between the first read and the last."""
    entries: list[Entry] = []
    few = len(wanted) <= _FEW
    lives = [wire.get(opened.tree.life(key)) for key in wanted] if few else []
    rooms = [wire.get(path) for path in walk.marks]
    counters: set[int] = set()
    at, room_for = 0, CHUNK_NODES
    while True:
        chunk = _fitting([wire.get(walk.found[key]) for key in wanted[at : at + room_for]])
        last = at + len(chunk) >= len(wanted)
        if last and len(walk.zxids) == 1 and not chunk:
            return entries  # one read saw it all
        lines = [wire.get(opened.tree.counter), *chunk, *((*rooms, *lives) if last else ())]
        reply = await opened.read(what, lines, due, newest=False)
        walk.zxids.add(reply.zxid)
        counters.add(reply.results[0].stat.mzxid)
        nodes = reply.results[1 : 1 + len(chunk)]
        if any(isinstance(node, Failed) for node in nodes):
            return None
        after = reply.results[1 + len(chunk) :]
        versions = after[len(rooms) :] if few else [None] * len(nodes)
        entries += _entered(opened, walk, list(zip(wanted[at:], nodes, versions, strict=False)))
        at += len(chunk)
        if last:
            marks = dict(zip(walk.marks, map(_mark, after), strict=False))
            still = marks == walk.marks and (len(counters) == 1)
            return entries if still or len(walk.zxids) == 1 else None
        answered = sum(len(node.data) + 100 for node in nodes)
        room_for = max(16, min(CHUNK_NODES, CHUNK_ANSWER_BYTES * len(nodes) // answered))


def _mark(node: Any) -> tuple[int, int] | None:
    """What moves when a child of a directory comes or goes."""
    stat: Stat | None = node.stat if isinstance(node, Node) else None
    return (stat.cversion, stat.pzxid) if stat else None


def _fitting(lines: list[Line]) -> list[Line]:
    """As many of the first as one request takes."""
    size = 0
    for n, line in enumerate(lines):
        size += len(line.body) + 16
        if size > CHUNK_BYTES:
            return lines[: max(n, 1)]
    return lines


def chunks(lines: list[Line], times: int = 1) -> list[list[Line]]:
    """All of them, in requests that fit; each line stands for `times` of its size."""
    parts: list[list[Line]] = []
    while lines:
        part = _fitting(lines[: CHUNK_NODES // times])
        part = part[: max(1, len(part) // times)] if len(part) < len(lines) else part
        parts.append(part)
        lines = lines[len(part) :]
    return parts
