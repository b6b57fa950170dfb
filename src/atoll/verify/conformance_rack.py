"""What the questions to a Broker share: put, take one, nothing left.

The gestures of somebody who tries out a ticket rack. Each does one thing and says what was odd about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atoll import clock
from atoll.ports.broker import Accepted, Broker, Depth, Inspecting, Leased, Message, Settled, Taken
from atoll.verify.conformance import NotTested, expect

Make = Callable[[], Broker]
LEASE_S = 0.3
LONG_S = 30.0
WAIT_S = 20.0


def message(body: bytes = b"x", *, delay_s: float = 0.0, id: str | None = None) -> Message:
    return Message(id=id or clock.unique_id(), body=body, delay_s=delay_s)


async def put(broker: Broker, queue: str, *messages: Message) -> None:
    """Put new messages, one put for as many as the claims allow."""
    most = (await broker.open()).messages_max
    for at in range(0, len(messages), most):
        outcomes = await broker.put(queue, messages[at : at + most])
        accepted = [Accepted.ACCEPTED] * len(messages[at : at + most])
        expect(list(outcomes) == accepted, f"putting new messages answered {outcomes}")


async def one(broker: Broker, queue: str, *, lease_s: float = LONG_S) -> Taken:
    """Take one; there must be one."""
    taken = await broker.take(queue, 1, lease_s=lease_s, wait_s=WAIT_S)
    expect(len(taken) == 1, f"taking one message answered {len(taken)}")
    return taken[0]


async def empty(broker: Broker, queue: str) -> None:
    taken = await broker.take(queue, 10, lease_s=LONG_S)
    expect(len(taken) == 0, f"nothing should be ready, and {[t.message.id for t in taken]} was handed out")


async def settled(calls: Sequence[Settled], *wanted: Settled) -> None:
    expect(list(calls) == list(wanted), f"answered {list(calls)}; expected {list(wanted)}")


def leased(broker: Broker) -> Leased:
    if broker.leased is None:
        raise NotTested("there are no leases")
    return broker.leased


def inspecting(broker: Broker) -> Inspecting:
    if broker.inspecting is None:
        raise NotTested("it cannot be inspected")
    return broker.inspecting


async def depth(broker: Broker, queue: str) -> Depth:
    found = [d for d in await inspecting(broker).depths() if d.queue == queue]
    expect(len(found) == 1, f"the queue {queue} has {len(found)} depths")
    return found[0]
