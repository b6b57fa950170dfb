"""Barrier and double barrier: nobody goes on before all have come; and nobody leaves before all are done.

Friends who meet at the fountain before they go to the theatre, and again after it. Each meeting has a number.
Who sees that the next number is up knows that his meeting is over, however late he looks.

Keys below `<kind>/<name>/`: `generation` (the number of the meeting; whoever waits, watches it alone),
`in/<number>/<nonce>` (leased, one for each who has come), `came` (written at each coming and going, so that
whoever counted notices that somebody moved; it is read first).

Promise: of one generation nobody passes before `parties` stood there at one moment; then all pass.
What can break it: a dead party counts until its lease is over, so one that is started again meanwhile counts
twice. A process whose lease is over counts no more, though it may still be running: in a double barrier the
others do not wait for it, and it meets LeaseOver at the end.
Proved by: tests/blocks/test_barrier.py, tests/blocks/test_recipes_weather.py
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from urllib.parse import quote

import msgspec

from atoll import clock
from atoll.blocks.badge import Badge
from atoll.blocks.holding import asking
from atoll.blocks.lock import checked_name, checked_times
from atoll.blocks.ownership import below
from atoll.blocks.session import again, finished
from atoll.blocks.sharing import Place, Ticket, names, read_ticket
from atoll.blocks.taking import described, popped
from atoll.blocks.watching import State, first_of, until
from atoll.errors import ConfigurationError, FormatRefused, LeaseOver, NotReady
from atoll.ports.register import Applied, Entry, Unmet
from atoll.ports.store import Compare, Operation, Store, absent, delete, put, unchanged


class Generation(msgspec.Struct, frozen=True):
    """Which meeting is next."""

    generation: int = 0
    format: int = 1


def read_generation(entry: Entry | None) -> int:
    """The number in the entry; 0 where none was written yet."""
    if entry is None:
        return 0
    try:
        return msgspec.json.decode(entry.value, type=Generation).generation
    except msgspec.DecodeError as error:
        raise FormatRefused(f"{entry.key} holds no generation: {error}. Use another name.") from None


@dataclass(frozen=True, slots=True)
class Look:
    """What stands in the store. A later page of it is newer: who counts too many compares `came`."""

    came: Entry | None
    opened: Entry | None
    places: list[Place]

    @property
    def generation(self) -> int:
        return read_generation(self.opened)


def _places(entries: list[Entry]) -> list[Place]:
    entries.sort(key=lambda entry: entry.create_revision)
    return [Place(read_ticket(entry), entry) for entry in entries]


@dataclass(frozen=True, slots=True)
class Gate:
    """Where one barrier keeps what it knows, and how many must come."""

    store: Store
    prefix: str
    name: str
    parties: int
    ttl_s: float
    owner: str | None

    @property
    def key(self) -> str:
        return f"{self.prefix}generation"

    def room(self, generation: int) -> str:
        """Below it stands who has come to that generation."""
        return f"{self.prefix}in/{generation:012d}/"

    @property
    def came(self) -> str:
        return f"{self.prefix}came"

    async def present(self, generation: int) -> list[Place]:
        """Who has come, and not gone, the first first."""
        return _places(await again(lambda: below(self.store, self.room(generation))))

    async def look(self, generation: int) -> Look:
        """The generation that is next, who came and went last, and who stands in `generation`."""
        entries = await again(lambda: below(self.store, self.prefix))
        known = {entry.key: entry for entry in entries}
        room = self.room(generation)
        return Look(
            known.get(self.came),
            known.get(self.key),
            _places([entry for entry in entries if entry.key.startswith(room)]),
        )


class Arrival:
    """One party's coming to one gate: from standing there to going on, or to having left."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._badge: Badge | None = None
        self._generation = 0

    async def wait(self, wait_s: float | None) -> tuple[Badge, int]:
        """Until all have come; the badge is still on. NotReady after `wait_s`."""
        due = clock.call_deadline(math.inf if wait_s is None else wait_s)
        began = clock.loop_now()
        try:
            while True:
                badge = await self._arrive()
                if badge is not None and await self._passed(badge, due, began):
                    return badge, self._generation
        except BaseException:
            await finished(f"leaving {self._gate.name}", self._leave())
            raise

    async def _arrive(self) -> Badge | None:
        """Stand there; None when the generation moved on meanwhile."""
        gate = self._gate
        before, self._badge = self._badge, None
        if before is not None:
            await before.take_off()
        opened = (await again(lambda: gate.store.get(gate.key))).entry
        self._generation = read_generation(opened)
        nonce = clock.unique_id()
        badge = self._badge = Badge(gate.store, gate.room(self._generation) + nonce)
        session = await badge.join(gate.ttl_s)
        ticket = Ticket(
            owner=gate.owner or described(),
            since=round(clock.wall_now(), 3),
            nonce=nonce,
            ttl_s=session.ttl_s,
            wants="party",
            permits=gate.parties,
        )
        also: list[Operation] = [put(gate.came, b"1")]
        if before is not None:  # its lease is over, and it may stand still: one party is not to count twice
            also.append(delete(before.key))
        try:
            stands = await badge.put_on(msgspec.json.encode(ticket), *also, compare=[_same(gate.key, opened)])
        except LeaseOver:
            session.end("the store says that its lease is over")
            return None
        return None if isinstance(stands, Unmet) else badge

    async def _passed(self, badge: Badge, due: float, began: float) -> bool:
        """Whether all have come; False when our lease ended first."""
        gate, mine = self._gate, self._generation
        while True:
            look = await gate.look(mine)
            places = look.places
            if look.generation > mine:
                return True
            if wrong := [p for p in places if p.ticket.permits != gate.parties]:
                raise ConfigurationError(
                    f"{names(wrong)} came to {gate.name} with parties={wrong[0].ticket.permits}, found "
                    f"parties={gate.parties} here. Name it with the same number everywhere."
                )
            if len(places) >= gate.parties:
                if await self._open(look):
                    return True
                continue
            if not badge.alive:
                return False
            if clock.loop_now() >= due:
                if await self._given_up(look.opened):
                    raise self._not_ready(places, began)
                return True
            await first_of(
                due, until(gate.store, gate.key, lambda s: _reached(s, gate.key, mine)), badge.off.wait()
            )

    async def _open(self, counted: Look) -> bool:
        """Let all of this generation pass, if nobody came or went since we counted."""
        gate = self._gate
        after = put(gate.key, msgspec.json.encode(Generation(self._generation + 1)))
        same = [_same(gate.came, counted.came), _same(gate.key, counted.opened)]
        return isinstance(await again(lambda: gate.store.transact(after, compare=same)), Applied)

    async def _given_up(self, opened: Entry | None) -> bool:
        """Go away uncounted. False: too late, the gate is open."""
        gate, badge = self._gate, self._badge
        assert badge is not None
        going, same = (delete(badge.key), put(gate.came, b"1")), _same(gate.key, opened)
        return isinstance(await again(lambda: gate.store.transact(*going, compare=[same])), Applied)

    async def _leave(self) -> None:
        if self._badge is None:
            return
        await self._badge.take_off(put(self._gate.came, b"1"))

    def _not_ready(self, places: Sequence[Place], began: float) -> NotReady:
        return NotReady(
            f"{len(places)} of {self._gate.parties} came to {self._gate.name} within "
            f"{clock.loop_now() - began:.3g} s: {names(places)}. Wait longer (wait_s), or look "
            "who is missing."
        )


