"""Serving: what a member answers to the questions that are not asked a thousand times a second.

The clerk in the back room: leases, who sits on the council and who shall, how things stand. He signs nothing
himself; where the council has to agree he asks it, and where only the chair may speak he sends you there.
"""

from __future__ import annotations

from typing import Any

import apsw

from atoll import __version__
from atoll.algorithms.raft.messages import Membership
from atoll.engines.raft import command, wire
from atoll.engines.raft.consensus import Consensus
from atoll.engines.raft.declining import NotLeader
from atoll.engines.raft.lease_keeper import LeaseKeeper
from atoll.engines.raft.member_options import check_name, check_place
from atoll.engines.raft.state_writing import DEDUPE_WINDOW_S, Judge
from atoll.engines.raft.wire import Answer, Refusal, Said
from atoll.engines.sqlite import ledger
from atoll.errors import (
    AtollError,
    ConfigurationError,
    LeaseOver,
    LimitReached,
    NotApplied,
    NotReady,
    NotSent,
    OutcomeUnknown,
    Overloaded,
)

_BY_ERROR: tuple[tuple[type[AtollError], Said], ...] = (
    (NotLeader, Said.NOT_LEADER),
    (NotSent, Said.NOT_SENT),
    (OutcomeUnknown, Said.UNKNOWN),
    (Overloaded, Said.OVERLOADED),
    (LimitReached, Said.TOO_LARGE),
    (LeaseOver, Said.LEASE_OVER),
    (ConfigurationError, Said.WRONG),
    (NotReady, Said.NOT_READY),
    (NotApplied, Said.REFUSED),
)


def refused(error: AtollError, consensus: Consensus | None = None, *, read: bool = False) -> Refusal:
    """An error as what a client is told. A read that is not known may simply be asked again."""
    said = next((said for kind, said in _BY_ERROR if isinstance(error, kind)), Said.UNKNOWN)
    if read and said is Said.UNKNOWN:
        said = Said.NOT_SENT
    if isinstance(error, NotLeader):
        return Refusal(said, str(error), error.place, error.leader)
    if consensus is None:
        return Refusal(said, str(error))
    return Refusal(said, str(error), consensus.leader_place, consensus.leader)


class Serving:
    """One member's answers."""

    def __init__(self, consensus: Consensus) -> None:
        self._consensus = consensus
        self._leases = LeaseKeeper(consensus)

    def not_leader(self) -> Refusal:
        """Who leads instead, as far as is known here."""
        consensus = self._consensus
        place = consensus.leader_place
        return Refusal(
            Said.NOT_LEADER,
            f"{consensus.name} does not lead; {consensus.leader or 'nobody'} is known to",
            "" if place == consensus.place else place,
            consensus.leader,
        )

    def close(self) -> None:
        """Count no leases any more."""
        self._leases.close()

    # -- from the copy of the book ---------------------------------------------------------------------

    def card(self, connection: apsw.Connection) -> Answer:
        """What the store is."""
        consensus = self._consensus
        return wire.Card(
            ledger.epoch(connection),
            ledger.revision(connection),
            ledger.frozen(connection),
            consensus.cluster,
            len(consensus.membership.voters),
            {
                "command_bytes_max": consensus.message_bytes_max,
                "ttl_min_s": command.TTL_MIN_S,
                "dedupe_window_s": DEDUPE_WINDOW_S,
            },
        )

    def judged(self, connection: apsw.Connection, data: bytes) -> Answer:
        """What becomes of a transaction that writes nothing."""
        try:
            _, commands = command.unpack(data)
        except ValueError as error:
            return Refusal(Said.WRONG, str(error))
        if len(commands) != 1 or not isinstance(commands[0], command.Transact) or commands[0].then:
            return Refusal(Said.WRONG, "found a command that writes; expected comparisons only")
        return wire.Done(command.pack_results((Judge(connection).judged(commands[0]),)))

    # -- the rest --------------------------------------------------------------------------------------

    async def answer(self, verb: Any) -> Answer:
        """One question; raises what refuses it."""
        match verb:
            case wire.KeepAlive(lease):
                return wire.Seconds(await self._leases.renew(lease))
            case wire.Remaining(lease):
                return wire.Seconds(await self._leases.remaining(lease))
            case wire.Change():
                await self._change(verb)
            case wire.Transfer(target):
                await self._consensus.transfer(target)
            case wire.Save():
                await self._consensus.snapshot()
        return wire.Status({**self._consensus.status(), "release": __version__})

    def _check_leader(self) -> None:
        if not self._consensus.is_leader:
            said = self.not_leader()
            raise NotLeader(said.sentence, leader=self._consensus.leader, place=said.leader)

    async def _change(self, asked: wire.Change) -> None:
        """Add a learner, make it a voter, or remove a member; nothing happens where it is so already."""
        self._check_leader()
        now = self._consensus.membership
        wanted = changed(now, asked)
        if wanted != now:
            await self._consensus.change(wanted)
        elif self._consensus.agreed != now:
            raise NotReady("this change is under way and not agreed yet")


def changed(now: Membership, asked: wire.Change) -> Membership:
    """The members as they shall be."""
    name, place = asked.name, asked.place
    others = tuple(one for one in now.learners if one != name)
    if asked.act == "remove":
        voters = tuple(one for one in now.voters if one != name)
        if not voters:
            raise ConfigurationError(
                f"found that {name!r} is the only voter: none would remain. Add another first."
            )
        places = {one: at for one, at in now.places.items() if one != name}
        return Membership(voters, others, now.outgoing, places)
    if asked.act == "voter":
        if name in now.voters:
            return now
        if name not in now.learners:
            raise ConfigurationError(f"found no member {name!r}; expected a learner. Add it first.")
        return Membership((*now.voters, name), others, now.outgoing, now.places)
    if asked.act != "learner":
        raise ConfigurationError(f"found the act {asked.act!r}; expected learner, voter or remove.")
    check_name(name)
    check_place(place)
    known = now.places.get(name)
    if name in (*now.voters, *now.learners):
        if known != place:
            raise ConfigurationError(
                f"found the member {name!r} at {known}; a name belongs to one member. Choose another name "
                f"for {place}, or remove the old one first."
            )
        return now
    for other, at in now.places.items():
        if at == place:
            raise ConfigurationError(
                f"found the member {other!r} at {place} already; expected another address."
            )
    return Membership(now.voters, (*others, name), now.outgoing, {**now.places, name: place})
