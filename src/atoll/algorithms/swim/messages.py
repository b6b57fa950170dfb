"""Messages: what the members of a SWIM group say to each other, and how it becomes bytes.

Postcards and parcels. A packet is a postcard: small, perhaps lost, with gossip scribbled on its free space.
A letter goes by stream and may be long: two members who meet tell each other everybody they know.

Source: Das, Gupta and Motivala, SWIM: Scalable Weakly-consistent Infection-style Process Group Membership
Protocol (2002), sections 3 and 4. Dadgar, Phillips and Currey, Lifeguard (2018): `Nack`.
Departure: an update carries the `uid` of one run of a process, so that a restarted member, or two with one
name, are told apart. `Leave` says that a member went of its own will. `Sync` carries whole lists.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar

import msgspec

FORMAT = 1
"""The first byte of packets and letters. What begins with another is not read."""
FORMATS_MAX = 31
"""A first byte beyond this is no format of any release."""
NAME_BYTES_MAX = 128
ADDRESS_BYTES_MAX = 128
METADATA_BYTES_MAX = 1024
INCARNATION_MAX = 1 << 53
"""Nobody counts this far honestly; what says more is not believed, for it could never be refuted."""

Name = str
"""A member's name, unique in its group; never an address."""
Address = str
"""Where a member is reached, by packet and by stream; the machine only carries it."""


class State(IntEnum):
    """What is believed of a member; at equal incarnation the greater word wins."""

    ALIVE = 0
    SUSPECT = 1
    FAILED = 2
    LEFT = 3


class Alive(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """`name` is in. Only itself says so first: the source of its address and metadata."""

    name: Name
    uid: int
    incarnation: int
    address: Address
    metadata: bytes = b""


class Claim(Alive, frozen=True, array_like=True, tag=5):
    """The same, said against another process of this name: proof that its writer has heard of that one."""

    against: int = 0
    """The other's `uid`."""


class Suspect(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """`by` could not reach it; it may refute with a higher incarnation."""

    name: Name
    uid: int
    incarnation: int
    by: Name


class Confirm(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Nobody refuted in time: it has failed."""

    name: Name
    uid: int
    incarnation: int
    by: Name


class Leave(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """It went by itself: no failure."""

    name: Name
    uid: int
    incarnation: int


Update = Alive | Claim | Suspect | Confirm | Leave


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Are you there? `target`: who is meant, for an address may have a new tenant."""

    seq: int
    target: Name


class PingRequest(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Ping `target` for me. Answered by `Ack`, or by `Nack` when it did not answer you in time either."""

    seq: int
    target: Name
    address: Address


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """I am here, or: the one you asked for is. `seq` of what it answers."""

    seq: int


class Nack(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """I heard your request, and nothing of its target."""

    seq: int


class Sync(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """All that the sender knows. `join`: it is new, and asks to be let in."""

    updates: tuple[Update, ...]
    join: bool = False


Body = Ping | PingRequest | Ack | Nack


class Packet(msgspec.Struct, frozen=True, array_like=True):
    """One datagram. Without a body it is gossip alone."""

    sender: Name
    body: Body | None = None
    updates: tuple[Update, ...] = ()


class Letter(msgspec.Struct, frozen=True, array_like=True):
    """One message on a stream; `Sync` is answered by `Sync`, `Ping` by `Ack`."""

    sender: Name
    body: Sync | Ping | Ack


Read = TypeVar("Read")
_FORMAT = bytes([FORMAT])
_encoder = msgspec.msgpack.Encoder()
_packets = msgspec.msgpack.Decoder(Packet)
_letters = msgspec.msgpack.Decoder(Letter)


def pack(message: Packet | Letter) -> bytes:
    """The bytes on the wire, before the runtime seals them."""
    return _FORMAT + _encoder.encode(message)


def read_packet(data: bytes) -> Packet | None:
    """A packet, or None for garbage and for another format; the runtime counts those."""
    packet = _read(data, _packets)
    return packet if packet is not None and all(map(believable, packet.updates)) else None


def read_letter(data: bytes) -> Letter | None:
    """A letter, or None for garbage and for another format."""
    letter = _read(data, _letters)
    if letter is None or not isinstance(letter.body, Sync):
        return letter
    return letter if all(map(believable, letter.body.updates)) else None


def other_format(data: bytes) -> int | None:
    """The format of what could not be read, if it is not ours: its sender is of another version."""
    return data[0] if data and data[0] != FORMAT and 0 < data[0] <= FORMATS_MAX else None


def _read(data: bytes, decoder: msgspec.msgpack.Decoder[Read]) -> Read | None:
    if not data.startswith(_FORMAT):
        return None
    try:
        return decoder.decode(memoryview(data)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def believable(update: Update) -> bool:
    """Within every bound; what is not may be an attack, and is not read at all."""
    if not 0 <= update.incarnation < INCARNATION_MAX or not 0 <= update.uid < 1 << 63:
        return False
    if not 0 < len(update.name.encode()) <= NAME_BYTES_MAX:
        return False
    if isinstance(update, Alive):
        return (
            0 < len(update.address.encode()) <= ADDRESS_BYTES_MAX
            and len(update.metadata) <= METADATA_BYTES_MAX
        )
    return isinstance(update, Leave) or len(update.by.encode()) <= NAME_BYTES_MAX


def size(part: Update | Body | None) -> int:
    """Bytes that an update or a body takes in a packet."""
    return len(_encoder.encode(part))
