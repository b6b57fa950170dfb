"""Mirror: what an observer knows of the keys below a prefix, kept up by one-shot watches.

A postman's round. Every letterbox with news raises its flag once; the postman visits only those, and while he
is on his way others may rise. When none is up, what he carries is the state as of his last answer: a server
delivers the flag of a change before any answer that already knows of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from kazoo.exceptions import NoNodeError
from kazoo.protocol.serialization import GetData

from atoll import clock
from atoll.engines.zookeeper import bridge, names, wire
from atoll.engines.zookeeper.opened import Opened, entry_of
from atoll.engines.zookeeper.wire import Node, Stat
from atoll.errors import AtollError, EpochChanged, NotSent, OutcomeUnknown, Overloaded, WatchLost
from atoll.ports.register import Entry, Observation

_BATCH = 500
_RETRY_S = 0.05


class Mirror:
    """The present state below a prefix. Belongs to one event loop."""

    def __init__(self, opened: Opened, prefix: str) -> None:
        self._opened, self._prefix = opened, prefix
        self._stem = names.split(prefix)[0]
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._listed: dict[str, set[str]] = {}  # directory -> the names in it
        self._rooms: dict[str, tuple[str, ...]] = {}
        self._nodes: dict[str, Entry] = {}  # path -> what stands there
        self._dirty_rooms: set[str] = set()
        self._dirty_nodes: set[str] = set()
        self._session, self._touched = -1, True
        self._closed = False
        self.start_over()

    @property
    def known(self) -> dict[str, Entry]:
        return {entry.key: entry for entry in self._nodes.values()}

    def start_over(self) -> None:
        """Visit everything: the watches are gone."""
        self._listed.clear()
        self._rooms.clear()
        self._dirty_nodes = set(self._nodes)
        self._dirty_rooms = {self._room(self._stem)}

    async def wait(self, wait_s: float) -> bool:
        """Until a flag is up, at most `wait_s`; whether one is."""
        if not self._dirty_rooms and not self._dirty_nodes:
            self._woken.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()
            except TimeoutError:
                return False
        return True

    async def visit(self, due: float, *, newest: bool) -> int | None:
        """Visit whatever has its flag up until none has.

        Answers the revision of what is known then; None where nothing is known that was not before.
        """
        opened = self._opened
        await opened.link.up("watching", due)
        if newest or self._session != opened.link.session:
            self.start_over()
            self._session, self._touched = opened.link.session, True
            reply = await opened.read("watching", [wire.get(opened.tree.meta)], due, newest=True)
            opened.learn(reply.results[0])
        while True:
            rooms = [self._dirty_rooms.pop() for _ in range(min(_BATCH, len(self._dirty_rooms)))]
            nodes = [self._dirty_nodes.pop() for _ in range(min(_BATCH, len(self._dirty_nodes)))]
            try:
                at = await self._batch(rooms, nodes, due)
            except BaseException:
                self._dirty_rooms.update(rooms)
                self._dirty_nodes.update(nodes)
                raise
            if not self._dirty_rooms and not self._dirty_nodes:
                if not self._touched:
                    return None
                if at:
                    self._touched = False
                    return at

    async def _batch(self, rooms: Sequence[str], nodes: Sequence[str], due: float) -> int:
        """Visit these; answers the revision that the last answer was as of, 0 where it was not asked for.

        Lists alone seldom change what is known; so only what may is followed by the question of when it is.
        """
        opened = self._opened
        asked: list[Any] = [opened.hub.listed(path, self._flag_room) for path in rooms]
        asked += [
            bridge.post(opened.link.client, GetData(path, partial(self._fired, path))) for path in nodes
        ]
        dated = bool(nodes) or not rooms
        if dated:
            asked.append(opened.read("watching", [wire.get(opened.tree.meta)], due, newest=False))
        try:
            async with asyncio.timeout_at(due) as limit:
                answers: list[Any] = await asyncio.gather(*asked, return_exceptions=True)
        except TimeoutError:
            if not limit.expired():
                raise
            raise OutcomeUnknown(f"{opened.url} did not answer a watch in time.") from None
        for answer in answers:
            if isinstance(answer, AtollError):
                raise answer
            if isinstance(answer, BaseException) and not isinstance(answer, NoNodeError):
                raise NotSent(f"{opened.url} did not answer a watch: {answer!r}") from answer
        for path, answer in zip(nodes, answers[len(rooms) :], strict=False):
            self._enter_node(path, answer)
        for path, answer in zip(rooms, answers, strict=False):
            self._enter_room(path, answer)
        return int(answers[-1].zxid) if dated else 0

    def _enter_node(self, path: str, answer: Any) -> None:
        """What stands at a node now, or that there is none."""
        room, _, name = path.rpartition("/")
        if isinstance(answer, NoNodeError):
            self._touched |= self._nodes.pop(path, None) is not None
        elif (key := self._key(path)) is not None:
            data, stat = answer
            self._nodes[path] = entry_of(key, Node(data, Stat._make(stat)), path)[0]
            self._listed.get(room, set()).add(name)
            self._touched = True

    def _enter_room(self, path: str, listed: list[str] | None) -> None:
        """What stands in a directory now; one that is not there is awaited by the one above it.

        A list and the nodes it names are answered at different moments: a name may have gone and come again
        between them. So what decides is whether the node is known, not whether the list before named it.
        """
        rooms = self._rooms[path]
        before = self._listed.pop(path, set())
        now = set(listed or ())
        if listed is None and rooms:
            self._dirty_rooms.add(self._room(rooms[:-1]))
        if listed is not None:
            self._listed[path] = now
        for name in before - now:
            self._forget(f"{path}/{name}")
        for name in now if listed is not None else ():
            is_room, segment = names.child(name)
            if is_room:
                below = (*rooms, segment)
                if self._concerns(below) and f"{path}/{name}" not in self._listed:
                    self._dirty_rooms.add(self._room(below))
            elif len(rooms) >= len(self._stem) and f"{path}/{name}" not in self._nodes:
                if names.joined(rooms, segment).startswith(self._prefix):
                    self._dirty_nodes.add(f"{path}/{name}")

    def _forget(self, path: str) -> None:
        """A name that is gone, and all that stood below it."""
        self._touched |= self._nodes.pop(path, None) is not None
        for name in self._listed.pop(path, set()):
            self._forget(f"{path}/{name}")

    def _concerns(self, rooms: tuple[str, ...]) -> bool:
        """On the way to the prefix's directory, or below it and within the prefix."""
        if len(rooms) <= len(self._stem):
            return rooms == self._stem[: len(rooms)]
        path = "/".join((*rooms, ""))
        return path.startswith(self._prefix) or self._prefix.startswith(path)

    def _room(self, rooms: tuple[str, ...]) -> str:
        path = self._opened.tree.room(rooms)
        self._rooms[path] = rooms
        return path

    def _key(self, path: str) -> str | None:
        room, _, name = path.rpartition("/")
        rooms = self._rooms.get(room)
        return None if rooms is None else names.joined(rooms, names.child(name)[1])

    def close(self) -> None:
        """Nobody is told any more."""
        self._closed = True
        self._opened.hub.leave(self._flag_room)

    def _fired(self, path: str, event: Any) -> None:
        """Called in kazoo's thread: a node's flag is up, or all are because the connection is gone."""
        if self._closed or self._loop.is_closed():
            return
        try:
            self._loop.call_soon_threadsafe(self._flag_node, path)
        except RuntimeError:
            self._closed = True

    def _flag_room(self, path: str) -> None:
        if path in self._rooms:
            self._dirty_rooms.add(path)
        self._woken.set()

    def _flag_node(self, path: str) -> None:
        self._dirty_nodes.add(path)  # known or just about to be: its first answer may be on its way
        self._woken.set()


