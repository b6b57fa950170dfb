"""CasPaxosRegister: the Register port on a majority of independent registers or stores.

A page kept in three offices that know nothing of each other. A majority has it whenever it was agreed on, so
one office may burn down, and no letter among the offices is needed: whoever asks does the walking.

Source: `algorithms/caspaxos.py`. Beside a key's own state each acceptor has a clock, which no answer may be
ahead of: so revisions rise over all keys, although each key is agreed on alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import msgspec

from atoll.engines.caspaxos import admitting, watching
from atoll.engines.caspaxos.acceptor import Acceptor, Reformed
from atoll.engines.caspaxos.driver import Driver
from atoll.engines.caspaxos.forming import Cards, gather
from atoll.engines.caspaxos.options import CasPaxosOptions
from atoll.engines.caspaxos.records import LINEAGE_MAX, NUMBERS, OVERHEAD_BYTES, TAG_BITS, State
from atoll.engines.parts import call
from atoll.engines.parts.opening import Opening
from atoll.errors import ConfigurationError, OutcomeUnknown
from atoll.ports import refusal
from atoll.ports.register import ABSENT, Applied, Got, Observation, Register, Unmet
from atoll.ports.store import Durable, Observing, Put, Reach, StoreClaims

T = TypeVar("T")
_REACH = [Reach.PROCESS, Reach.HOST, Reach.NETWORK]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the weakest acceptor takes, less what a cell needs."""

    key_bytes_max: int
    value_bytes_max: int
    operations_max: int = 1


@dataclass(slots=True)
class Opened:
    """An open handle: the acceptors, a proposer, and what may be asked of them."""

    driver: Driver
    claims: StoreClaims
    limits: Limits


class CasPaxosRegister:
    """A register kept by a majority of `acceptors`, an odd number of registers or stores. Inert until used.

    They are opened and closed with it. Every process names the same ones; their order does not matter.
    """

    def __init__(self, acceptors: Sequence[Register], *, options: CasPaxosOptions | None = None) -> None:
        self.options = options or CasPaxosOptions()
        self.places = tuple(acceptors)
        if len(self.places) < 3 or len(self.places) % 2 == 0:
            raise ConfigurationError(
                f"found {len(self.places)} acceptors; expected 3, 5 or 7: an even number survives no more "
                "losses than the odd one below it."
            )
        self._opening: Opening[Opened] = Opening(self._make, self._shut)

    def __repr__(self) -> str:
        return f"<Register {self.url}>"

    @property
    def url(self) -> str:
        return f"caspaxos({', '.join(place.url for place in self.places)})"

    async def open(self) -> StoreClaims:
        """Find a majority of the acceptors; all of them the very first time. Cheap when open."""
        return (await self._opening.get()).claims

    async def close(self) -> None:
        """Close the acceptors too; a verb opens them again."""
        await self._opening.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def get(self, key: str) -> Got:
        """What a majority agrees on now: the identity is proposed, so a read costs what a write costs."""
        opened = await self._opening.get()
        refusal.check_key(key, opened.limits)
        return await self.read(opened, key)

    async def read(self, opened: Opened, key: str) -> Got:
        """The same, on what is open."""
        state = await self._ask(opened, key, Decision(lambda found: None), f"get {key!r}")
        return Got(state.entry(key), state.seen)

    async def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
        opened = await self._opening.get()
        refusal.check_transaction([Put(key, value)], (), None, opened.limits)

        def write(found: State) -> State | None:
            if (found.revision if found.present else ABSENT) != revision:
                return None
            return State(True, value, create_revision=found.create_revision if found.present else 0)

        decision = Decision(write)
        state = await self._ask(opened, key, decision, f"put {key!r}")
        if decision.done is None:
            return Unmet({key: state.entry(key)}, state.seen)
        return Applied(decision.done.revision, (decision.done.entry(key),))

    async def delete_if(self, key: str, revision: int) -> Applied | Unmet:
        opened = await self._opening.get()
        refusal.check_key(key, opened.limits)

        def remove(found: State) -> State | None:
            return State() if found.present and found.revision == revision else None

        decision = Decision(remove)
        state = await self._ask(opened, key, decision, f"delete {key!r}")
        if decision.done is None or decision.before is None:
            return Unmet({key: state.entry(key)}, state.seen)
        return Applied(decision.done.revision, (decision.before.entry(key),))

    async def observe(self, prefix: str) -> AsyncIterator[Observation]:
        """See the port. Coalesces: it shows what a majority of the acceptors has told."""
        opened = await self._opening.get()
        watch = watching.Watch(opened.driver, prefix, self.url, self.options.liveness_s)
        async for observation in watch.items():
            yield observation

    async def admit(self, place: Register) -> int:
        """Take `place`, one of `places` that is empty, in as an acceptor; answers how many keys were read.

        For an acceptor that lost its data, or a new one in its place. All the others must be there.
        """
        await self._opening.get()
        acceptors, _ = await self._gather()
        driver = Driver(acceptors, self.options, self.url)
        try:
            return await admitting.admit(driver, place)
        finally:
            await driver.close()

    async def _ask(self, opened: Opened, key: str, decision: Decision, what: str) -> State:
        try:
            return await opened.driver.change(key, decision, what, decision.is_mine)
        except Reformed:  # an acceptor was admitted meanwhile, and nothing is in doubt
            await self._opening.drop(opened)
        again = await self._opening.get()
        return await again.driver.change(key, decision, what, decision.is_mine)

    # -- opening -------------------------------------------------------------------------------------------

    async def _gather(self) -> tuple[list[Acceptor], Cards]:
        prefix = f"caspaxos/{self.options.name}/"
        acceptors = [Acceptor(str(n), place, prefix, self.options) for n, place in enumerate(self.places)]

        async def send(left_s: float) -> Cards:
            return await gather(acceptors, self.options, self.url)

        return acceptors, await call.answered("opening", self.url, self.options.ceiling_s, send)

    async def _make(self) -> Opened:
        acceptors, cards = await self._gather()
        driver = Driver(acceptors, self.options, self.url)

        def take(found: State, stamp: int) -> State:
            return State(True, b"%d" % (int(found.value or b"0") + 1), stamp, stamp, stamp)

        taken = await driver.change(NUMBERS, take, "a number")
        driver.tag = 1 + int(taken.value) % ((1 << TAG_BITS) - 1)
        claims = claims_of(acceptors, self.options, cards)
        limits = Limits(key_bytes_max=claims.key_bytes_max, value_bytes_max=claims.value_bytes_max)
        return Opened(driver, claims, limits)

    async def _shut(self, opened: Opened) -> None:
        await opened.driver.close()
        for place in self.places:
            await place.close()


