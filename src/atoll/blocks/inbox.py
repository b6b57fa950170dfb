"""Inbox: a message whose effect on your rows happens once, however often it is delivered.

The clerk stamps the letter's number into the ledger in the same stroke as the booking. The same letter
tomorrow finds its stamp, and nothing is booked.

Promise: your rows and "seen" commit together, so a message takes effect at most once, and with its queue
    exactly once.
What can break it: effects outside the transaction; two inboxes with different databases for one effect.
Proved by: tests/blocks/test_inbox.py, the airline demo's inbox fault points
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from atoll.blocks.delivery import Delivery
from atoll.blocks.queue import Queue, Worker
from atoll.ports.joined import Database

T = TypeVar("T")
log = logging.getLogger("atoll.inbox")


class Inbox:
    """Remembers in `database`, in the worker's own transaction, which messages took effect."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def __repr__(self) -> str:
        return f"<Inbox of {self.database.name}>"

    def worker(
        self,
        queue: Queue[T],
        *,
        concurrency: int = 1,
        attempts: int = 5,
        recovery_s: float = 30.0,
        run_s_max: float = 600.0,
        retry_s: float = 1.0,
    ) -> Callable[[Callable[[T, Any], Awaitable[None]]], Callable[[T, Any], Awaitable[None]]]:
        """Have a function work on `queue` inside a transaction of this database.

        Its second argument is the transaction: a session for a SQLAlchemy engine. The words are those
        of `queue.worker`; the function stays a plain function.
        """

        def register(function: Callable[[T, Any], Awaitable[None]]) -> Callable[[T, Any], Awaitable[None]]:
            async def run(value: T, delivery: Delivery) -> None:
                await self._once(f"{queue.name}/{function.__name__}", function, value, delivery)

            queue.register(
                Worker(
                    name=function.__name__,
                    run=run,
                    concurrency=concurrency,
                    attempts=attempts,
                    recovery_s=recovery_s,
                    run_s_max=run_s_max,
                    retry_s=retry_s,
                )
            )
            return function

        return register

    async def _once(
        self, scope: str, function: Callable[[T, Any], Awaitable[None]], value: T, delivery: Delivery
    ) -> None:
        """One transaction: note the id, then do the work; both commit or neither does."""
        await self.database.open()
        async with self.database.begin() as tx:
            if await self.database.joined.once(tx, scope, delivery.id):
                await function(value, tx)
                delivery.check()
            else:
                log.info("inbox of %s: message %s was done before", self.database.name, delivery.id)
