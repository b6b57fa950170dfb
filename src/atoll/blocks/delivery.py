"""Delivery: one message in one worker's hands, for as long as its lease lasts.

A library book with a due date: you may renew it so many times; after that it is someone else's, and
bringing it back late changes nothing.

Promise: while `check()` returns, no other worker holds this delivery, by this host's lease clock.
What can break it: a body that never asks and never awaits; its late acknowledgement is refused instead.
Proved by: atoll verify --workload queue
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from atoll import clock
from atoll.errors import DeliveryLost, UsedAfterFork
from atoll.ports.broker import Taken


class Delivery:
    """What a worker knows of the message it works on.

    `id`: the message's; `attempt`: 1 the first time, counted before the body began; `put_at`: wall clock.
    """

    def __init__(self, taken: Taken, queue: str, id: str | None = None) -> None:
        self._taken = taken
        self._id = id or taken.message.id
        self._pid = os.getpid()
        self.queue = queue
        self.lease_until = taken.lease_until
        self.lost = False

    def __repr__(self) -> str:
        return f"<Delivery {self.id} of {self.queue}, attempt {self.attempt}>"

    @property
    def id(self) -> str:
        return self._id

    @property
    def key(self) -> str | None:
        return self._taken.message.key

    @property
    def headers(self) -> Mapping[str, str]:
        return self._taken.message.headers

    @property
    def attempt(self) -> int:
        return self._taken.attempt

    @property
    def put_at(self) -> float:
        return self._taken.put_at

    @property
    def receipt(self) -> str:
        return self._taken.receipt

    def check(self) -> None:
        """Raise DeliveryLost when the lease is over; for loops and threads, which cannot be cancelled."""
        if os.getpid() != self._pid:
            raise UsedAfterFork(
                f"delivery {self.id} of {self.queue} was taken by process {self._pid}; this is its child "
                f"{os.getpid()}. Take messages in the process that works on them."
            )
        if self.lost or (self.lease_until is not None and clock.lease_now() >= self.lease_until):
            self.lost = True
            raise DeliveryLost(
                f"the lease of message {self.id} of {self.queue} (attempt {self.attempt}) is over; "
                "it goes to another worker. Raise recovery_s or run_s_max if its work is slow."
            )
