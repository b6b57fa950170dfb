"""Work: takes messages, runs bodies, renews leases, settles what became of each.

The foreman of one process. It hands out no more than the benches hold, keeps every ticket renewed while
its body really runs, and when the whistle blows takes nothing new and lets the hands finish.

Promise: a body runs only while its message is leased to this process, as far as a body that awaits can
    be stopped; what fails comes back later, what fails too often is buried with the reason.
What can break it: a busy event loop cannot renew; the lease then ends, another worker gets the message,
    and this one's acknowledgement is refused as late.
Proved by: atoll verify --workload queue
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any

from atoll import clock
from atoll.blocks.codec import Undecodable
from atoll.blocks.delivery import Delivery
from atoll.blocks.queue import Queue, Worker
from atoll.errors import AtollError, ConfigurationError, DeliveryLost, NotApplied, OutcomeUnknown
from atoll.ports.broker import Message, Settled, Taken
from atoll.ports.observer import DeliveryExpired, DeliveryFailed, emit

log = logging.getLogger("atoll.queue")

WAIT_S = 1.0
LOOK_EVERY_S = 5.0
SETTLE_S = 10.0
REASON_BYTES_MAX = 4000
FAN_OUT = 100


async def work(
    queues: Sequence[Queue[Any]], *, stop: asyncio.Event | None = None, drain_s: float = 20.0
) -> None:
    """Run every worker of `queues` until `stop` is set or this is cancelled.

    After `stop` nothing new is taken and running bodies have `drain_s` seconds; then, and at once when
    cancelled, they are cancelled and their messages given back.
    """
    whistle = stop or asyncio.Event()
    loops: list[Coroutine[Any, Any, None]] = []
    for queue in queues:
        if not queue.workers:
            raise ConfigurationError(f"queue {queue.name} has no worker; decorate one with @worker().")
        await queue.broker.open()
        loops += [Bench(queue, worker, drain_s).run(whistle) for worker in queue.workers]
        if len(queue.workers) > 1:
            loops.append(fan_out(queue, whistle))
    async with asyncio.TaskGroup() as group:
        for loop in loops:
            group.create_task(loop)


def own_queue(queue: Queue[Any], worker: Worker) -> str:
    """Where a worker's own copies wait when several functions work on one queue."""
    return f"{queue.name}/{worker.name}"


async def fan_out(queue: Queue[Any], whistle: asyncio.Event) -> None:
    """Copy each message to every worker's own queue, then acknowledge it.

    Copies are named after the message, so doing it twice puts nothing twice within the broker's window.
    """
    pause = Pause(f"queue {queue.name}")
    while not whistle.is_set():
        try:
            taken = await queue.broker.take(queue.name, FAN_OUT, lease_s=30.0, wait_s=WAIT_S)
            if not taken:
                continue
            for worker in queue.workers:
                await queue.broker.put(own_queue(queue, worker), [copy(t.message, worker) for t in taken])
            await queue.broker.acknowledge(queue.name, [t.receipt for t in taken])
            pause.over()
        except (NotApplied, OutcomeUnknown) as error:
            await pause.after(error)


def copy(message: Message, worker: Worker) -> Message:
    return Message(
        id=f"{message.id}/{worker.name}", body=message.body, key=message.key, headers=message.headers
    )


