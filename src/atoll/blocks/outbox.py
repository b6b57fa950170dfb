"""Outbox: a message that leaves if and only if your transaction committed.

You drop the letter into your own out-tray in the same stroke as you sign the order. If the stroke is
undone the letter was never there; if it stands, a messenger carries it, again and again until it is there.

Promise: a message staged in a committed transaction reaches its queue at least once, under the same id;
    one staged in a transaction that rolled back never does.
What can break it: nobody runs `relay()`; a broker that forgets ids sooner than a relay is down hands a
    message out twice, which an inbox makes harmless.
Proved by: tests/blocks/test_outbox.py, the airline demo's outbox fault points
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar

from atoll import clock
from atoll.blocks.queue import Queue, names_known, queues_named
from atoll.errors import ConfigurationError, LimitReached, NotApplied, OutcomeUnknown
from atoll.ports.broker import Broker
from atoll.ports.joined import Database, Staged, joined_on

T = TypeVar("T")
log = logging.getLogger("atoll.outbox")

BATCH = 200
CLAIM_S = 3.0
LOOK_EVERY_S = 5.0


class Outbox:
    """Stages messages in transactions of `database`, and carries them to their queues.

    `idle_s_max`: how late an idle relay notices a message, in seconds.
    """

    def __init__(self, database: Database, *, idle_s_max: float = 0.25) -> None:
        self.database = database
        self._idle_s_max = idle_s_max
        self._unknown: set[str] = set()
        self._look_again = 0.0
        self._held: list[Staged] = []
        self._held_until = 0.0

    def __repr__(self) -> str:
        return f"<Outbox of {self.database.name}>"

    async def put(
        self,
        tx: Any,
        queue: Queue[T],
        message: T,
        *,
        id: str | None = None,
        key: str | None = None,
        delay_s: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Stage in the open transaction `tx`; answers the message's id. Commits nothing."""
        made = queue.message(message, id=id, key=key, delay_s=delay_s, headers=headers)
        await joined_on(tx).put(tx, queue.name, [made])
        return made.id

    async def relay(self) -> None:
        """Carry what was committed, until cancelled. Any number of processes may run it."""
        await self.database.open()
        idle, failures = 0.0, 0
        while True:
            try:
                moved = await self.relay_once()
                failures = 0
            except (NotApplied, OutcomeUnknown) as error:
                moved, failures = 0, min(failures + 1, 7)
                if failures == 1:
                    log.warning("outbox of %s: %s; trying again", self.database.name, error)
            idle = 0.0 if moved else min(self._idle_s_max, idle * 2 or 0.01)
            if not moved:
                await asyncio.sleep((idle + 0.05 * (2**failures - 1)) * clock.chance().uniform(0.5, 1.0))

    async def relay_once(self) -> int:
        """Carry one batch; answers how many messages left. For tests, and for `relay`."""
        now = clock.lease_now()
        held = self._held if now < self._held_until else []
        self._held = []  # what a broker in trouble did not take is tried again while its claim is ours
        if not held:
            self._held_until = now + CLAIM_S
        relaying, room = self.database.relaying, BATCH - len(held)
        known = names_known()
        found = await relaying.staged(room, claim_s=CLAIM_S, queues=known) if known and room else ()
        staged = [*held, *found]
        if not staged:
            await self._say_unknown()
        moved, failed = 0, None
        for name, group in groupby(
            sorted(staged, key=lambda s: (s.queue, s.position)), key=lambda s: s.queue
        ):
            if (broker := self._broker_of(name)) is None:
                continue  # its declaration went since it was staged; the claim ends by itself
            try:
                moved += await self._carry(broker, name, mine := list(group))
            except (NotApplied, OutcomeUnknown) as error:  # one queue's trouble is not the others'
                failed = error
                self._held += mine
        if failed is not None and not moved:
            raise failed
        return moved

    async def _carry(self, broker: Broker, name: str, staged: Sequence[Staged]) -> int:
        """Put first, forget after: a crash in between puts again under the same ids."""
        most = (await broker.open()).messages_max
        moved = 0
        for start in range(0, len(staged), most):
            part = staged[start : start + most]
            try:
                await broker.put(name, [s.message for s in part])
            except LimitReached:
                part = await self._carry_each(broker, name, part)
            await self.database.relaying.forget([s.position for s in part])
            moved += len(part)
        return moved

    async def _carry_each(self, broker: Broker, name: str, staged: Sequence[Staged]) -> list[Staged]:
        """One by one, so that a message the broker never takes does not hold up those beside it."""
        carried: list[Staged] = []
        refused: list[tuple[Staged, LimitReached]] = []
        for one in staged:
            try:
                await broker.put(name, [one.message])
                carried.append(one)
            except LimitReached as error:
                refused.append((one, error))
            except (NotApplied, OutcomeUnknown):
                break
        if refused:
            log.error(
                "outbox of %s: %d messages of %s stay staged, the first is %s: %s",
                self.database.name,
                len(refused),
                name,
                refused[0][0].message.id,
                refused[0][1],
            )
        return carried

    def _broker_of(self, name: str) -> Broker | None:
        brokers = {id(q.broker): q.broker for q in queues_named(name)}
        if len(brokers) > 1:
            raise ConfigurationError(
                f"two queues named {name} on different brokers are declared in this process, so the "
                f"outbox of {self.database.name} cannot tell where its messages go. Rename one."
            )
        return next(iter(brokers.values()), None)

    async def _say_unknown(self) -> None:
        """Once for each queue that another process must carry. Only when idle: it reads the whole outbox."""
        if clock.loop_now() < self._look_again:
            return
        self._look_again = clock.loop_now() + LOOK_EVERY_S
        for name in set(await self.database.relaying.queues()) - set(names_known()) - self._unknown:
            self._unknown.add(name)
            log.error(
                "outbox of %s: no queue named %s is declared in this process; its messages stay staged. "
                "Import the module that declares it.",
                self.database.name,
                name,
            )
