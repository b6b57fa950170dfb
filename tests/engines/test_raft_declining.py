"""4.4: what is told to who asks for a change of members: what can never be, and what is only too early."""

from __future__ import annotations

import pytest

from atoll.algorithms.raft.events import Declined, Refused
from atoll.algorithms.raft.messages import Membership
from atoll.engines.raft import wire
from atoll.engines.raft.declining import declined
from atoll.engines.raft.serving import changed
from atoll.errors import ConfigurationError, NotReady

THREE = Membership(("a", "b", "c"), places={"a": "h:1", "b": "h:2", "c": "h:3"})


@pytest.mark.parametrize(
    "reason",
    [Declined.WOULD_LOSE_QUORUM, Declined.CHANGING, Declined.NOT_CAUGHT_UP],
    ids=lambda one: one.name,
)
def test_what_may_be_true_in_a_moment_is_not_the_askers_fault(reason: Declined) -> None:
    """A leader that has just taken over has not heard from everybody yet."""
    assert isinstance(declined(Refused(1, reason, "a"), "a", "h:1"), NotReady)


def test_a_stranger_can_be_handed_nothing() -> None:
    assert isinstance(declined(Refused(1, Declined.UNKNOWN_MEMBER, "a"), "a", "h:1"), ConfigurationError)


def test_the_only_voter_is_not_removed() -> None:
    two = changed(THREE, wire.Change("remove", "c"))
    assert two.voters == ("a", "b") and "c" not in two.places
    one = changed(two, wire.Change("remove", "b"))
    with pytest.raises(ConfigurationError, match="only voter"):
        changed(one, wire.Change("remove", "a"))
