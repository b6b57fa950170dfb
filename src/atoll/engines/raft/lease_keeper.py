"""Lease keeper: at whoever leads, counts the leases and asks the log to end those whose time is over.

The warden with the keys to the parking meters. Only the one in office counts; who takes the office over gives
every car its whole time again, for nobody knows when it was last paid.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from atoll import clock
from atoll.algorithms.raft.events import Role
from atoll.algorithms.raft.lease_book import LeaseBook
from atoll.algorithms.raft.messages import Member, Term
from atoll.engines.raft import command
from atoll.engines.raft.consensus import Consensus
from atoll.engines.raft.declining import NotLeader
from atoll.errors import AtollError, NotApplied

log = logging.getLogger("atoll.raft")
TOGETHER_MAX = 500
"""Leases that end with one command."""
AGAIN_S = 0.1


class LeaseKeeper:
    """One member's. It counts only while this member leads."""

    def __init__(self, consensus: Consensus) -> None:
        self._consensus = consensus
        self._book = LeaseBook()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._armed = float("inf")
        self._tasks: set[asyncio.Task[None]] = set()
        consensus.on_became.append(self._became)
        consensus.state.on_leases.append(self._changed)
        if consensus.is_leader:
            self._lead()

    async def renew(self, lease: str) -> float | None:
        """The seconds granted anew, from after a majority confirmed that this member leads; None: it is over.

        Raises NotLeader where it does not: its successor counts by itself, and is to be asked.
        """
        await self._confirmed()
        granted = self._book.renew(lease, clock.lease_now())
        self._arm()
        return granted

    async def remaining(self, lease: str) -> float | None:
        """Seconds left, None where it is over; NotLeader where this member does not count."""
        await self._confirmed()
        return self._book.remaining(lease, clock.lease_now())

    async def _confirmed(self) -> None:
        """A majority has said, since this was called, that this member leads; and the book is up to date."""
        term = self._consensus.term
        self._check(term)
        await self._consensus.read_barrier()
        self._check(term)

    def _check(self, term: Term) -> None:
        consensus = self._consensus
        if not consensus.is_leader or consensus.term != term:
            raise NotLeader(
                f"{consensus.name} does not lead, so it counts no leases",
                leader=consensus.leader,
                place=consensus.leader_place if consensus.leader != consensus.name else "",
            )

    # -- who counts ------------------------------------------------------------------------------------

    def _became(self, role: Role, term: Term, leader: Member) -> None:
        if role is Role.LEADER:
            self._lead()
        else:
            self._book.depose()
            self._arm()

    def _lead(self) -> None:
        self._book.lead(clock.lease_now(), self._consensus.state.leases())
        self._arm()

    def _changed(self, news: dict[str, float | None]) -> None:
        """On the state's thread: leases were granted, or ended (None)."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._noted, news)

    def _noted(self, news: dict[str, float | None]) -> None:
        if not self._consensus.is_leader:
            return
        now = clock.lease_now()
        for lease, ttl_s in news.items():
            if ttl_s is None:
                self._book.ended(lease)
            else:
                self._book.granted(lease, ttl_s, now)
        self._arm()

    # -- ending ----------------------------------------------------------------------------------------

    def _arm(self) -> None:
        due = self._book.next_due
        if due == self._armed:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed = due
        if due != float("inf"):
            self._timer = self._loop.call_later(max(0.0, due - clock.lease_now()), self._ring)

    def _ring(self) -> None:
        self._timer, self._armed = None, float("inf")
        over = self._book.due(clock.lease_now())
        for at in range(0, len(over), TOGETHER_MAX):
            task = self._loop.create_task(self._end(over[at : at + TOGETHER_MAX]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._arm()

    async def _end(self, leases: Sequence[str]) -> None:
        """One command for all. They may be renewed again only where it certainly never applies."""
        consensus, term = self._consensus, self._consensus.term
        while consensus.is_leader and consensus.term == term:
            data = command.stamp(command.pack((command.Expire(tuple(leases)),)), clock.wall_now())
            try:
                await consensus.propose(data)
                return
            except NotApplied:
                await asyncio.sleep(AGAIN_S)
                self._book.withdraw(leases)
                self._arm()
                return
            except AtollError as error:
                log.info("the end of %d leases is not known yet: %s", len(leases), error)
                await asyncio.sleep(AGAIN_S)

    def close(self) -> None:
        """Count no more."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