class Pause:
    """Waits longer after each failure in a row, and says so once."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._failures = 0

    async def after(self, error: Exception) -> None:
        if not self._failures:
            log.warning("%s: %s; trying again", self._what, error)
        self._failures = min(self._failures + 1, 8)
        await asyncio.sleep(min(5.0, 0.05 * 2**self._failures) * clock.chance().uniform(0.5, 1.0))

    def over(self) -> None:
        if self._failures:
            log.info("%s: works again", self._what)
        self._failures = 0


class Bench:
    """One worker function of one queue in this process, with its places."""

    def __init__(self, queue: Queue[Any], worker: Worker, drain_s: float) -> None:
        self._queue = queue
        self._worker = worker
        self._drain_s = drain_s
        self._free = asyncio.Semaphore(worker.concurrency)
        self._busy: set[asyncio.Task[None]] = set()
        self._look_again = 0.0

    async def run(self, whistle: asyncio.Event) -> None:
        """Take and do until the whistle, then let the hands finish."""
        try:
            await self._take_on(whistle)
            if self._busy:
                await asyncio.wait(self._busy, timeout=self._drain_s)
        finally:
            for task in self._busy:
                task.cancel()
            if self._busy:
                await asyncio.wait(self._busy, timeout=SETTLE_S)

    async def _take_on(self, whistle: asyncio.Event) -> None:
        pause = Pause(f"queue {self._queue.name}: {self._worker.name}")
        while await self._place(whistle):
            room = 1
            while room < self._worker.concurrency and not self._free.locked():
                await self._free.acquire()
                room += 1
            sent = clock.lease_now()
            taken: Sequence[Taken] = ()
            try:
                taken = await self._take(room)
                pause.over()
            except (NotApplied, OutcomeUnknown) as error:
                await pause.after(error)
            finally:
                for _ in range(room - len(taken)):
                    self._free.release()
            for one in taken:
                self._start(Hand(self._queue, self._worker, one, sent))

    async def _take(self, room: int) -> Sequence[Taken]:
        """From the worker's own queue if there are several workers; else from the queue itself.

        Alone, it still looks into its own queue now and then: another worker may have gone since.
        """
        lease_s, own = self._worker.recovery_s, own_queue(self._queue, self._worker)
        if len(self._queue.workers) > 1:
            return await self._queue.broker.take(own, room, lease_s=lease_s, wait_s=WAIT_S)
        if clock.loop_now() >= self._look_again:
            self._look_again = clock.loop_now() + LOOK_EVERY_S
            if left := await self._queue.broker.take(own, room, lease_s=lease_s):
                self._look_again = 0.0
                return left
        return await self._queue.broker.take(self._queue.name, room, lease_s=lease_s, wait_s=WAIT_S)

    async def _place(self, whistle: asyncio.Event) -> bool:
        """Wait for a free place; False when the whistle is blown first."""
        if not self._free.locked():
            await self._free.acquire()
            return self._unless(whistle)
        place, blown = asyncio.create_task(self._free.acquire()), asyncio.create_task(whistle.wait())
        try:
            await asyncio.wait({place, blown}, return_when=asyncio.FIRST_COMPLETED)
            return place.done() and self._unless(whistle)
        finally:
            place.cancel()
            blown.cancel()

    def _unless(self, whistle: asyncio.Event) -> bool:
        if whistle.is_set():
            self._free.release()
        return not whistle.is_set()

    def _start(self, hand: Hand) -> None:
        task = asyncio.create_task(hand.do(), name=f"{self._worker.name} {hand.delivery.id}")
        self._busy.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._busy.discard(task)
            self._free.release()
            if not task.cancelled() and (error := task.exception()):
                log.error("queue %s: settling failed", self._queue.name, exc_info=error)

        task.add_done_callback(done)


class Hand:
    """One message being worked on: its body, the renewing of its lease, and what became of it."""

    def __init__(self, queue: Queue[Any], worker: Worker, taken: Taken, sent: float) -> None:
        self._broker = queue.broker
        self._queue = queue
        self._worker = worker
        self._taken = taken
        self._began = sent
        copied = taken.queue == own_queue(queue, worker)  # then its id has the worker's name behind it
        self.delivery = Delivery(
            taken, queue.name, taken.message.id.removesuffix(f"/{worker.name}") if copied else None
        )
        self._why_lost = ""

    async def do(self) -> None:
        """Run the body under its lease and settle the message. Raises only when cancelled."""
        if self._taken.attempt > self._worker.attempts:
            died = f"tried {self._worker.attempts} times; the last worker died or lost its lease"
            await self._settle(died, bury=True)
            return
        try:
            value = self._queue.codec.decode(self._taken.message.body, self._taken.message.headers)
        except Undecodable as error:
            await self._settle(str(error), bury=True)
            return
        body = asyncio.ensure_future(self._worker.run(value, self.delivery))
        renewing = asyncio.create_task(self._renew(body))
        try:
            reason = await self._outcome(body)
        except asyncio.CancelledError:
            stopped = body.cancel() and not self._why_lost  # it did not fail: a deploy is no attempt
            await asyncio.wait([body], timeout=SETTLE_S)
            await asyncio.shield(self._bounded(self._leave(counted=not stopped)))
            raise
        finally:
            renewing.cancel()
        if reason is None:
            await self._acknowledge()
        else:
            await self._settle(reason, bury=self._taken.attempt >= self._worker.attempts)

    async def _outcome(self, body: asyncio.Future[None]) -> str | None:
        """None when the body finished in time, else why it did not."""
        await asyncio.wait([body])
        if body.cancelled():
            return self._why_lost or "the body was cancelled"
        error = body.exception()
        if error is None:
            with contextlib.suppress(DeliveryLost):
                self.delivery.check()
                return None
            return self._why_lost or "the body outlived its lease"
        if isinstance(error, DeliveryLost):
            return self._why_lost or str(error)
        log.warning("queue %s: %s failed", self._queue.name, self.delivery, exc_info=error)
        text = "".join(traceback.format_exception(error))
        return f"{type(error).__name__}: {error}\n{text[-REASON_BYTES_MAX:]}"

    async def _renew(self, body: asyncio.Future[None]) -> None:
        """Keep the lease until the body is done, for at most `run_s_max`; then stop the body."""
        leased = self._broker.leased
        if leased is None or self.delivery.lease_until is None:
            return
        step = self._worker.recovery_s / 3
        while True:
            now = clock.lease_now()
            ends = self._began + self._worker.run_s_max
            await asyncio.sleep(max(0.0, min(step, self.delivery.lease_until - now, ends - now)))
            now = clock.lease_now()
            if now >= ends:
                self._lose(body, f"ran longer than run_s_max={self._worker.run_s_max:g} s")
                return
            if now >= self.delivery.lease_until:
                self._lose(body, "its lease could not be renewed in time")
                return
            with contextlib.suppress(AtollError, TimeoutError):
                # No longer than the lease: a broker that does not answer must not keep the body running.
                async with asyncio.timeout(min(self.delivery.lease_until, ends) - now):
                    granted = await leased.extend(
                        self._taken.queue, self._taken.receipt, self._worker.recovery_s
                    )
                if granted is None:
                    self._lose(body, "its lease was over when it was renewed")
                    return
                self.delivery.lease_until = now + granted
                step = self._worker.recovery_s / 3
                continue
            step = self._worker.recovery_s / 20

    def _lose(self, body: asyncio.Future[None], why: str) -> None:
        self._why_lost = why
        self.delivery.lost = True
        body.cancel()

    async def _acknowledge(self) -> None:
        """Tell the broker until it answers or the lease is over; asking twice is harmless."""
        pause = Pause(f"queue {self._taken.queue}: acknowledging {self.delivery.id}")
        due = clock.lease_now() + SETTLE_S
        while True:
            try:
                [answer] = await self._broker.acknowledge(self._taken.queue, [self._taken.receipt])
            except (NotApplied, OutcomeUnknown) as error:
                if clock.lease_now() >= due:
                    self._expired(f"could not be acknowledged: {error}")
                    return
                await pause.after(error)
                continue
            if answer is not Settled.ACKED:
                self._expired("was acknowledged too late; another worker does it again")
            return

    async def _leave(self, *, counted: bool) -> None:
        """Give it back at once, because the worker was stopped."""
        giving = self._broker.give_back(self._taken.queue, self._taken.receipt, counted=counted)
        await self._settled(giving, "the worker was stopped", buried=False)

    async def _settle(self, reason: str, *, bury: bool) -> None:
        """Bury it, or give it back after a while."""
        name, receipt = self._taken.queue, self._taken.receipt
        if bury:
            ending = self._broker.bury(name, receipt, reason[:REASON_BYTES_MAX])
        else:
            ending = self._broker.give_back(name, receipt, delay_s=self._retry_s())
        await self._settled(ending, reason, buried=bury)

    async def _settled(self, ending: Awaitable[Settled], reason: str, *, buried: bool) -> None:
        name = self._taken.queue
        try:
            answer = await ending
        except AtollError as error:
            self._expired(f"{reason.splitlines()[0]}; and could not be given back: {error}")
            return
        if answer is not Settled.ACKED:
            self._expired(reason.splitlines()[0])
            return
        attempt = self._taken.attempt
        if buried:
            log.error("queue %s: %s is buried: %s", name, self.delivery.id, reason.splitlines()[0])
        emit(
            DeliveryFailed(
                at=clock.wall_now(),
                name=name,
                message_id=self.delivery.id,
                attempt=attempt,
                reason=reason,
                buried=buried,
            )
        )

    def _retry_s(self) -> float:
        doubled = self._worker.retry_s * 2.0 ** min(self._taken.attempt - 1, 30)
        return min(self._worker.retry_s_max, doubled) * clock.chance().uniform(0.5, 1.0)

    def _expired(self, why: str) -> None:
        log.warning(
            "queue %s: %s, attempt %d: %s", self._taken.queue, self.delivery.id, self._taken.attempt, why
        )
        emit(
            DeliveryExpired(
                at=clock.wall_now(),
                name=self._taken.queue,
                message_id=self.delivery.id,
                attempt=self._taken.attempt,
            )
        )

    @staticmethod
    async def _bounded(settling: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await settling
