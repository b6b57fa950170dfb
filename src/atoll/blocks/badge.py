"""Badge: a key of our own that says "I am here", for as long as we live or until we take it off.

A name tag pinned on at the door. Nobody else has one like it, so whoever finds his own on the table knows
that it was pinned although nobody nodded; and who leaves without taking it off loses it with his lease.

Promise: after `take_off`, or a failed `put_on`, the key is gone, or under a lease that nobody new stands on
and that ends with its last holder.
What can break it: somebody who writes the key by hand.
Proved by: tests/blocks/test_recipes_weather.py
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence

from atoll.blocks.ownership import Doubt
from atoll.blocks.session import Session, again, finished, join
from atoll.errors import LeaseOver, NotApplied, OutcomeUnknown, UsedAfterFork
from atoll.ports.register import Applied, Entry, Unmet
from atoll.ports.store import Compare, Operation, Store, absent, delete, put, unchanged

log = logging.getLogger("atoll.lock")


class Badge:
    """One leased key, put on once and taken off once. `value` must be unlike everybody else's."""

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key = store, key
        self.value = b""
        self.entry: Entry | None = None
        self.off = asyncio.Event()
        """Set when the lease it hangs on is over."""
        self.session: Session | None = None
        self.in_doubt = False  # a write of ours never got an answer, and may happen yet
        self._in_flight = False
        self._pid = os.getpid()

    @property
    def alive(self) -> bool:
        """Whether the lease is certainly ours still."""
        return self.session is not None and self.session.left_s > 0

    @property
    def doubt(self) -> Doubt:
        return Doubt(self.store, (self.key,), self.value)

    def lease_ended(self, reason: str) -> None:
        log.debug("%s is gone: %s", self.key, reason)
        self.off.set()

    def not_forked(self, title: str) -> None:
        """Raise UsedAfterFork in a child of the process that put it on."""
        if os.getpid() != self._pid:
            raise UsedAfterFork(
                f"{title} was entered by process {self._pid}, this is its child {os.getpid()}. "
                "Enter it in the child itself, or fork before you enter it."
            )

    async def join(self, ttl_s: float) -> Session:
        """Stand on the session; raises what the store says."""
        self.session = await join(self.store, ttl_s, self)
        return self.session

    async def put_on(self, value: bytes, *also: Operation, compare: Sequence[Compare] = ()) -> Entry | Unmet:
        """Write the key, and `also`, if `compare` holds. Unmet: it does not, and nothing was written.

        Cancelled or failed, nothing is left behind.
        """
        assert self.session is not None
        self.value = value
        hang = put(self.key, value, lease=self.session.lease)
        try:
            answer = await again(lambda: self._send((hang, *also), (absent(self.key), *compare)))
            if isinstance(answer, Unmet):
                there = answer.entries.get(self.key)
                if there is None or there.value != value:
                    return answer
                self.entry = there  # it was applied before, and the answer was lost
            else:
                self.entry = answer.results[0]
        except BaseException:
            await finished(f"taking off {self.key}", self.take_off())
            raise
        assert self.entry is not None
        return self.entry

    async def touch(self) -> Entry | None:
        """Write it again as it is, so that its revision tells whoever waits for that. None: it is gone."""
        assert self.session is not None and self.entry is not None
        hang, same = (
            put(self.key, self.value, lease=self.session.lease),
            unchanged(self.key, self.entry.revision),
        )
        answer = await again(lambda: self._send((hang,), (same,)))
        there = answer.results[0] if isinstance(answer, Applied) else answer.entries.get(self.key)
        self.entry = there if there is not None and there.value == self.value else None
        return self.entry

    async def take_off(self, *also: Operation, compare: Sequence[Compare] = ()) -> Applied | Unmet | None:
        """Remove the key, and do `also`, if `compare` holds; None where there was nothing to remove."""
        session, self.session = self.session, None
        if session is None or os.getpid() != self._pid:
            return None
        doubtful, settled = self.in_doubt or self._in_flight, session.ended is not None
        answer: Applied | Unmet | None = None
        try:
            if not settled and (self.entry is not None or doubtful):
                ours = delete(self.key)
                answer = await again(lambda: self.store.transact(ours, *also, compare=compare))
                if isinstance(answer, Unmet):
                    self.session, settled = session, True
                    return answer
            settled = not doubtful
        except LeaseOver:
            settled = True
        finally:
            if not settled:
                session.retire(self.doubt.settle)
            if self.session is None:
                session.leave(self)
        return answer

    async def _send(self, then: Sequence[Operation], compare: Sequence[Compare]) -> Applied | Unmet:
        self._in_flight = True
        try:
            answer = await self.store.transact(*then, compare=compare)
        except OutcomeUnknown:
            self.in_doubt = True
            raise
        except NotApplied:
            self._in_flight = False
            raise
        self._in_flight = False
        return answer
