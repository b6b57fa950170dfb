"""Membership: how one set of members becomes another without two majorities that know nothing of each other.

A shop that changes hands keeps both owners' signatures for a while: during the change every decision needs
the old owners and the new ones. Only when the change itself is agreed do the new ones sign alone. A list of
who counts stands in the log like anything else, and counts from the moment it is written there, not from
the moment it is agreed.

Source: Ongaro, Consensus (2014), 4.1 to 4.3.
Departure: a change that leaves the voters as they are (learners, places) takes one entry, without a joint
phase: no majority changes.
"""

from __future__ import annotations

import msgspec

from atoll.algorithms.raft.messages import Entry, Index, Kind, Member, Membership

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Membership).decode


def pack(membership: Membership) -> bytes:
    """The data of an entry of Kind.MEMBERSHIP."""
    return _pack(membership)


def unpack(data: bytes) -> Membership:
    """What `pack` packed."""
    return _unpack(data)


def everybody(membership: Membership) -> frozenset[Member]:
    """All who are sent the log."""
    return frozenset(membership.voters + membership.outgoing + membership.learners)


def may_vote(membership: Membership, member: Member) -> bool:
    """Whether `member` may stand and its vote is counted."""
    return member in membership.voters or member in membership.outgoing


def begun(now: Membership, then: Membership) -> Membership:
    """What is written first on the way from `now` to `then`."""
    if set(now.voters) == set(then.voters):
        return Membership(now.voters, then.learners, (), then.places)
    return Membership(then.voters, then.learners, now.voters, now.places | then.places)


def ended(joint: Membership) -> Membership:
    """What is written when the joint phase is committed: the new voters alone, and places of who remains."""
    staying = set(joint.voters) | set(joint.learners)
    places = {member: place for member, place in joint.places.items() if member in staying}
    return Membership(joint.voters, joint.learners, (), places)


def tidy(then: Membership) -> Membership:
    """`then` with nobody twice; who is a voter is no learner."""
    voters = tuple(dict.fromkeys(then.voters))
    return Membership(
        voters, tuple(m for m in dict.fromkeys(then.learners) if m not in voters), (), then.places
    )


class Members:
    """Who counts, as the log says it: the newest list in the log, or the one in the snapshot below it."""

    __slots__ = ("_base", "_later", "current", "index")

    def __init__(self, index: Index, base: Membership, later: list[tuple[Index, Membership]]) -> None:
        self._base = (index, base)
        self._later = [(at, membership) for at, membership in later if at > index]
        self.index: Index
        """Where `current` stands in the log."""
        self.current: Membership
        self._look()

    def _look(self) -> None:
        self.index, self.current = self._later[-1] if self._later else self._base

    def appended(self, entry: Entry) -> None:
        """`entry` came at the end of the log."""
        if entry.kind is Kind.MEMBERSHIP:
            self._later.append((entry.index, unpack(entry.data)))
            self._look()

    def truncated(self, first: Index) -> bool:
        """Entries from `first` on are gone. True: an earlier list counts again."""
        before = self.index
        while self._later and self._later[-1][0] >= first:
            self._later.pop()
        self._look()
        return self.index != before

    def compacted(self, index: Index) -> None:
        """What is below `index` will not be asked for again."""
        self._base = (index, self.at(index))
        self._later = [(at, membership) for at, membership in self._later if at > index]

    def at(self, index: Index) -> Membership:
        """Who counted when the log ended at `index`: what a snapshot of that index has to carry."""
        found = self._base[1]
        for at, membership in self._later:
            if at > index:
                break
            found = membership
        return found
