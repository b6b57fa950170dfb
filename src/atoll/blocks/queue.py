"""Queue: work that somebody will do, once it was accepted, whoever dies.

A ticket rack: a worker takes a ticket, the ticket comes back by itself when the worker is gone, and a
ticket that nobody can do ends in a drawer with a note on it.

Promise: a message whose put returned is handed out until one worker acknowledged it in time or it lies
    among the dead with a reason; attempts are counted before the work; a late acknowledgement is refused.
What can break it: a broker that does not force its writes; a body whose effects are not in the
    transaction of an inbox, which a second attempt does again.
Proved by: atoll verify --workload queue
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from atoll import clock
from atoll.blocks.codec import FORMAT, FORMAT_HEADER, Codec
from atoll.blocks.delivery import Delivery
from atoll.errors import ConfigurationError
from atoll.ports.broker import Accepted, Broker, Message

T = TypeVar("T")
HandlerT = TypeVar("HandlerT", bound=Callable[..., Awaitable[None]])

Handler = Callable[[Any, Delivery], Awaitable[None]]

__all__ = ["Delivery", "Queue", "Worker", "names_known", "queues_named"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """How one function works on a queue. Times in seconds.

    `concurrency`: bodies at once in this process. `attempts`: how often a message is tried before it is
    buried. `recovery_s`: the lease; what a kill -9 costs. `run_s_max`: how long one body may keep its
    lease renewed; past it the body is stopped and the message returns. `retry_s`: the wait after a
    first failure, doubled for each further one, at most `retry_s_max`.
    """

    name: str
    run: Handler = field(repr=False)
    concurrency: int = 1
    attempts: int = 5
    recovery_s: float = 30.0
    run_s_max: float = 600.0
    retry_s: float = 1.0
    retry_s_max: float = 300.0

    def __post_init__(self) -> None:
        for what in ("concurrency", "attempts"):
            if getattr(self, what) < 1:
                raise ConfigurationError(
                    f"{what}={getattr(self, what)} of worker {self.name}; give 1 or more."
                )
        for what in ("retry_s", "retry_s_max"):
            if not getattr(self, what) >= 0:
                raise ConfigurationError(
                    f"{what}={getattr(self, what)} of worker {self.name}; give 0 or more seconds."
                )
        if not 0 < self.recovery_s <= self.run_s_max:
            raise ConfigurationError(
                f"recovery_s={self.recovery_s} of worker {self.name}; expected more than 0 and at most "
                f"run_s_max={self.run_s_max}. It is the lease that is renewed while the body runs."
            )


_known: weakref.WeakSet[Queue[Any]] = weakref.WeakSet()


def queues_named(name: str) -> list[Queue[Any]]:
    """The queues of this name declared in this process; an outbox finds its way by them."""
    return [queue for queue in _known if queue.name == name]


def names_known() -> list[str]:
    """The names of the queues declared in this process; an outbox carries for these."""
    return sorted({queue.name for queue in _known})


class Queue(Generic[T]):
    """Messages of one type under one name on a broker.

    Several functions may work on one queue: each gets every message, with attempts and dead letters of
    its own; several processes that run the same function share them. All processes that work on a
    queue import the same module.
    """

    def __init__(self, broker: Broker, name: str, message: type[T]) -> None:
        if not name or len(name.encode()) > 200 or "/" in name:
            raise ConfigurationError(
                f"found the queue name {name!r}; expected 1 to 200 bytes without '/'. Choose another."
            )
        self.broker = broker
        self.name = name
        self.codec: Codec[T] = Codec(message)
        self.workers: list[Worker] = []
        _known.add(self)

    def __repr__(self) -> str:
        return f"<Queue {self.name} on {self.broker.url}>"

    async def put(
        self,
        message: T,
        *,
        id: str | None = None,
        key: str | None = None,
        delay_s: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Durable when it returns; answers the message's id.

        The same `id` put again within the broker's window does nothing. OutcomeUnknown: put it again
        under the same id.
        """
        made = self.message(message, id=id, key=key, delay_s=delay_s, headers=headers)
        await self.broker.put(self.name, [made])
        return made.id

    async def put_many(self, messages: Sequence[T]) -> list[str]:
        """All of them or none, in one write; answers their ids."""
        made = [self.message(m) for m in messages]
        answers = await self.broker.put(self.name, made)
        assert len(answers) == len(made) and all(isinstance(a, Accepted) for a in answers)
        return [m.id for m in made]

    def message(
        self,
        value: T,
        *,
        id: str | None = None,
        key: str | None = None,
        delay_s: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> Message:
        """The envelope of one value, as a broker or an outbox carries it."""
        return Message(
            id=id or clock.unique_id(),
            body=self.codec.encode(value),
            key=key,
            delay_s=delay_s,
            headers={**(headers or {}), FORMAT_HEADER: str(FORMAT)},
        )

    def worker(
        self,
        *,
        concurrency: int = 1,
        attempts: int = 5,
        recovery_s: float = 30.0,
        run_s_max: float = 600.0,
        retry_s: float = 1.0,
    ) -> Callable[[Callable[[T, Delivery], Awaitable[None]]], Callable[[T, Delivery], Awaitable[None]]]:
        """Have a function work on this queue. It stays a plain function; `atoll work` runs it.

        The words are those of `Worker`.
        """

        def register(
            function: Callable[[T, Delivery], Awaitable[None]],
        ) -> Callable[[T, Delivery], Awaitable[None]]:
            self.register(
                Worker(
                    name=function.__name__,
                    run=function,
                    concurrency=concurrency,
                    attempts=attempts,
                    recovery_s=recovery_s,
                    run_s_max=run_s_max,
                    retry_s=retry_s,
                )
            )
            return function

        return register

    def register(self, worker: Worker) -> None:
        """Add a worker; its name must be new on this queue, for its messages wait under it."""
        if any(other.name == worker.name for other in self.workers):
            raise ConfigurationError(
                f"queue {self.name} has a worker named {worker.name} already; "
                "its messages wait under that name. Rename one of the functions."
            )
        self.workers.append(worker)

    async def work(self) -> None:
        """Run this queue's workers in this process until cancelled; then drain for a moment."""
        from atoll.blocks.work import work

        await work([self])
