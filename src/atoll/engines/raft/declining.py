"""Declining: the error for each reason why something was not begun, or certainly never will be.

A clerk's set of printed cards. Each says that nothing was done, why, and at which counter to ask instead.
"""

from __future__ import annotations

from atoll.algorithms.raft.events import Declined, Refused
from atoll.algorithms.raft.messages import Member
from atoll.errors import AtollError, ConfigurationError, LimitReached, NotReady, NotSent, Overloaded


class NotLeader(NotSent):
    """Certainly not applied: this member does not lead. `leader` might, at `place`; "" if nobody is known."""

    def __init__(self, message: str, *, leader: Member, place: str) -> None:
        super().__init__(message)
        self.leader = leader
        self.place = place


def not_leader(here: Member, leader: Member, place: str) -> NotLeader:
    """Asked of a member that does not lead."""
    if not leader or leader == here:
        said = f"{here} does not lead, and knows of nobody who does. Nothing was written; ask again soon."
        return NotLeader(said, leader="", place="")
    where = place or "a place unknown here"
    said = f"{here} does not lead: {leader} does, at {where}. Nothing was written; ask there."
    return NotLeader(said, leader=leader, place=place)


def replaced(leader: Member, place: str) -> NotLeader:
    """Another leader's entry was committed where this one stood."""
    return NotLeader(
        "another leader's command took the place of this one, so it is certainly not applied. Ask "
        f"{leader or 'the new leader'}.",
        leader=leader,
        place=place,
    )


def declined(refusal: Refused, here: Member, place: str) -> AtollError:
    """What the machine did not begin."""
    why = refusal.reason.value
    match refusal.reason:
        case Declined.NOT_LEADER:
            return not_leader(here, refusal.leader, place)
        case Declined.TRANSFERRING:
            said = f"{here} hands over its lead. Nothing was written; ask again soon."
            return NotLeader(said, leader="", place="")
        case Declined.OVERLOADED:
            return Overloaded(f"{here}: {why}. Nothing was written; come back later.")
        case Declined.TOO_LARGE:
            return LimitReached(
                f"{here}: {why} (message_bytes_max). Nothing was written; write less at once."
            )
        case Declined.UNKNOWN_MEMBER:
            return ConfigurationError(
                f"{here}: {why}. Nothing was changed; look at the status of the cluster."
            )
        case Declined.WOULD_LOSE_QUORUM:  # a leader that is new may only not have heard from all yet
            return NotReady(
                f"{here}: {why}, of those that it has heard from just now. Nothing was changed; look at the "
                "status of the cluster, or ask again."
            )
        case _:
            return NotReady(f"{here}: {why}. Nothing was changed; ask again later.")