def _same(key: str, entry: Entry | None) -> Compare:
    return unchanged(key, entry.revision) if entry else absent(key)


def _missing(key: str, state: State) -> bool:
    return key not in state


def _reached(state: State, key: str, generation: int) -> bool:
    return read_generation(state.get(key)) > generation


class Barrier:
    """A barrier by name, passed again and again: `await Barrier(state, "x", parties=3).wait()`.

    `ttl_s`: a party that dies counts no more after this. `owner`: how others read who has come.
    """

    def __init__(
        self, store: Store, name: str, *, parties: int, ttl_s: float = 15.0, owner: str | None = None
    ) -> None:
        self._gate = _gate("barrier", store, name, parties, ttl_s=ttl_s, owner=owner)
        self.store, self.name, self.parties = store, name, parties

    def __repr__(self) -> str:
        return f"<Barrier {self.name!r} of {self.parties} on {self.store!r}>"

    async def wait(self, wait_s: float | None = None) -> int:
        """Until `parties` have come; answers the generation passed, 0 for the first.

        Raises NotReady after `wait_s`, and goes away uncounted then, or when it is cancelled.
        """
        checked_times(1, wait_s)
        badge, generation = await Arrival(self._gate).wait(wait_s)
        await finished(f"passing {self.name}", badge.take_off())
        return generation


class DoubleBarrier:
    """All begin together and all have ended before one goes on: `async with DoubleBarrier(...):`.

    `wait_s`: how long entering, and leaving, may take; then NotReady. Who fails inside leaves at once.
    Leaving raises LeaseOver when our own lease ended inside: the others did not wait for us.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        parties: int,
        ttl_s: float = 15.0,
        wait_s: float | None = None,
        owner: str | None = None,
    ) -> None:
        checked_times(ttl_s, wait_s)
        self._gate = _gate("double_barrier", store, name, parties, ttl_s=ttl_s, owner=owner)
        self.store, self.name, self.parties, self.wait_s = store, name, parties, wait_s
        self._entries: dict[object, list[tuple[Badge, int]]] = {}

    def __repr__(self) -> str:
        return f"<DoubleBarrier {self.name!r} of {self.parties} on {self.store!r}>"

    async def __aenter__(self) -> int:
        badge, generation = await Arrival(self._gate).wait(self.wait_s)
        self._entries.setdefault(asking(), []).append((badge, generation))
        return generation

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        badge, generation = popped(self._entries, self.name)
        try:
            if error is None:
                await self._all_left(badge, generation)
        finally:
            await finished(f"leaving {self.name}", badge.take_off())

    async def _all_left(self, badge: Badge, generation: int) -> None:
        """The first in stays till he is the last, and the others wait for him: one going wakes one."""
        gate, due = self._gate, clock.call_deadline(math.inf if self.wait_s is None else self.wait_s)
        badge.not_forked(self.name)
        going = False
        while True:
            if not going and not badge.alive:
                raise LeaseOver(f"our lease in {self.name} ended: the others did not wait for us.")
            places = await gate.present(generation)
            mine = not going and any(place.entry.key == badge.key for place in places)
            if not [place for place in places if place.entry.key != badge.key]:
                return
            first = mine and places[0].entry.key == badge.key
            if not going and not first:
                await badge.take_off()
                going = True
                continue
            if clock.loop_now() >= due:
                raise NotReady(f"still in {self.name}: {names(places)}. We have left; wait longer (wait_s).")
            key = places[-1 if first else 0].entry.key
            ends = [] if going else [badge.off.wait()]
            await first_of(due, until(gate.store, key, partial(_missing, key)), *ends)


def _gate(kind: str, store: Store, name: str, parties: int, *, ttl_s: float, owner: str | None) -> Gate:
    checked_name(kind.replace("_", " "), name)
    checked_times(ttl_s, None)
    if parties < 1:
        raise ConfigurationError(f"found parties={parties}; expected 1 or more.")
    return Gate(store, f"{kind}/{quote(name, safe='')}/", name, parties, ttl_s, owner)
