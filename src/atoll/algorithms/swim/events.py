"""Events and effects: all that a SWIM machine hears, and all that it asks of its runtime.

`step(event, now)` answers a list of effects, obeyed in order; none of them is waited for.

The runtime's duties:
1. Packets by datagram, at most `Settings.packet_bytes_max` before sealing; they may be lost, doubled, late.
2. `Ask` opens a stream, sends one letter, awaits one. Every `Ask` is answered once: `Answered`, `Unanswered`.
3. A letter that arrives on a stream is an `Asked`; its `Answer` comes in the same step, else close it.
4. Only what was opened with the group's key is handed in; garbage is counted and dropped.
5. Step at `deadline` with `Elapsed()`; `now` never goes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from atoll.algorithms.swim.messages import Address, Letter, Name, Packet, State


class Dice(Protocol):
    """Chance, handed in: `random.Random` is one."""

    def random(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Member:
    """What is known of one member. `incarnation` is also the version of its address and metadata."""

    name: Name
    address: Address
    metadata: bytes
    state: State
    incarnation: int
    uid: int
    """Of one run of its process: another number is another process."""


# -- what it hears -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Elapsed:
    """`deadline` has come."""


@dataclass(frozen=True, slots=True)
class Received:
    """A packet arrived from `address`, where answers to it go."""

    address: Address
    packet: Packet


@dataclass(frozen=True, slots=True)
class Asked:
    """A letter arrived on a stream that somebody opened; `stream` names it in `Answer`."""

    stream: int
    letter: Letter


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to `Ask(id)`."""

    id: int
    letter: Letter


@dataclass(frozen=True, slots=True)
class Unanswered:
    """`Ask(id)` found nobody, or no answer in its time."""

    id: int


@dataclass(frozen=True, slots=True)
class JoinAsked:
    """Meet one of these. Tried again until one has answered; kept, to heal a partition later."""

    seeds: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class LeaveAsked:
    """Go, and let the others know. `Departed` follows."""


@dataclass(frozen=True, slots=True)
class MetadataSet:
    """This member's metadata from now on; at most `Settings.metadata_bytes_max`, else ValueError."""

    metadata: bytes


Event = Elapsed | Received | Asked | Answered | Unanswered | JoinAsked | LeaveAsked | MetadataSet


# -- what it asks for ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """One datagram."""

    address: Address
    packet: Packet


@dataclass(frozen=True, slots=True)
class Ask:
    """Open a stream, send `letter`, await one letter, within `timeout_s`."""

    id: int
    address: Address
    letter: Letter
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Send `letter` on the stream that asked, and close it."""

    stream: int
    letter: Letter


# -- what it tells its user ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Joined:
    """Somebody is in: for the first time, or again after `Failed` or `Left`."""

    member: Member


@dataclass(frozen=True, slots=True)
class Suspected:
    """It does not answer; it still counts as in, and has time to refute."""

    member: Member


@dataclass(frozen=True, slots=True)
class Refuted:
    """A suspected member spoke up: it is alive."""

    member: Member


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not refute in time. It may still live, behind a partition; then `Joined` follows one day."""

    member: Member


@dataclass(frozen=True, slots=True)
class Left:
    """It went of its own will."""

    member: Member


@dataclass(frozen=True, slots=True)
class Updated:
    """Its metadata or its address changed."""

    member: Member


@dataclass(frozen=True, slots=True)
class Introduced:
    """The member at `address` answered: this one is in the group now. Told once for each `JoinAsked`."""

    address: Address


@dataclass(frozen=True, slots=True)
class Departed:
    """The others have been told; the runtime may close. The machine says nothing more."""


@dataclass(frozen=True, slots=True)
class NameTaken:
    """Another living process has this name: this one is out, and says nothing more."""

    member: Member


Told = Joined | Suspected | Refuted | Failed | Left | Updated | Introduced | Departed | NameTaken
Effect = Send | Ask | Answer | Told
