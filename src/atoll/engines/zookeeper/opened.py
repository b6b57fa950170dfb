"""Opened: a store as one event loop has it open: its session, its format, and what it remembers of nodes.

The clerk's desk. On it lie the rules of the house (epoch, whether it is closed for moving), and slips about
the books last handled. A slip may be out of date: it only saves a walk, for every change is checked against
the shelf itself in the moment it is made.
"""

from __future__ import annotations

import json
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from atoll import clock
from atoll.engines.zookeeper import names, wire
from atoll.engines.zookeeper.hub import Hub
from atoll.engines.zookeeper.limits import Reads
from atoll.engines.zookeeper.link import Link, forbidden
from atoll.engines.zookeeper.names import Tree
from atoll.engines.zookeeper.wire import Failed, Line, Node, Reply
from atoll.errors import ConfigurationError, EpochUncertain, FormatRefused, LimitReached, NotSent
from atoll.ports.register import Entry

FORMAT = 1
GONE = "its data is gone (it was wiped, or this is another ensemble)"
_SLIPS_MAX = 2000
_ROOMS_MAX = 10_000
_SHELVES_MAX = 500
_NAMES_MAX = 64


@dataclass(frozen=True, slots=True)
class Meta:
    """The rules of the house. `version`: of the node that holds them."""

    epoch: int
    incarnation: str
    frozen: str | None
    version: int = 0

    def packed(self) -> bytes:
        return json.dumps(
            {"format": FORMAT, "epoch": self.epoch, "incarnation": self.incarnation, "frozen": self.frozen}
        ).encode()


@dataclass(frozen=True, slots=True)
class Seen:
    """A key as it was last seen. `header`: the create_revision kept beside its value; `life`: the version
    of its bucket of lives then."""

    entry: Entry | None
    version: int = 0
    header: int = 0
    life: int = 0


class Shelf(NamedTuple):
    """A directory as it was last listed: the marks that move when a child comes or goes, and the names."""

    mark: tuple[int, int]
    names: tuple[str, ...]


@dataclass(slots=True)
class Noted:
    """What a handle has seen of the server's data, over all its event loops and reconnections."""

    incarnation: str = ""
    zxid: int = 0
    uncertain: str = ""

    def answered(self, zxid: int, floor: int) -> None:
        """An answer as of `zxid`; `floor`: what it may not be older than, 0 where it may be old."""
        if zxid < floor:
            self.uncertain = f"it went back from transaction {floor} to {zxid} (an old snapshot, perhaps)"
        self.zxid = max(self.zxid, zxid)

    def look(self, meta: Meta) -> None:
        """Another nonce is another life of the data."""
        if self.incarnation and meta.incarnation != self.incarnation:
            self.uncertain = "its data is not the one seen before (it was wiped, or this is another ensemble)"
        self.incarnation = self.incarnation or meta.incarnation

    def accept(self, meta: Meta, zxid: int) -> None:
        """An operator has raised the epoch: this is the data now."""
        self.incarnation, self.zxid, self.uncertain = meta.incarnation, zxid, ""

    def check(self, url: str) -> None:
        """Raise EpochUncertain where tokens of before could look new."""
        if self.uncertain:
            raise EpochUncertain(
                f"{url} has changed under us: {self.uncertain}, so an old token could look new. When no "
                f"holder of before is at work any more, type: atoll store bump {url}"
            )


