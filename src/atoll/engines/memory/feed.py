"""Feed: what one observer has still to hear, kept until it listens.

A letter box. Prompt: every letter, in order. Coalesced: only the names that changed, and what stands
there is looked up when the box is opened. A box that overflows is emptied and says: look again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from atoll.engines.memory.bell import Bell
from atoll.ports.register import Entry, Observation
from atoll.ports.store import Change

FEED_MAX = 10_000


class Feed:
    """One observer's letter box below `prefix`, bound to the event loop it was made in."""

    def __init__(self, prefix: str, *, coalesced: bool) -> None:
        self.prefix = prefix
        self.coalesced = coalesced
        self.bell = Bell()
        self.changes: deque[Change] = deque()
        self.dirty: set[str] = set()
        self.known: set[str] = set()
        self.reset = False
        self.closed = False

    def offer(self, change: Change) -> None:
        """Keep what of `change` lies below the prefix."""
        changed = tuple(entry for entry in change.changed if entry.key.startswith(self.prefix))
        removed = tuple(key for key in change.removed if key.startswith(self.prefix))
        if not changed and not removed:
            return
        if self.coalesced:
            self.dirty.update((entry.key for entry in changed), removed)
        else:
            self.changes.append(Change(change.at, changed, removed))
        if len(self.changes) + len(self.dirty) > FEED_MAX:
            self.restart()
        self.bell.ring()

    def restart(self) -> None:
        """Forget the letters; the next one is the whole state."""
        self.changes.clear()
        self.dirty.clear()
        self.reset = True
        self.bell.ring()

    def close(self) -> None:
        self.closed = True
        self.bell.ring()

    def open(
        self, below: Callable[[], tuple[Entry, ...]], find: Callable[[str], Entry | None], revision: int
    ) -> list[Observation]:
        """Everything in the box, as what the observer is to be told."""
        self.bell.clear()
        if self.reset:
            self.reset = False
            entries = below()
            self.known = {entry.key for entry in entries}
            return [Observation(True, entries, (), revision)]
        if self.coalesced:
            return self._merged(find, revision)
        told = [Observation(False, c.changed, c.removed, c.at.revision) for c in self.changes]
        self.changes.clear()
        return told

    def _merged(self, find: Callable[[str], Entry | None], revision: int) -> list[Observation]:
        found = {key: find(key) for key in sorted(self.dirty)}
        self.dirty.clear()
        changed = tuple(entry for entry in found.values() if entry is not None)
        removed = tuple(key for key, entry in found.items() if entry is None and key in self.known)
        self.known.update(entry.key for entry in changed)
        self.known.difference_update(removed)
        return [Observation(False, changed, removed, revision)] if changed or removed else []
