"""Moving: the words by which a store that moves and those who use it understand each other.

The note on the old door and the mark behind the new one carry the same number, so nobody takes the end of an
earlier move for this one's.
"""

from __future__ import annotations

import re

MARKS = "atoll/moved/"
LEFT = "atoll/left/"
DRAINING = "atoll/draining"
"""The key in the new store, under a lease, that says: begin nothing new in the old one, a move is coming."""
_MOVE = re.compile(r"\(move ([0-9a-f]{8,32})\)")


def note(url: str, move: str, *, done: bool) -> str:
    """What is written on the old store: the reason that its ReadOnly quotes."""
    return f"it {'was' if done else 'is being'} moved to {url} (move {move})"


def move_of(note: str | None) -> str | None:
    """The move that a note tells of, None where it tells of none."""
    found = _MOVE.search(note or "")
    return found[1] if found else None


def left(move: str, key: str = "") -> str:
    """The key in the new store that says: whoever held `key` in the old one while it was frozen has left."""
    return f"{LEFT}{move}/{key}"


def mark(move: str) -> str:
    """The key in the new store that says: everything of this move is here."""
    return f"{MARKS}{move}"
