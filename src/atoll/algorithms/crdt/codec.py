"""States as bytes, and back: what arrives from elsewhere is measured and looked through before it is merged.

A parcel is opened at the door and not in the kitchen. One bad state, once merged, is everywhere: merging
never forgets. So what cannot have come of changes is refused whole, and the state here is as it was.

Source: none; msgpack, an array of format number and state.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from atoll.algorithms.crdt.counter import GCounter, PNCounter
from atoll.algorithms.crdt.or_map import ORMap, State
from atoll.algorithms.crdt.or_set import ORSet
from atoll.algorithms.crdt.register import LWWRegister
from atoll.errors import FormatRefused, LimitReached

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may come in at most. `depth`: maps in maps."""

    bytes_max: int = 16_000_000
    name_max: int = 1024
    """Characters of a replica's name, a key, an element."""
    depth_max: int = 8


DEFAULT = Limits()


def encode(state: State) -> bytes:
    """The state, or a delta, as bytes."""
    return msgspec.msgpack.encode((FORMAT, state))


def decode(data: bytes, limits: Limits = DEFAULT) -> State:
    """What `encode` made; FormatRefused for anything else, LimitReached for what is too large."""
    if len(data) > limits.bytes_max:
        raise LimitReached(f"found {len(data)} bytes of state; at most {limits.bytes_max} are read")
    try:
        found = msgspec.msgpack.decode(data, type=tuple[int, msgspec.Raw])
        if found[0] != FORMAT:
            raise FormatRefused(f"found a state of format {found[0]}; this Atoll reads {FORMAT}. Update it")
        state: State = msgspec.msgpack.decode(found[1], type=State)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise FormatRefused(f"found bytes that are no CRDT's state: {error}") from None
    _measure(state, limits, limits.depth_max)
    state.check()
    return state


def _measure(state: State, limits: Limits, depth: int) -> None:
    match state:
        case GCounter():
            names = [*state.counts]
        case PNCounter():
            names = [*state.added.counts, *state.taken.counts]
        case LWWRegister():
            names = [state.replica]
        case ORSet():
            names = [*state.context.replicas(), *state.dots]
        case ORMap():
            if not depth:
                raise LimitReached(f"found maps in maps deeper than {limits.depth_max}")
            names = [*state.context.replicas(), *state]
            for held in state.entries.values():
                for value in held.values():
                    _measure(value, limits, depth - 1)
    if longest := max(map(len, names), default=0):
        if longest > limits.name_max:
            raise LimitReached(f"found a name of {longest} characters; at most {limits.name_max} are read")
