"""Counter: the state of one memory broker, as its server would keep it.

The rack of tickets behind the counter. What waits hangs in the order it may be handed out; what was
handed out lies by the time it comes back; what nobody could do has a drawer of its own.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from atoll import clock
from atoll.engines.memory.bell import Bell
from atoll.engines.memory.knobs import BrokerKnobs
from atoll.errors import LimitReached
from atoll.ports.broker import Accepted, Dead, Depth, Message, Settled, Taken


class End(Enum):
    """How a receipt ended."""

    ACKNOWLEDGED = "acknowledged"
    GIVEN_BACK = "given back"
    BURIED = "buried"
    OVER = "over"


@dataclass(slots=True)
class Item:
    """One message not acknowledged, in hand when it has a receipt."""

    message: Message
    number: int
    put_at: float
    put_lease_clock: float
    attempts: int = 0
    receipt: str | None = None
    lease_until: float = math.inf


@dataclass(slots=True)
class Line:
    """One queue. `waiting`: (handed out not before, number); `leases`: (end, number), both heaps."""

    items: dict[int, Item] = field(default_factory=dict)
    waiting: list[tuple[float, int]] = field(default_factory=list)
    leases: list[tuple[float, int]] = field(default_factory=list)
    dead: OrderedDict[int, Dead] = field(default_factory=OrderedDict)
    seen: OrderedDict[str, float] = field(default_factory=OrderedDict)
    receipts: dict[str, Item] = field(default_factory=dict)
    ended: OrderedDict[str, End] = field(default_factory=OrderedDict)
    bells: dict[Bell, None] = field(default_factory=dict)

    def ring(self) -> None:
        for bell in tuple(self.bells):
            bell.ring()


class Counter:
    """Queues by name. Safe to call from any thread and event loop."""

    def __init__(self, knobs: BrokerKnobs) -> None:
        self.knobs = knobs
        self.clock = clock.current()
        self.guarding = threading.RLock()
        self.number = 0
        self.lines: dict[str, Line] = {}

    def put(self, queue: str, messages: Sequence[Message]) -> Sequence[Accepted]:
        with self.guarding:
            line = self.lines.get(queue) or Line()
            if len(line.items) + len(line.dead) + len(messages) > self.knobs.waiting_max:
                raise LimitReached(
                    f"queue {queue!r} holds {len(line.items)} messages and {len(line.dead)} dead ones; "
                    f"at most {self.knobs.waiting_max} (waiting_max). Put again when some are done.",
                    retry_after_s=1.0,
                )
            self.lines[queue] = line
            outcomes = [self._put_one(line, message) for message in messages]
            line.ring()
            return outcomes

    def _put_one(self, line: Line, message: Message) -> Accepted:
        now = self.clock.lease_now()
        while line.seen and next(iter(line.seen.values())) <= now - self.knobs.dedupe_window_s:
            line.seen.popitem(last=False)
        if message.id in line.seen:
            return Accepted.DUPLICATE
        if self.knobs.dedupe_window_s > 0:
            line.seen[message.id] = now
            while len(line.seen) > self.knobs.dedupe_max:
                line.seen.popitem(last=False)
        self.number += 1
        line.items[self.number] = Item(message, self.number, self.clock.wall_now(), now)
        heapq.heappush(line.waiting, (now + message.delay_s, self.number))
        return Accepted.ACCEPTED

    def listen(self, queue: str, bell: Bell) -> None:
        with self.guarding:
            self.lines.setdefault(queue, Line()).bells[bell] = None

    def leave(self, queue: str, bell: Bell) -> None:
        with self.guarding:
            line = self.lines[queue]
            line.bells.pop(bell, None)
            if not (line.bells or line.items or line.dead or line.seen or line.ended):
                del self.lines[queue]

    def next_due_s(self, queue: str) -> float:
        """In how many seconds something of the queue comes due by itself; inf: nothing will."""
        with self.guarding:
            line = self.lines[queue]
            due = min((heap[0][0] for heap in (line.waiting, line.leases) if heap), default=math.inf)
            return due - self.clock.lease_now()

    def take(self, queue: str, most: int, lease_s: float, sent: float) -> Sequence[Taken]:
        with self.guarding:
            line = self.lines.get(queue)
            if line is None:
                return []
            self.sweep(line)
            now = self.clock.lease_now()
            taken: list[Taken] = []
            while line.waiting and line.waiting[0][0] <= now and len(taken) < most:
                item = line.items[heapq.heappop(line.waiting)[1]]
                taken.append(self._hand_out(line, queue, item, lease_s, sent))
            if taken:
                line.ring()
            return taken

    def _hand_out(self, line: Line, queue: str, item: Item, lease_s: float, sent: float) -> Taken:
        item.attempts += 1
        item.receipt = f"{self.clock.chance.getrandbits(64):016x}"
        line.receipts[item.receipt] = item
        until: float | None = None
        if self.knobs.leased:
            item.lease_until = self.clock.lease_now() + lease_s
            heapq.heappush(line.leases, (item.lease_until, item.number))
            until = sent + lease_s
        return Taken(
            queue=queue,
            message=item.message,
            receipt=item.receipt,
            attempt=item.attempts,
            lease_until=until,
            put_at=item.put_at,
        )

    def sweep(self, line: Line) -> None:
        """Hang back whatever was in hand for too long."""
        now = self.clock.lease_now()
        while line.leases and line.leases[0][0] <= now:
            until, number = heapq.heappop(line.leases)
            item = line.items.get(number)
            if item is not None and item.receipt is not None and item.lease_until == until:
                self._let_go(line, item, End.OVER)
                heapq.heappush(line.waiting, (until, number))

    def _let_go(self, line: Line, item: Item, end: End) -> None:
        assert item.receipt is not None
        del line.receipts[item.receipt]
        line.ended[item.receipt] = end
        item.receipt = None
        while len(line.ended) > self.knobs.receipts_max:
            line.ended.popitem(last=False)

    def _in_hand(self, queue: str, receipt: str, verb: End) -> tuple[Line, Item] | Settled:
        """The item that the receipt holds; or what to answer, because it holds nothing any more."""
        line = self.lines.get(queue)
        if line is None:
            return Settled.UNKNOWN
        self.sweep(line)
        if receipt in line.receipts:
            return line, line.receipts[receipt]
        end = line.ended.get(receipt)
        if end is None:
            return Settled.UNKNOWN
        return Settled.ACKED if end is verb else Settled.LATE

    def acknowledge(self, queue: str, receipts: Sequence[str]) -> Sequence[Settled]:
        with self.guarding:
            return [self.acknowledge_one(queue, receipt) for receipt in receipts]

    def acknowledge_one(self, queue: str, receipt: str) -> Settled:
        held = self._in_hand(queue, receipt, End.ACKNOWLEDGED)
        if isinstance(held, Settled):
            return held
        line, item = held
        self._let_go(line, item, End.ACKNOWLEDGED)
        del line.items[item.number]
        return Settled.ACKED

    def give_back(self, queue: str, receipt: str, delay_s: float, counted: bool = True) -> Settled:
        with self.guarding:
            held = self._in_hand(queue, receipt, End.GIVEN_BACK)
            if isinstance(held, Settled):
                return held
            line, item = held
            self._let_go(line, item, End.GIVEN_BACK)
            if not counted and self.knobs.uncounts:
                item.attempts -= 1
            heapq.heappush(line.waiting, (self.clock.lease_now() + delay_s, item.number))
            line.ring()
            return Settled.ACKED

    def bury(self, queue: str, receipt: str, reason: str) -> Settled:
        with self.guarding:
            held = self._in_hand(queue, receipt, End.BURIED)
            if isinstance(held, Settled):
                return held
            line, item = held
            self._let_go(line, item, End.BURIED)
            del line.items[item.number]
            line.dead[item.number] = Dead(
                queue=queue,
                message=item.message,
                attempts=item.attempts,
                reason=reason,
                buried_at=self.clock.wall_now(),
            )
            return Settled.ACKED

    def extend(self, queue: str, receipt: str, lease_s: float) -> float | None:
        with self.guarding:
            held = self._in_hand(queue, receipt, End.OVER)
            if isinstance(held, Settled):
                return None
            line, item = held
            item.lease_until = self.clock.lease_now() + lease_s
            heapq.heappush(line.leases, (item.lease_until, item.number))
            line.ring()
            return lease_s

    def depths(self) -> Sequence[Depth]:
        with self.guarding:
            return [self._depth(queue) for queue in sorted(self.lines)]

    def _depth(self, queue: str) -> Depth:
        line = self.lines[queue]
        self.sweep(line)
        now = self.clock.lease_now()
        ready = sum(due <= now for due, _ in line.waiting)
        oldest = min((item.put_lease_clock for item in line.items.values()), default=now)
        return Depth(
            queue=queue,
            ready=ready,
            delayed=len(line.waiting) - ready,
            leased=len(line.receipts),
            dead=len(line.dead),
            oldest_age_s=now - oldest,
        )

    def dead(self, queue: str, limit: int) -> Sequence[Dead]:
        with self.guarding:
            line = self.lines.get(queue)
            return list(line.dead.values())[:limit] if line else []

    def revive(self, queue: str, ids: Sequence[str]) -> int:
        with self.guarding:
            line = self.lines.get(queue)
            chosen = [n for n, dead in line.dead.items() if dead.message.id in set(ids)] if line else []
            for number in chosen:
                assert line is not None
                dead = line.dead.pop(number)
                now = self.clock.lease_now()
                line.items[number] = Item(dead.message, number, self.clock.wall_now(), now)
                heapq.heappush(line.waiting, (now, number))
                line.ring()
            return len(chosen)
