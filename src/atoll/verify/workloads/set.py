"""The set workload: everybody adds members nobody else has, and in the end all are read.

A guest book that lies open for an hour. Whoever was thanked for signing must find the signature in the
evening; whoever was told "the book was closed" must not find one.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from atoll.errors import AtollError, NotApplied, OutcomeUnknown
from atoll.ports.register import ABSENT, Applied
from atoll.ports.store import Store, put
from atoll.verify.history import Call, History, Transaction, Type
from atoll.verify.judgement import Findings, Judgement
from atoll.verify.scenario import Claim, Hardship, Worker, Workload
from atoll.verify.workloads.keys import value

MEMBERS_MAX = 20_000
"""Of one client: what is written for good to read in the end stays bounded."""


async def add(worker: Worker) -> None:
    """Add one member after another, each under a name of its own."""
    store: Store = worker.handle
    for number in range(MEMBERS_MAX):
        if not worker.working():
            return
        name = f"{worker.prefix}set/{worker.process}-{number:06d}"
        with suppress(NotApplied, OutcomeUnknown):
            if worker.dice.random() < 0.5:
                await store.put_if(name, value(), ABSENT)
            else:
                await store.transact(put(name, value()))
        await asyncio.sleep(0)


async def read_all(worker: Worker) -> None:
    """Read every member, page by page, once more from the start where the store did not answer."""
    store: Store = worker.handle
    while worker.working():
        try:
            found: dict[str, str] = {}
            page = await store.range(f"{worker.prefix}set/", limit=500)
            while True:
                found |= {entry.key: entry.value.decode() for entry in page.entries}
                if not page.more:
                    worker.book.note(worker.process, "members", worker.prefix, found)
                    return
                start = page.entries[-1].key + "\0"
                page = await store.range(start=start, end=f"{worker.prefix}set0", limit=500)
        except AtollError:
            await asyncio.sleep(0.1)


def judge(history: History, claims: Any = None) -> Judgement:
    """Every acknowledged member is there with its value; none that was refused is."""
    findings = Findings()
    last = next((c for c in reversed(history.calls) if c.f == "members"), None)
    found: dict[str, str] = {} if last is None else dict(last.answer)
    counts = {"added": 0, "lost": 0, "unknown": 0, "unknown there": 0, "refused": 0}
    wrote: dict[str, Call] = {}
    for call in history.calls:
        if call.f != "transact" or not isinstance(call.asked, Transaction) or not call.asked.then:
            continue
        operation = call.asked.then[0]
        key, text = operation.key, getattr(operation, "value", b"").decode()
        wrote[key] = call
        if call.type is Type.OK and isinstance(call.answer, Applied):
            counts["added"] += 1
            if last is not None and found.get(key) != text:
                counts["lost"] += 1
                held = found.get(key, "nothing")
                findings.add("acknowledged, then lost", f"{held} at {key!r}", f"{text!r}", call, last)
        elif call.type is not Type.INFO:
            counts["refused"] += 1
            if found.get(key) == text:
                findings.add("not applied, yet there", f"{text!r} at {key!r}", "nothing", call, last)
        else:
            counts["unknown"] += 1
            counts["unknown there"] += found.get(key) == text
    for key in found.keys() - wrote.keys():
        findings.add("member from nowhere", f"{key!r}", "only what somebody added", last)
    counts["members"] = len(found)
    blind = "" if last is not None and counts["added"] else "the members could not be read in the end"
    return findings.judge(counts, blind="the history was cut short" if history.truncated else blind)


SET = Workload(
    "set",
    "store",
    Claim("nothing acknowledged is lost", "What was added and acknowledged is there in the end."),
    add,
    judge,
    (Hardship.PROCESSES, Hardship.KILL, Hardship.REPLY_LOST, Hardship.REQUEST_LOST),
    read_all,
)
