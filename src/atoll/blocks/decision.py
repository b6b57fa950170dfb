"""Decisions: the book in which it stands how a transaction over several databases ended.

One line for each, written only where none stands; its outcome never changes. Coordinator and recovery write
into the same book, so the first of them decides, and everybody else reads.

Promise: of one transaction there is at most one decision, and whoever reads it reads the same.
What can break it: a state store that forgets acknowledged writes; removing the keys by hand.
Proved by: tests/blocks/test_transaction_kill.py, tests/algorithms/test_two_phase.py, make demo
"""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec

from atoll import clock
from atoll.algorithms.backoff import full_jitter
from atoll.algorithms.two_phase import Decision, NotKnown, NotRecorded, Recorded
from atoll.errors import ConfigurationError, NotApplied, OutcomeUnknown
from atoll.ports.register import Applied, Entry
from atoll.ports.store import Durable, Put, Store, StoreClaims, absent, put

DECISIONS = "transaction/"
COORDINATORS = "transaction-coordinator/"
FORMAT = 1


class Record(msgspec.Struct, frozen=True):
    """A line of the book. `at`: wall clock. `by`: the instance that wrote it; `taken_by`: who finishes it."""

    outcome: Literal["commit", "abort"]
    databases: tuple[str, ...]
    at: float
    by: str
    taken_by: str = ""
    taken_at: float = 0.0
    format: int = FORMAT


def key_of(id: str) -> str:
    """Where the decision of `id` stands."""
    return f"{DECISIONS}{id}"


def read(entry: Entry) -> Record:
    """The decision in an entry; ConfigurationError for one that is not ours or from the future."""
    try:
        record = msgspec.json.decode(entry.value, type=Record)
    except msgspec.DecodeError as error:
        raise ConfigurationError(
            f"{entry.key} is no decision of a transaction ({error}). Nothing else may be below {DECISIONS}."
        ) from error
    if record.format > FORMAT:
        raise ConfigurationError(
            f"{entry.key} has format {record.format}; this release reads up to {FORMAT}. Upgrade here too."
        )
    return record


def line(id: str, record: Record) -> Put:
    """The write of a record."""
    return put(key_of(id), msgspec.json.encode(record))


def instance_of(id: str) -> str:
    """The instance that coordinates `id`."""
    return id.rpartition("/")[2].split("-")[1] if id.count("-") >= 2 else ""


def epoch_of(id: str) -> int:
    """The store's epoch in which `id` began; 0 if it does not say."""
    text = id.rpartition("/")[2].split("-")[0]
    return int(text) if text.isdigit() else 0


async def lookup(store: Store, id: str) -> tuple[Record, int] | None:
    """The decision of `id` and the revision it stands at, None if there is none."""
    entry, _ = await store.get(key_of(id))
    return None if entry is None else (read(entry), entry.revision)


async def record_commit(
    store: Store, id: str, record: Record, due: float
) -> Recorded | NotRecorded | NotKnown:
    """Write "commit" where nothing stands, asking again until it is known or `due` by the loop clock.

    The write may be asked for twice: the second finds the first, and both say the same.
    """
    doubtful = False
    attempt = 0
    while True:
        try:
            async with asyncio.timeout_at(due):
                answer = await store.transact(line(id, record), compare=[absent(key_of(id))])
            return Recorded("commit") if isinstance(answer, Applied) else _found(answer.entries[key_of(id)])
        except (OutcomeUnknown, TimeoutError):
            doubtful = True
        except NotApplied:
            if not doubtful:
                return NotRecorded()
        attempt += 1
        pause = full_jitter(attempt, clock.chance().random(), first_s=0.02, ceiling_s=0.5, floor_s=0.005)
        if clock.loop_now() + pause >= due:
            return NotKnown()
        await asyncio.sleep(pause)


def _found(entry: Entry | None) -> Recorded:
    assert entry is not None, "the comparison was: absent"
    decision: Decision = read(entry).outcome
    return Recorded(decision)


def refuse_weak(store: Store, claims: StoreClaims) -> None:
    """ConfigurationError for a store that may forget a decision."""
    weak = ""
    if claims.durable is Durable.NONE:
        weak = "forgets everything when its process ends"
    elif claims.forgets_at_failover:
        weak = "may forget an acknowledged write when it fails over"
    elif not claims.linearizable:
        weak = "may answer with what is out of date"
    if weak:
        raise ConfigurationError(
            f"{store!r} {weak}, so a decision could be lost after half of the databases have followed it. "
            "Keep the decisions in a durable store (sqlite:///state.db), or say best_effort=True for a test."
        )
