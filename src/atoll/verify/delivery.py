"""Delivery: whether every message put was handed out, and none after it was done.

A ticket rack, checked at closing time. Each ticket hung up must have been taken or still hang there; a
ticket handed in may never be found on the rack again; and a ticket handed in after its time must have
been turned away if somebody else had it by then.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from atoll.ports.broker import Accepted, Settled
from atoll.verify.history import Call, History, Type
from atoll.verify.judgement import Findings, Judgement


@dataclass(slots=True)
class Handing:
    """One handing-out of a message."""

    message: str
    receipt: str
    attempt: int
    lease_until: float | None
    take: Call
    settled: Call | None = None
    open_ended: bool = False


@dataclass(slots=True)
class Story:
    """All that happened to one message."""

    put: Call | None = None
    certain: bool = False
    handings: list[Handing] = field(default_factory=list)
    done: Call | None = None
    lost_answer: bool = False


def judge(history: History) -> Judgement:
    """Judge the puts, takes and settlings of a history, queue by queue.

    A note `empty` says that the queue was seen empty at the end: then every acknowledged put must have
    been delivered. Without it an undelivered message is counted as still there.
    """
    findings = Findings()
    queues: dict[str, Ledger] = {}
    taken_back = {  # known before the reading: its answer may come after that to the next take
        call.asked.receipts[0]
        for call in history.calls
        if call.f == "give_back" and not call.asked.counted and call.type is not Type.FAIL
    }
    for call in sorted(history.calls, key=lambda call: call.ended or 1 << 62):
        queue = call.asked if isinstance(call.asked, str) else getattr(call.asked, "queue", None)
        if isinstance(queue, str):
            queues.setdefault(queue, Ledger(queue, findings, taken_back)).read(call)
    total: dict[str, int] = {}
    for ledger in queues.values():
        for name, number in ledger.finish().items():
            total[name] = total.get(name, 0) + number
    blind = "" if total.get("put") and total.get("acknowledged") else "nothing was put and acknowledged"
    return findings.judge(total, blind="the history was cut short" if history.truncated else blind)


class Ledger:
    """One queue, read in the order of the answers."""

    def __init__(self, queue: str, findings: Findings, taken_back: Set[str] = frozenset()) -> None:
        self.queue = queue
        self.findings = findings
        self.taken_back = taken_back
        self.stories: dict[str, Story] = {}
        self.handings: dict[str, Handing] = {}
        self.emptied: Call | None = None
        self.counts = dict.fromkeys(("late", "duplicates refused"), 0)

    def read(self, call: Call) -> None:
        """One call."""
        if call.f == "put":
            self._put(call)
        elif call.f == "take" and call.type is Type.OK:
            for id, receipt, attempt, lease_until in call.answer:
                self._taken(Handing(id, receipt, attempt, lease_until, call))
        elif call.f == "take":
            for story in self.stories.values():
                story.lost_answer = True
        elif call.f == "extend" and (handing := self.handings.get(call.asked.receipts[0])):
            self._extended(handing, call)
        elif call.f == "acknowledge":
            self._acknowledged(call)
        elif call.f in ("give_back", "bury") and (handing := self.handings.get(call.asked.receipts[0])):
            handing.open_ended |= call.type is not Type.FAIL
            self.stories[handing.message].lost_answer |= call.f == "bury"
        elif call.f == "empty":
            self.emptied = call

    def _put(self, call: Call) -> None:
        if call.type is Type.OK and len(call.answer) != len(call.asked.receipts):
            self.findings.add("results", f"{len(call.answer)} answers", f"{len(call.asked.receipts)}", call)
        for number, id in enumerate(call.asked.receipts):
            story = self.stories.setdefault(id, Story())
            if call.type is Type.FAIL:
                story.put = story.put or call
                continue
            accepted = call.type is Type.OK and call.answer[number] is Accepted.ACCEPTED
            if call.type is Type.OK and not accepted:
                self.counts["duplicates refused"] += 1
            if accepted and story.certain:
                self.findings.add(
                    "duplicate accepted", f"{id} accepted twice", "DUPLICATE the second time", story.put, call
                )
            story.put, story.certain = call, story.certain or call.type is Type.OK

    def _taken(self, handing: Handing) -> None:
        story = self.stories.setdefault(handing.message, Story())
        if handing.receipt in self.handings:
            other = self.handings[handing.receipt]
            self.findings.add(
                "receipt given twice",
                f"receipt {handing.receipt}",
                "one for each handing-out",
                other.take,
                handing.take,
            )
        if story.done is not None and (story.done.ended or 0) < handing.take.began:
            self.findings.add(
                "delivered after it was done",
                f"{handing.message} handed out again, attempt {handing.attempt}",
                "nothing: its acknowledgement had been answered ACKED",
                story.done,
                handing.take,
            )
        self._overlapping(story, handing)
        story.handings.append(handing)
        self.handings[handing.receipt] = handing

    def _overlapping(self, story: Story, handing: Handing) -> None:
        """While one has it under a lease, nobody else is given it; and each handing-out counts one more."""
        for other in story.handings:
            if (
                handing.attempt == other.attempt and not {handing.receipt, other.receipt} & self.taken_back
            ) or (
                handing.attempt < other.attempt
                and other.take.ended is not None
                and other.take.ended < handing.take.began
            ):
                self.findings.add(
                    "attempt not counted",
                    f"{handing.message} handed out with attempt {handing.attempt} after {other.attempt}",
                    f"at least {other.attempt + 1}",
                    other.take,
                    handing.take,
                )
            if other.lease_until is None or other.open_ended:
                continue
            if handing.take.ended_at < other.lease_until and other.take.ended_at < handing.take.began_at:
                self.findings.add(
                    "delivered under another's lease",
                    f"{handing.message} handed out {other.lease_until - handing.take.ended_at:.3f} s early",
                    "nothing before the lease of the earlier delivery ended",
                    other.take,
                    handing.take,
                )

    def _extended(self, handing: Handing, call: Call) -> None:
        if call.type is Type.OK and call.answer is not None and handing.lease_until is not None:
            handing.lease_until = max(handing.lease_until, call.began_at + float(call.answer))

    def _acknowledged(self, call: Call) -> None:
        for number, receipt in enumerate(call.asked.receipts):
            handing = self.handings.get(receipt)
            if handing is None:
                continue
            story = self.stories[handing.message]
            if call.type is not Type.OK:
                handing.open_ended = story.lost_answer = True
                continue
            answer = call.answer[number]
            if answer is Settled.LATE:
                self.counts["late"] += 1
            if answer is not Settled.ACKED:
                continue
            later = [
                h
                for h in story.handings
                if h.take is not handing.take
                and h.attempt > handing.attempt
                and (h.take.ended or 0) < call.began
            ]
            if later and handing.settled is None:
                self.findings.add(
                    "late acknowledgement accepted",
                    f"{handing.message}: attempt {handing.attempt} acknowledged after attempt "
                    f"{later[0].attempt} was handed out",
                    "LATE, because somebody else has it",
                    later[0].take,
                    call,
                )
            handing.settled = handing.settled or call
            story.done = story.done or call

    def finish(self) -> dict[str, int]:
        """Closing time."""
        lost = twice = waiting = 0
        for id, story in self.stories.items():
            twice += len(story.handings) > 1
            if story.put is None and story.handings:
                self.findings.add("message from nowhere", id, "only what was put", story.handings[0].take)
            if story.put is not None and story.put.type is Type.FAIL and story.handings:
                self.findings.add(
                    "not applied, yet delivered",
                    id,
                    "nothing of a put that was refused",
                    story.put,
                    story.handings[0].take,
                )
            if story.certain and story.done is None:
                if self.emptied is None:
                    waiting += 1
                elif not story.lost_answer:
                    lost += 1
                    self.findings.add(
                        "message lost",
                        f"{id} never acknowledged, and the queue empty",
                        "it delivered",
                        story.put,
                        self.emptied,
                    )
        return {
            "put": sum(s.certain for s in self.stories.values()),
            "delivered": len(self.handings),
            "acknowledged": sum(s.done is not None for s in self.stories.values()),
            "more than once": twice,
            "lost": lost,
            "still there": waiting,
            **self.counts,
        }