class Decision:
    """A change of one key, as a driver wants it: knows its own earlier attempt when it meets it again.

    `write`: the next state's own parts, or None to leave it as it is. `done`: the state written, `before`:
    the one it replaced; both None while nothing is.
    """

    def __init__(self, write: Callable[[State], State | None]) -> None:
        self.done: State | None = None
        self.before: State | None = None
        self._write = write
        self._tried: dict[int, tuple[State, State]] = {}
        self._base = 0

    def is_mine(self, state: State) -> bool:
        """Whether an attempt of this change wrote it."""
        return state.revision in self._tried

    def __call__(self, found: State, stamp: int) -> State:
        """See `driver.Change`."""
        again = found.at(stamp)
        if self._tried:
            for revision in (found.revision, *found.lineage):
                if revision in self._tried:
                    self.done, self.before = self._tried[revision]
                    return again
            if len(found.lineage) == LINEAGE_MAX and self._base not in (found.revision, *found.lineage):
                raise OutcomeUnknown(
                    f"the key was written {LINEAGE_MAX} times and more by others while this write was under "
                    "way, so whether it was among them cannot be seen. Read before you ask again."
                )
        self.done = self.before = None
        wanted = self._write(found)
        if wanted is None:
            return again
        self._base = found.revision
        past = (found.revision, *found.lineage)[:LINEAGE_MAX] if found.revision else ()
        state = msgspec.structs.replace(
            wanted,
            revision=stamp,
            create_revision=(wanted.create_revision or stamp) if wanted.present else 0,
            seen=stamp,
            lineage=past,
        )
        self.done, self.before = self._tried[stamp] = (state, found)
        return state


def claims_of(acceptors: Sequence[Acceptor], options: CasPaxosOptions, cards: Cards) -> StoreClaims:
    """What they promise together, as far as they are known."""
    known = [one.claims for one in acceptors if one.claims]
    prefix = len(acceptors[0].cells.encode())
    forgetful = any(claims.durable is Durable.NONE or claims.forgets_at_failover for claims in known)
    card = next(card for card in cards.values() if card)
    return StoreClaims(
        durable=Durable.NONE if forgetful else Durable.QUORUM,
        reach=min((claims.reach for claims in known), key=_REACH.index),
        expiry_late_max_s=0.0,
        key_bytes_max=min(claims.key_bytes_max for claims in known) - prefix,
        value_bytes_max=min(claims.value_bytes_max for claims in known) - OVERHEAD_BYTES,
        operations_max=1,
        epoch_source="none of its own: a place whose epoch has changed is left out",
        observe=Observing.COALESCED,
        liveness_s=options.liveness_s,
        linearizable=all(claims.linearizable for claims in known) and not forgetful,
        forgets_at_failover=forgetful,
        incarnation="-".join(id[:8] for id in card.set_of),
    )
