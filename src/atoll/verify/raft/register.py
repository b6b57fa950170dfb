"""The state machine of the simulation: numbered keys and leases, behind the sessions of the clients.

A blackboard with a few squares, and a box of candles that go out. The value of a square is the line of the
log that wrote it, so that any answer says by itself where it comes from.
"""

from __future__ import annotations

import msgspec

from atoll.algorithms.raft.messages import Entry, Index, Kind
from atoll.algorithms.raft.sessions import Sessions, Verdict

KEYS = 24
TTL_S = 0.6
LATE = -1
"""The answer to a command whose client has long gone on."""

_PUT, _GRANT, _END = b"p", b"g", b"x"


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    applied: Index
    values: dict[int, Index]
    leases: list[int]
    sessions: bytes


class Register:
    """Keys and leases at `applied`. `apply` answers the index at which a command took effect, once."""

    __slots__ = ("applied", "leases", "sessions", "values")

    def __init__(self) -> None:
        self.applied: Index = 0
        self.values: dict[int, Index] = {}
        self.leases: dict[int, None] = {}
        self.sessions = Sessions()

    def apply(self, entry: Entry) -> int:
        """The index of the entry's effect: its own, or that of the first time where it is a repetition."""
        self.applied = entry.index
        if entry.kind is not Kind.COMMAND:
            return 0
        client, sequence = entry.client, entry.sequence
        verdict, told = self.sessions.judge(client, sequence)
        if verdict is not Verdict.NEW:
            return int.from_bytes(told, "big") if verdict is Verdict.REPEATED else LATE
        self.sessions.remember(client, sequence, entry.index.to_bytes(8, "big"))
        data = entry.data
        kind, name = data[:1], int.from_bytes(data[1:5], "big")
        if kind == _PUT:
            self.values[name] = entry.index
        elif kind == _GRANT:
            self.leases[name] = None
        else:
            self.leases.pop(name, None)
        return entry.index

    def get(self, key: int) -> int:
        """The index of the newest write of `key`, 0 for none."""
        return self.values.get(key, 0)

    def packed(self) -> bytes:
        """All of it, sessions included; equal states give equal bytes."""
        values = dict(sorted(self.values.items()))
        state = _Packed(self.applied, values, list(self.leases), self.sessions.pack())
        return msgspec.msgpack.encode(state)

    @classmethod
    def unpacked(cls, body: bytes) -> Register:
        """What `packed` packed."""
        found = msgspec.msgpack.decode(body, type=_Packed)
        state = cls()
        state.applied, state.values = found.applied, found.values
        state.leases = dict.fromkeys(found.leases)
        state.sessions.unpack(found.sessions)
        return state


def putting(key: int, padding: bytes = b"") -> bytes:
    """The command that writes a key; padding makes a batch take several sectors, and so be torn."""
    return _PUT + key.to_bytes(4, "big") + padding


def granting(lease: int) -> bytes:
    """The command that begins a lease."""
    return _GRANT + lease.to_bytes(4, "big")


def expiring(lease: int) -> bytes:
    """The command that ends a lease."""
    return _END + lease.to_bytes(4, "big")


def puts(data: bytes) -> int | None:
    """The key that a command writes."""
    return int.from_bytes(data[1:5], "big") if data[:1] == _PUT else None


def ends(data: bytes) -> int | None:
    """The lease that a command ends."""
    return int.from_bytes(data[1:5], "big") if data[:1] == _END else None
