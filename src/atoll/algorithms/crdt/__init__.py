"""CRDTs: copies that everybody may write at any time, and that agree when they have heard the same.

Several people tick off things on copies of one list. Nobody is asked first; whoever meets another lays both
lists side by side and makes one of them, and whether they meet early, late, twice or by a third one's list,
the same list comes out. That works because merging only ever adds to what is known.

Source: Shapiro, Preguica, Baquero and Zawirski, A Comprehensive Study of Convergent and Commutative
Replicated Data Types (2011). Sets and maps: see their files.
Departure: a state changes in place, and each change answers its delta (Almeida, Shoker and Baquero, Delta
State Replicated Data Types, 2018): a small state of the same kind, merged elsewhere like any other.

The replica's name in a change must be that of one writer for ever: two who use one name lose each other's
changes. It begins anew with a new name after losing its state.
"""

from atoll.algorithms.crdt.causality import Context, Dot
from atoll.algorithms.crdt.codec import Limits, decode, encode
from atoll.algorithms.crdt.counter import GCounter, PNCounter
from atoll.algorithms.crdt.or_map import ORMap, State
from atoll.algorithms.crdt.or_set import ORSet
from atoll.algorithms.crdt.register import LWWRegister

__all__ = [
    "Context",
    "Dot",
    "GCounter",
    "LWWRegister",
    "Limits",
    "ORMap",
    "ORSet",
    "PNCounter",
    "State",
    "decode",
    "encode",
]
