"""The counter workload: everybody adds one, asks again under the same request id where no answer came.

The turnstile of a museum. Each visitor turns it once; in the evening its number is the number of visitors,
also of those who pushed twice because it would not say whether it had moved.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from atoll import clock
from atoll.errors import AtollError, NotApplied, OutcomeUnknown
from atoll.ports.register import Applied
from atoll.ports.store import Store, put, unchanged
from atoll.verify.history import History, Type
from atoll.verify.judgement import Findings, Judgement
from atoll.verify.scenario import Claim, Hardship, Worker, Workload

TRIES = 4


async def count(worker: Worker) -> None:
    """Add one after another."""
    while worker.working():
        with suppress(NotApplied, OutcomeUnknown):
            await add_one(worker)
        await asyncio.sleep(0)


async def add_one(worker: Worker) -> None:
    """Read, and write one more if it is still the same; with the same request id until it is known."""
    store: Store = worker.handle
    key = f"{worker.prefix}count"
    claims = await store.open()
    request = clock.unique_id() if claims.dedupe_window_s else None
    entry = (await store.get(key)).entry
    before, revision = (0, 0) if entry is None else (int(entry.value), entry.revision)
    one_more = put(key, str(before + 1).encode())
    call = worker.book.begin(worker.process, "count", before + 1)
    turns = TRIES if request else 1
    for turn in range(turns):
        try:
            answer = await store.transact(one_more, compare=[unchanged(key, revision)], request_id=request)
        except OutcomeUnknown as error:
            if turn + 1 < turns and worker.working():
                await asyncio.sleep(0.02)
                continue
            worker.book.end(call, Type.INFO, error=type(error).__name__)
            raise
        except NotApplied as error:
            # After an unknown try this says only that the last one did nothing.
            worker.book.end(call, Type.INFO if turn else Type.FAIL, error=type(error).__name__)
            raise
        if isinstance(answer, Applied):
            worker.book.end(call, Type.OK, before + 1, revision=answer.revision)
        else:
            worker.book.end(call, Type.INFO if turn else Type.FAIL, error="Unmet")
        return


async def read_it(worker: Worker) -> None:
    """Read the number in the end."""
    store: Store = worker.handle
    while worker.working():
        try:
            entry = (await store.get(f"{worker.prefix}count")).entry
        except AtollError:
            await asyncio.sleep(0.1)
            continue
        worker.book.note(worker.process, "counted", worker.prefix, 0 if entry is None else int(entry.value))
        return


def judge(history: History, claims: Any = None) -> Judgement:
    """No number was given twice, and the last is what was acknowledged, or more by what is unknown."""
    findings = Findings()
    last = next((c for c in reversed(history.calls) if c.f == "counted"), None)
    acknowledged = [c for c in history.calls if c.f == "count" and c.type is Type.OK]
    unknown = sum(c.f == "count" and c.type is Type.INFO for c in history.calls)
    seen: dict[int, Any] = {}
    for call in acknowledged:
        if call.answer in seen:
            findings.add("update lost", f"{call.answer} counted twice", "each once", seen[call.answer], call)
        seen[call.answer] = call
    total = 0 if last is None else int(last.answer)
    low, high = len(acknowledged), len(acknowledged) + unknown
    if last is not None and not low <= total <= high:
        findings.add(
            "counted wrong",
            f"{total} in the end",
            f"{low} acknowledged" + (f", at most {high} with the unknown ones" if unknown else ""),
            acknowledged[-1] if acknowledged else None,
            last,
        )
    counts = {"counted": low, "unknown": unknown, "total": total}
    blind = "" if last is not None and acknowledged else "the number could not be read in the end"
    return findings.judge(counts, blind="the history was cut short" if history.truncated else blind)


COUNTER = Workload(
    "counter",
    "store",
    Claim("counts exactly", "A counter ends at the number of increments acknowledged, retries among them."),
    count,
    judge,
    (Hardship.PROCESSES, Hardship.KILL, Hardship.REPLY_LOST, Hardship.REQUEST_LOST),
    read_it,
)