async def observe(opened: Opened, prefix: str, life: Any) -> AsyncIterator[Observation]:
    """The state below `prefix`, then what has changed since; several changes may come as one.

    `life()`: rises when the handle is closed.
    """
    mirror, began = Mirror(opened, prefix), life()
    options = opened.link.ensemble.options
    told: dict[str, Entry] | None = None
    heard, revision, newest = clock.loop_now(), 0, True
    try:
        while True:
            if life() != began:
                raise WatchLost(f"{opened.url} was closed while {prefix!r} was watched. Watch it again.")
            try:
                at = await mirror.visit(clock.loop_now() + options.liveness_s / 2, newest=newest)
            except (NotSent, OutcomeUnknown, Overloaded) as error:
                if clock.loop_now() - heard > options.liveness_s or life() != began:
                    raise WatchLost(
                        f"{opened.url} has not answered a watch of {prefix!r} for {options.liveness_s:g} s: "
                        f"{error} Watch it again."
                    ) from error
                await asyncio.sleep(_RETRY_S)
                continue
            heard, newest = clock.loop_now(), False
            if at is not None:
                if at < revision:
                    raise EpochChanged(
                        f"{opened.url} went back from revision {revision} to {at}: it was restored or "
                        "replaced. Read everything again."
                    )
                revision, known = at, mirror.known
                changed = tuple(e for key, e in sorted(known.items()) if told is None or told.get(key) != e)
                removed = tuple(sorted(key for key in told or () if key not in known))
                if told is None or changed or removed:
                    reset, told = told is None, known
                    yield Observation(reset, changed, removed, at)
            while not await mirror.wait(options.liveness_s / 2):
                if life() != began:
                    break
                heard = clock.loop_now() if opened.link.client.connected else heard
                if clock.loop_now() - heard > options.liveness_s:
                    break
    finally:
        mirror.close()
