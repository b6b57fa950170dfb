"""Messages: what members of a Multi-Paxos say to each other, hear, and ask of their runtime.

The forms that the minute-taker's office has in stock. Each names the ballot it was filled in under, so that
one from an older office is known by its head.

Source: van Renesse and Altinbuken, Paxos Made Moderately Complex (2015), section 2.
Departure: see `member`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.algorithms.paxos import ZERO, Ballot, Elapsed, Overtaken, Written
from atoll.errors import ConfigurationError

Slot = int
NOOP: bytes | None = None
"""What a gap is filled with: it changes nothing."""
Vote = tuple[Ballot, bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times in seconds."""

    patience_s: float = 0.5
    """Who hears no leader for this, up to twice this, stands for election."""
    beat_s: float = 0.1
    window: int = 64
    """Slots that may be open at once; also the most decisions in one message."""
    waiting_max: int = 1024
    """Commands that wait for a slot; more are refused."""

    def __post_init__(self) -> None:
        if not 0 < 2 * self.beat_s <= self.patience_s:
            raise ConfigurationError(
                f"found beat_s={self.beat_s} and patience_s={self.patience_s}; expected a positive beat_s of "
                "at most half of patience_s, so that one lost beat deposes nobody."
            )
        if self.window < 1 or self.waiting_max < 1:
            raise ConfigurationError(
                f"found window={self.window} and waiting_max={self.waiting_max}; expected at least 1."
            )


@dataclass(frozen=True, slots=True)
class Durable:
    """All that a member must never forget."""

    promised: Ballot = ZERO
    accepted: Mapping[Slot, Vote] = field(default_factory=dict)


# -- what they say to each other; Overtaken is said too ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepare:
    """Hear nobody below `ballot`, in any slot; tell me what you accepted from `low` on."""

    ballot: Ballot
    low: Slot


@dataclass(frozen=True, slots=True)
class Promised:
    """I shall not. `accepted`: what I accepted from the asked slot on."""

    ballot: Ballot
    accepted: tuple[tuple[Slot, Ballot, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Accept:
    """Accept `value` in `slot` under `ballot`."""

    ballot: Ballot
    slot: Slot
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """I have."""

    ballot: Ballot
    slot: Slot


@dataclass(frozen=True, slots=True)
class Beat:
    """I lead, and know every slot up to `decided`."""

    ballot: Ballot
    decided: Slot


@dataclass(frozen=True, slots=True)
class Ask:
    """What was decided from `low` on?"""

    low: Slot


@dataclass(frozen=True, slots=True)
class Decided:
    """These were chosen, from `low` on without a gap."""

    low: Slot
    values: tuple[bytes | None, ...]


Message = Prepare | Promised | Accept | Accepted | Overtaken | Beat | Ask | Decided


# -- events and effects ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Received:
    """A message arrived. It may be late, doubled, or from a life before."""

    sender: str
    message: Message


@dataclass(frozen=True, slots=True)
class Proposed:
    """A command for the log. Refused at once, or some time applied, or lost with its leader."""

    id: int
    command: bytes


Event = Elapsed | Received | Written | Proposed


@dataclass(frozen=True, slots=True)
class Send:
    """A message; to oneself too, which is delivered like any other."""

    to: str
    message: Message


@dataclass(frozen=True, slots=True)
class Write:
    """Make durable: the promise, and this vote (None: no vote). Answered by `Written(seq)`."""

    seq: int
    promised: Ballot
    vote: tuple[Slot, Ballot, bytes | None] | None


@dataclass(frozen=True, slots=True)
class Apply:
    """Chosen in `slot`, in order and without gaps. NOOP: nothing to do."""

    slot: Slot
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Placed:
    """The command `id` is proposed in `slot` under `ballot`; what is chosen there shows when applied."""

    id: int
    slot: Slot
    ballot: Ballot


@dataclass(frozen=True, slots=True)
class Refused:
    """The command `id` was not taken and never will be. `leader`: who might take it, "" if unknown."""

    id: int
    leader: str


Effect = Send | Write | Apply | Placed | Refused
