"""Observer: typed events go in, nothing comes back.

One ear for metrics, the dashboard's feed and verify's history. An event is something that changed,
said in the past tense; an observer that raises is dropped and said so once, never felt by the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

log = logging.getLogger("atoll.observer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something changed. `at`: wall clock, Unix seconds; `name`: of the lock, queue, transaction."""

    at: float
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LockAcquired(Event):
    owner: str
    token: str
    waited_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LockReleased(Event):
    owner: str
    token: str
    held_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LockWasLost(Event):
    """`reason`: what ended the lease, for people."""

    owner: str
    token: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderElected(Event):
    owner: str
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderEnded(Event):
    owner: str
    token: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFailed(Event):
    """`buried`: it went to the dead letters; else it comes again."""

    message_id: str
    attempt: int
    reason: str
    buried: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryExpired(Event):
    message_id: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionDecided(Event):
    """`by`: coordinator or recovery."""

    outcome: str
    by: str
    databases: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionTakenOver(Event):
    """Another instance finished what a dead one left."""

    outcome: str
    in_doubt_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberEvent(Event):
    """Something changed about the member `name`, as the member `seen_by` sees it."""

    seen_by: str
    address: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberJoined(MemberEvent):
    """It is in: for the first time, or again after it failed or left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSuspected(MemberEvent):
    """It does not answer; it still counts as in, and has time to object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRefuted(MemberEvent):
    """It was suspected and spoke up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFailed(MemberEvent):
    """It did not object in time. Behind a partition it may live; then it joins again one day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberLeft(MemberEvent):
    """It went of its own will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberUpdated(MemberEvent):
    """Its metadata or its address changed."""


Observer = Callable[[Event], None]

_observers: list[Observer] = []


def subscribe(observer: Observer) -> Callable[[], None]:
    """Hear every event of this process from now on; call the answer to stop."""
    _observers.append(observer)

    def unsubscribe() -> None:
        if observer in _observers:
            _observers.remove(observer)

    return unsubscribe


def emit(event: Event) -> None:
    """Tell every observer."""
    for observer in tuple(_observers):
        try:
            observer(event)
        except Exception:
            _observers.remove(observer)
            log.exception("an observer raised and was dropped: %r", observer)