@dataclass(slots=True, weakref_slot=True)
class Opened:
    """`alone`: the server is no ensemble. `tick_s`: the servers' tick, as far as it is known."""

    link: Link
    tree: Tree
    noted: Noted
    alone: bool = False
    tick_s: float = 2.0
    ttl_min_s: float = 0.0
    ttl_max_s: float = 40.0
    meta: Meta = field(default_factory=lambda: Meta(1, "", None))
    slips: OrderedDict[str, Seen] = field(default_factory=OrderedDict)
    rooms: set[str] = field(default_factory=set)
    shelves: OrderedDict[str, Shelf] = field(default_factory=OrderedDict)
    remembered: int = 0
    gone: bool = False
    hub: Hub = field(init=False)

    def __post_init__(self) -> None:
        self.hub = Hub(self.link)
        weakref.finalize(self, self.link.hang_up)  # its loop is gone: nobody else would end the session

    @property
    def url(self) -> str:
        return self.link.ensemble.url

    @property
    def linearizable(self) -> bool:
        return self.alone or self.link.ensemble.options.reads is Reads.QUORUM

    async def read(
        self, what: str, lines: Sequence[Line], due: float, *, newest: bool, link: Link | None = None
    ) -> Reply:
        """Several nodes as of one moment. `newest`: not older than any answer before this call began."""
        floor = self.noted.zxid if newest and self.linearizable else 0
        reply = await (link or self.link).ask(
            what,
            lambda: wire.read(lines),
            due,
            before=self._barrier if newest else None,
            repeat=True,
        )
        self.noted.answered(reply.zxid, floor)
        self._check_allowed(what, reply)
        return reply

    async def write(
        self, what: str, lines: Sequence[Line], due: float, *, link: Link | None = None, id: str | None = None
    ) -> Reply:
        """All or nothing."""
        reply = await (link or self.link).ask(what, lambda: wire.write(lines), due, id=id)
        self.noted.answered(reply.zxid, 0)
        self._check_allowed(what, reply)
        return reply

    def _barrier(self) -> wire.Request:
        if self.linearizable and not self.alone:
            return wire.write([wire.check(self.tree.counter, -1)])
        return wire.sync(self.tree.counter)

    def _check_allowed(self, what: str, reply: Reply) -> None:
        codes = {result.code for result in reply.results if isinstance(result, Failed)}
        if wire.NO_AUTH in codes:
            raise forbidden(self.url, what)
        if wire.QUOTA_EXCEEDED in codes:
            raise LimitReached(
                f"{self.url} refuses {what}: a quota on our root is used up. Nothing was written. "
                "Raise it (setquota in zkCli), or remove keys."
            )

    def learn(self, node: object) -> Meta:
        """Take the rules of the house as they were just read."""
        if not isinstance(node, Node):
            self.gone = True
            self.noted.uncertain = GONE
            raise NotSent(f"{self.url} holds no store any more: {GONE}. The next call makes a new one.")
        self.meta = _read_meta(node, self.tree.meta)
        self.noted.look(self.meta)
        return self.meta

    async def refresh(self, due: float) -> Meta:
        """The rules of the house as they are now."""
        reply = await self.read("reading the epoch", [wire.get(self.tree.meta)], due, newest=True)
        return self.learn(reply.results[0])

    def slip(self, key: str, seen: Seen) -> None:
        """Remember a key that is there; forget one that is not."""
        self.slips.pop(key, None)
        if seen.entry is not None:
            self.slips[key] = seen
            if len(self.slips) > _SLIPS_MAX:
                self.slips.popitem(last=False)

    def knows_rooms(self, rooms: Iterable[str]) -> None:
        """These directories were there a moment ago."""
        if len(self.rooms) > _ROOMS_MAX:
            self.rooms.clear()
        self.rooms.update(rooms)

    def remember_shelf(self, path: str, mark: tuple[int, int] | None, names: Sequence[str]) -> None:
        """A short list of a directory without directories in it: likely the same when next looked at."""
        self.shelves.pop(path, None)
        if mark is not None and len(names) <= _NAMES_MAX:
            self.shelves[path] = Shelf(mark, tuple(names))
            if len(self.shelves) > _SHELVES_MAX:
                self.shelves.popitem(last=False)

    async def prepare(self, due: float) -> None:
        """Check the format, or make the store where there is none."""
        what = "opening the store"
        for _ in range(5):
            reply = await self.read(what, [wire.get(self.tree.meta)], due, newest=False)
            if isinstance(reply.results[0], Node):
                await self.refresh(due)
                return
            await self._make(due)
        raise NotSent(f"{self.url} could not be opened: its root comes and goes. Ask again.")

    async def _make(self, due: float) -> None:
        tree, acl, what = self.tree, self.link.ensemble.acl, "making the store"
        for path in tree.ancestors():
            line = wire.create(path, b"", acl)
            reply = await self.link.ask(what, partial(wire.write, [line]), due, repeat=True)
            self._check_allowed(what, reply)
            if any(isinstance(r, Failed) and r.code == wire.NO_NODE for r in reply.results):
                raise ConfigurationError(
                    f"found no chroot for {path} on {self.url}; create the client's chroot first."
                )
        if self.noted.incarnation:
            self.noted.uncertain = GONE
        meta = Meta(1, clock.unique_id(), None)
        nodes = [tree.counter, tree.keys, tree.requests, tree.leases, tree.lives]
        nodes += [tree.life_node(number) for number in range(names.LIVES)]
        lines = [wire.create(tree.meta, meta.packed(), acl), *(wire.create(n, b"", acl) for n in nodes)]
        reply = await self.link.ask(what, lambda: wire.write(lines), due, repeat=True)
        self._check_allowed(what, reply)


def seen_of(key: str, node: object, path: str, life: object = None) -> Seen:
    """A key from its node and the node of its bucket of lives."""
    if not isinstance(node, Node):
        return Seen(None)
    entry, header = entry_of(key, node, path)
    return Seen(entry, node.stat.version, header, life.stat.version if isinstance(life, Node) else -1)


def entry_of(key: str, node: Node, path: str) -> tuple[Entry, int]:
    """A key's entry from its node, and the create_revision kept beside the value."""
    value, header = names.unpacked(node.data, path)
    stat = node.stat
    lease = lease_id(stat.ephemeral_owner) if stat.ephemeral_owner else None
    return Entry(key, value, stat.mzxid, header or stat.czxid, lease), header


def lease_id(session: int) -> str:
    """A session's number as a lease is named."""
    return f"{session & 0xFFFFFFFFFFFFFFFF:016x}"


def _read_meta(node: Node, path: str) -> Meta:
    try:
        found = json.loads(node.data)
        number, epoch, incarnation = int(found["format"]), int(found["epoch"]), str(found["incarnation"])
    except (ValueError, KeyError, TypeError):
        raise FormatRefused(
            f"found {node.data[:40]!r} at {path}; expected a store of Atoll's. Give a root of its own, as in "
            "zookeeper://host/atoll."
        ) from None
    if number > FORMAT:
        raise FormatRefused(f"found format {number} at {path}; this version reads up to {FORMAT}. Update it.")
    return Meta(epoch, incarnation, found.get("frozen"), node.stat.version)
