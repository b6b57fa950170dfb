"""The membership list: who is known, what is believed of each, and how two beliefs become one.

Village talk. Whoever spoke last of itself is believed over those who spoke of it before, and among words of
the same date the worse one stands until the person objects. So it does not matter in which order the talk
reaches a house, nor how often: in the end every house believes the same.

Source: Das, Gupta and Motivala, SWIM (2002), section 4.2, the order of Alive, Suspect and Confirm.
Departure: a failed member may come back by a higher incarnation; at equal incarnations the greater `uid`
stands, and what a member says of itself is kept apart from what is said of it, so that order loses neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from atoll.algorithms.swim import events
from atoll.algorithms.swim.events import Dice, Member
from atoll.algorithms.swim.messages import Address, Alive, Claim, Confirm, Leave, Name, State, Suspect, Update


class Record(msgspec.Struct, frozen=True):
    """One line of the list. `profile`: the newest that the member said of itself."""

    name: Name
    state: State
    incarnation: int
    uid: int
    profile: Alive | None
    since: float
    """When this state was learned here."""
    by: Name = ""
    """Who said first that it is suspected or failed; passed on, so that one voice is not taken for many."""

    @property
    def visible(self) -> bool:
        """The run of the process that is spoken of has itself been heard of, with its address."""
        return self.profile is not None and self.profile.uid == self.uid

    @property
    def living(self) -> bool:
        """Counts as in."""
        return self.state <= State.SUSPECT and self.visible

    @property
    def address(self) -> Address:
        """Where it is reached; "" where that is not known."""
        return self.profile.address if self.profile is not None else ""

    @property
    def order(self) -> tuple[int, int, int]:
        """The greater belief wins."""
        return (self.incarnation, self.uid, self.state)

    def member(self) -> Member:
        """As its user sees it."""
        metadata = self.profile.metadata if self.profile is not None else b""
        return Member(self.name, self.address, metadata, self.state, self.incarnation, self.uid)

    def verdict(self) -> Update | None:
        """What is believed of it, to be passed on; None where that is only its own word."""
        if self.state is State.SUSPECT:
            return Suspect(self.name, self.uid, self.incarnation, self.by)
        if self.state is State.FAILED:
            return Confirm(self.name, self.uid, self.incarnation, self.by)
        if self.state is State.LEFT:
            return Leave(self.name, self.uid, self.incarnation)
        return None


_STATES: dict[type, State] = {
    Alive: State.ALIVE,
    Claim: State.ALIVE,
    Suspect: State.SUSPECT,
    Confirm: State.FAILED,
    Leave: State.LEFT,
}


def merge(record: Record | None, update: Update, now: float) -> Record:
    """What is believed after hearing `update`; the same object where it says nothing new.

    Commutative, associative and idempotent but for `since` and `by`.
    """
    state = _STATES[type(update)]
    by = update.by if isinstance(update, Suspect | Confirm) else ""
    said = update if isinstance(update, Alive) else None
    if record is None:
        return Record(update.name, state, update.incarnation, update.uid, said, now, by)
    profile = record.profile
    if said is not None and (profile is None or _newer(said, profile)):
        profile = said
    if (update.incarnation, update.uid, state) > record.order:
        return Record(record.name, state, update.incarnation, update.uid, profile, now, by)
    if profile is record.profile:
        return record
    return msgspec.structs.replace(record, profile=profile)


def _newer(said: Alive, before: Alive) -> bool:
    return (said.incarnation, said.uid, said.address, said.metadata) > (
        before.incarnation,
        before.uid,
        before.address,
        before.metadata,
    )


def told(before: Record | None, after: Record | None) -> list[events.Told]:
    """What a user is told when one belief replaces another."""
    was = before.member() if before is not None and before.living else None
    if after is None or not after.visible:
        return [events.Failed(_failed(was))] if was is not None else []
    member = after.member()
    if was is not None and was.uid != member.uid:
        return [events.Failed(_failed(was)), *told(None, after)]
    if not after.living:
        if was is None and (before is None or before.state is after.state or after.state is State.FAILED):
            return []
        return [events.Left(member) if after.state is State.LEFT else events.Failed(member)]
    found: list[events.Told] = []
    if was is None:
        found.append(events.Joined(member))
    elif (was.address, was.metadata) != (member.address, member.metadata):
        found.append(events.Updated(member))
    if member.state is State.SUSPECT and (was is None or was.state is State.ALIVE):
        found.append(events.Suspected(member))
    if member.state is State.ALIVE and was is not None and was.state is State.SUSPECT:
        found.append(events.Refuted(member))
    return found


def _failed(member: Member) -> Member:
    return Member(member.name, member.address, member.metadata, State.FAILED, member.incarnation, member.uid)


_ABSENT = object()


class Members:
    """The list itself. `shared` is never changed: a thousand simulated members keep one copy of it."""

    def __init__(self, shared: Mapping[Name, Record] | None = None, names: tuple[Name, ...] = ()) -> None:
        self._shared: Mapping[Name, Record] = shared or {}
        self._changed: dict[Name, Record | None] = {}
        self._shared_names = names
        self._own_names: list[Name] = []
        self._stale: set[Name] = set()
        self.living = sum(record.living for record in self._shared.values())
        self.failed: dict[Name, None] = {n: None for n, r in self._shared.items() if r.state is State.FAILED}

    def fork(self) -> Members:
        """Another list that begins as this one and shares what neither changes; this one is frozen."""
        if self._changed or not self._shared:
            self._shared = {record.name: record for record in self}
            self._shared_names = tuple(self._shared)
            self._changed, self._own_names, self._stale = {}, [], set()
        other = Members()
        other._shared, other._shared_names = self._shared, self._shared_names
        other.living, other.failed = self.living, dict(self.failed)
        return other

    def __len__(self) -> int:
        return len(self._shared_names) + len(self._own_names) - len(self._stale)

    def __iter__(self) -> Iterator[Record]:
        for index in range(self.places):
            record = self.at(index)
            if record is not None:
                yield record

    @property
    def places(self) -> int:
        """How many places the list has; a few may be empty."""
        return len(self._shared_names) + len(self._own_names)

    def at(self, place: int) -> Record | None:
        """Who stands at `place`; nobody where one was forgotten."""
        shared = self._shared_names
        return self.get(shared[place] if place < len(shared) else self._own_names[place - len(shared)])

    def get(self, name: Name) -> Record | None:
        """What is believed of `name`."""
        found = self._changed.get(name, _ABSENT)
        return self._shared.get(name) if found is _ABSENT else found  # type: ignore[return-value]

    def put(self, record: Record) -> None:
        """Believe this."""
        name, before = record.name, self.get(record.name)
        if before is None:
            if name in self._stale:
                self._stale.discard(name)
            else:
                self._own_names.append(name)
        self._changed[name] = record
        self.living += record.living - (before is not None and before.living)
        if record.state is State.FAILED:
            self.failed[name] = None
        else:
            self.failed.pop(name, None)

    def forget(self, name: Name) -> None:
        """As if it had never been heard of."""
        before = self.get(name)
        if before is None:
            return
        self.living -= before.living
        self.failed.pop(name, None)
        self._stale.add(name)
        self._changed[name] = None

    def compact(self) -> None:
        """Close the gaps, when they are many; every place may change."""
        if len(self._stale) * 2 <= self.places:
            return
        kept = {record.name: record for record in self}
        self._shared, self._shared_names = {}, ()
        self._changed, self._own_names, self._stale = dict(kept), list(kept), set()

    def choose(self, dice: Dice, most: int, fit: Callable[[Record], bool]) -> list[Record]:
        """Up to `most` different ones that fit, by chance."""
        places = self.places
        if places <= 4 * most + 16:
            return _drawn([record for record in self if fit(record)], most, dice)
        found: dict[Name, Record] = {}
        for _ in range(8 * most):
            record = self.at(int(dice.random() * places))
            if record is not None and record.name not in found and fit(record):
                found[record.name] = record
                if len(found) == most:
                    return list(found.values())
        return _drawn([record for record in self if fit(record)], most, dice)


def _drawn(pool: list[Record], most: int, dice: Dice) -> list[Record]:
    for place in range(min(most, len(pool))):
        other = place + int(dice.random() * (len(pool) - place))
        pool[place], pool[other] = pool[other], pool[place]
    return pool[:most]
