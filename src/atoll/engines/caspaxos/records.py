"""Records: what stands in an acceptor's store, as bytes that name their format.

Two forms. A card, one for each acceptor, says who it is, with whom it belongs, and how far the common clock
has come. A cell, one for each key, is the page and the last word given about it.
"""

from __future__ import annotations

import msgspec

from atoll.algorithms.paxos import Ballot, Cell
from atoll.errors import FormatRefused
from atoll.ports.register import Entry

FORMAT = 1
LINEAGE_MAX = 64
"""Writes of others that may come between two attempts of one change, and it still sees what became of it."""
OVERHEAD_BYTES = 1024
"""What a cell may add to its value: two ballots, five numbers, a lineage."""
NUMBERS = ""
"""The cell in which handles take their numbers; no user's key is empty."""
TAG_BITS = 20
"""The low bits of a revision, which say whose it is, so that no two are equal."""


class State(msgspec.Struct, frozen=True, array_like=True):
    """What stands in a key. Not `present`: a tombstone, which keeps the key's numbers from starting over.

    `seen`: the revision of the last answer about it, a read's too; every later one is higher. `lineage`: the
    revisions of the writes before, newest first, by which a proposer knows its own among them.
    """

    present: bool = False
    value: bytes = b""
    revision: int = 0
    create_revision: int = 0
    seen: int = 0
    lineage: tuple[int, ...] = ()

    def at(self, stamp: int) -> State:
        """The same, as answered at the revision `stamp`."""
        return msgspec.structs.replace(self, seen=stamp)

    def entry(self, key: str) -> Entry | None:
        """As the port shows it."""
        return Entry(key, self.value, self.revision, self.create_revision) if self.present else None


NEVER = State()


class Card(msgspec.Struct, frozen=True, array_like=True):
    """Who an acceptor is. `set_of`: the ids of all, sorted; empty until all have a card.

    `generation`: rises when an acceptor is taken in again; what was asked in an earlier one counts no more.
    `epoch`: of its store when it was admitted; another one means that the store was restored or moved since.
    `clock`: not below the revision of any answer that this acceptor had a part in, its tag left out.
    """

    format: int
    id: str
    set_of: tuple[str, ...] = ()
    generation: int = 1
    clock: int = 0
    epoch: int = 0


class _Cell(msgspec.Struct, frozen=True, array_like=True):
    format: int
    promised: tuple[int, str]
    accepted: tuple[int, str]
    state: State | None


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_cells = msgspec.msgpack.Decoder(_Cell)
_cards = msgspec.msgpack.Decoder(Card)
_pack = msgspec.msgpack.Encoder().encode


def pack_cell(cell: Cell[State]) -> bytes:
    """A cell as bytes."""
    return _pack(_Cell(FORMAT, cell.promised, cell.accepted, cell.value))


def cell_of(entry: Entry | None, url: str) -> Cell[State]:
    """The cell that stands there; an empty one where nothing does."""
    if entry is None:
        return Cell()
    try:
        found = _cells.decode(entry.value)
    except UNREADABLE as error:
        raise strange(entry.key, url) from error
    if found.format != FORMAT:
        raise strange(entry.key, url)
    return Cell(Ballot(*found.promised), Ballot(*found.accepted), found.state)


def pack_card(card: Card) -> bytes:
    """A card as bytes."""
    return _pack(card)


def card_of(entry: Entry | None, url: str) -> Card | None:
    """The card that stands there."""
    if entry is None:
        return None
    try:
        card = _cards.decode(entry.value)
    except UNREADABLE as error:
        raise strange(entry.key, url) from error
    if card.format != FORMAT:
        raise strange(entry.key, url)
    return card


def strange(key: str, url: str) -> FormatRefused:
    """What stands there is not ours, or from a newer release."""
    return FormatRefused(
        f"found in {url} under {key!r} what this release cannot read; expected a record of CASPaxos, format "
        f"{FORMAT}. Use a newer Atoll, or another name for the register."
    )
