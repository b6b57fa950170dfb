"""Acceptor: one place that keeps promises, by conditional writes on a register or store of its own.

A clerk who has only a drawer with a lock. The rules of Paxos are applied here, outside; the drawer takes the
result only if nobody changed it since it was read, so that any number of us may be its clerks at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from atoll.algorithms import paxos
from atoll.algorithms.paxos import Accept, Accepted, Cell, Overtaken, Prepare, Promised
from atoll.engines.caspaxos.options import CasPaxosOptions
from atoll.engines.caspaxos.records import Card, State, card_of, cell_of, pack_card, pack_cell
from atoll.errors import ConfigurationError, NotReady, OutcomeUnknown
from atoll.ports.register import ABSENT, Applied, Entry, Register
from atoll.ports.store import Durable, StoreClaims

LOOKS = 6
KNOWN_MAX = 10_000
"""Cells remembered as they were last seen here, to save a read."""

log = logging.getLogger("atoll.caspaxos")
T = TypeVar("T")
Reply = Promised[State] | Accepted[State] | Overtaken
Rule = Callable[[Cell[State]], tuple[Cell[State], Reply]]


@dataclass(slots=True)
class Fellows:
    """What the acceptors of one opened handle have in common. `ids`: whose card was seen where."""

    set_of: tuple[str, ...]
    generation: int
    ids: dict[str, str]


class Acceptor:
    """One of them. `name`: among its fellows. `prefix`: of everything of the register in its place."""

    def __init__(self, name: str, place: Register, prefix: str, options: CasPaxosOptions) -> None:
        self.name, self.place, self.url = name, place, place.url
        self.cells = f"{prefix}k/"
        self.claims: StoreClaims | None = None
        self.epoch = 0
        """Of the store it stands in; 0 where that has none."""
        self.fellows: Fellows | None = None
        self.in_flight = self.failures = 0
        self._options = options
        self._card_key = f"{prefix}acceptor"
        self._card: tuple[Card, int] | None = None
        self._known: OrderedDict[str, tuple[Cell[State], int]] = OrderedDict()
        self._wanted = 0
        self._told = False
        self._raising = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Acceptor {self.url}>"

    async def meet(self) -> Card | None:
        """Open its place, refuse one that is too weak, read its card; None for one that has forgotten."""
        if self.claims is None:
            claims = strong_enough(await self.place.open(), self.url, self._options)
            epoch = getattr(self.place, "epoch", None)
            self.epoch = 0 if epoch is None else await asked_again(epoch)
            self.claims = claims
        return await self.card()

    # -- its card ----------------------------------------------------------------------------------------

    @property
    def last_clock(self) -> int:
        """Of the card last seen, though it may be of an epoch that is over."""
        return self._card[0].clock if self._card else 0

    async def card(self) -> Card | None:
        """Its card as it is now."""
        return self._remember((await asked_again(lambda: self.place.get(self._card_key))).entry)

    async def put_card(self, card: Card) -> Card | None:
        """Write the card where it is still the one last read here; what stands there then.

        Whether a write without an answer happened is read.
        """
        at = self._card[1] if self._card else ABSENT
        try:
            answer = await self.place.put_if(self._card_key, pack_card(card), at)
        except OutcomeUnknown:
            return await self.card()
        if isinstance(answer, Applied):
            self._card = (card, answer.revision)
            return card
        return self._remember(answer.entries[self._card_key])

    def _remember(self, entry: Entry | None) -> Card | None:
        card = card_of(entry, self.url)
        self._card = None if card is None or entry is None else (card, entry.revision)
        return card if card is None or card.epoch == self.epoch else None

    def itself(self, card: Card | None) -> Card:
        """The card, if it is of the set and the generation that was opened."""
        fellows = self.fellows
        assert fellows is not None
        if card is None or card.epoch != self.epoch:
            if not self._told:
                log.warning("%s has no valid card: it is left out until it is admitted", self.url)
            self._told = True
            raise NotReady(
                f"found no valid card in {self.url}, so it is new here, or was emptied or restored and has "
                "forgotten its promises. It is left out until admit() takes it in."
            )
        if card.set_of != fellows.set_of or fellows.ids.setdefault(card.id, self.name) != self.name:
            raise ConfigurationError(
                f"found at {self.url} an acceptor that belongs elsewhere; expected one of this register's. "
                "Name the very same acceptors in every process, each once."
            )
        if card.generation != fellows.generation:
            raise Reformed(
                f"found that an acceptor was admitted (generation {card.generation} at {self.url}) since "
                "this handle was opened. It opens anew at the next call."
            )
        return card

    async def clock(self) -> int:
        """How far the common clock has come here."""
        return self.itself(await self.meet()).clock

    async def raise_clock(self, at_least: int) -> None:
        """Not below `at_least` any more, which a look or a write after this call began has shown.

        Those who come while one writes are served by the next write.
        """
        self._wanted = max(self._wanted, at_least)
        async with self._raising:
            known = self._card[0] if self._card else None
            if known is None or known.clock >= at_least:
                known = await self.card()
            while self.itself(known).clock < at_least:
                assert known is not None
                known = await self.put_card(
                    msgspec.structs.replace(known, clock=max(known.clock, self._wanted))
                )

    # -- its cells -----------------------------------------------------------------------------------------

    async def prepare(self, key: str, message: Prepare) -> tuple[Reply, int]:
        """Its promise, and its clock read no earlier than it was asked."""
        reply, now = await asyncio.gather(
            self._obey(key, lambda cell: paxos.promise(cell, message.ballot)), self.clock()
        )
        return reply, now

    async def accept(self, key: str, message: Accept[State], clock: int) -> Reply:
        """Whether it accepts; its clock is raised before this is told."""
        reply, raised = await asyncio.gather(
            self._obey(key, lambda cell: paxos.accept(cell, message.ballot, message.value)),
            self.raise_clock(clock),
            return_exceptions=True,
        )
        if isinstance(reply, BaseException):
            raise reply
        if raised is not None and isinstance(reply, Accepted):
            raise OutcomeUnknown(f"{self.url} accepted, and its clock was not raised: {raised}") from raised
        return reply

    async def _obey(self, key: str, rule: Rule) -> Reply:
        """Apply a rule of Paxos to the cell, until nobody else came between reading and writing."""
        name = self.cells + key
        seen = self._known.pop(name, None)
        cell, at = seen or self._cell((await self.place.get(name)).entry)
        while True:
            new, reply = rule(cell)
            if new != cell:
                answer = await self.place.put_if(name, pack_cell(new), at)
                if not isinstance(answer, Applied):
                    cell, at = self._cell(answer.entries[name])
                    continue
                at = answer.revision
            self._known[name] = (new, at)
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
            return reply

    def _cell(self, entry: Entry | None) -> tuple[Cell[State], int]:
        return cell_of(entry, self.url), entry.revision if entry else ABSENT


class Reformed(NotReady):
    """The set of acceptors is of another generation than this handle's."""


async def asked_again(ask: Callable[[], Awaitable[T]]) -> T:
    """What a read answers, asked again where answers are lost."""
    for _ in range(LOOKS - 1):
        try:
            return await ask()
        except OutcomeUnknown:
            continue
    return await ask()


def strong_enough(claims: StoreClaims, url: str, options: CasPaxosOptions) -> StoreClaims:
    """The claims, if an acceptor may have them."""
    if options.best_effort:
        return claims
    if claims.durable is Durable.NONE or claims.forgets_at_failover:
        raise ConfigurationError(
            f"found that {url} may lose what it acknowledged; expected an acceptor that forces each write to "
            "disk, because one that forgets a promise breaks the register for all. "
            f"{claims.remedy + ' ' if claims.remedy else ''}Or say best_effort=True and know that."
        )
    if not claims.linearizable:
        raise ConfigurationError(
            f"found that {url} may answer from the past; expected an acceptor whose reads are linearizable. "
            "Use another, or say best_effort=True and know that."
        )
    return claims
