"""Quorum: what a majority of voters has reached, and what two majorities have while members change.

Put the voters in a row by how far each has come: what the one in the middle has reached, a majority has.
During a change of members two rows are asked, and the slower answer counts.

Source: Ongaro, Consensus (2014), 3.3 and 4.3 (joint consensus).
Departure: none. No voters at all reach nothing and win nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from atoll.algorithms.raft.messages import Member, Membership


def majority_reached(voters: Collection[Member], values: Mapping[Member, float]) -> float:
    """The largest value that a majority of `voters` has reached; 0 for those of whom nothing is known."""
    if not voters:
        return 0
    row = sorted(values.get(member, 0) for member in voters)
    return row[(len(row) - 1) // 2]


def reached(membership: Membership, values: Mapping[Member, float]) -> float:
    """The largest value reached by a majority of the voters, and of the outgoing voters if there are any."""
    new = majority_reached(membership.voters, values)
    if not membership.outgoing:
        return new
    return min(new, majority_reached(membership.outgoing, values))


def has_majority(voters: Collection[Member], yes: Collection[Member]) -> bool:
    """Whether more than half of `voters` are in `yes`."""
    return sum(member in yes for member in voters) > len(voters) // 2


def won(membership: Membership, yes: Collection[Member]) -> bool:
    """Whether `yes` is a majority of the voters, and of the outgoing voters if there are any."""
    if not has_majority(membership.voters, yes):
        return False
    return not membership.outgoing or has_majority(membership.outgoing, yes)


def lost(membership: Membership, no: Collection[Member]) -> bool:
    """Whether those who have not said no can no longer win."""
    return not won(membership, (set(membership.voters) | set(membership.outgoing)) - set(no))
