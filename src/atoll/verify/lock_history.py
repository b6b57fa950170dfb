"""Lock history: whether the tokens of a lock only rise, and whether a stale holder ever got through.

The key cabinet of a hotel writes down each key card it cuts. A later card has a higher number, and once a
door has seen a card, no lower one opens it. Two guests may both believe they have the room: that is what
a frozen process looks like, and is no violation while the doors refuse the older card.
"""

from __future__ import annotations

from atoll.ports.register import Applied
from atoll.verify.history import Call, History, Holding, Type
from atoll.verify.judgement import Findings, Judgement


def judge(history: History, *, goes_back: bool = False) -> Judgement:
    """Judge the calls `acquired` (answered by a Holding) and `guarded` (asked with one) of a history.

    Tokens of one name must be unique, and rise in real time: a lock acquired after another acquisition
    was noted has the greater token. A guarded write of an older token must not be accepted after one of
    a newer token was (by the store's own order, the revision). With `goes_back` the store may have lost its
    last revisions and given them again: then only what was begun after a newer one was answered is stale.
    """
    findings = Findings()
    acquired = [call for call in history.calls if call.f == "acquired" and call.type is Type.OK]
    names: dict[str, list[Call]] = {}
    for call in acquired:
        names.setdefault(call.answer.name, []).append(call)
    for name, calls in names.items():
        _rising(name, calls, findings)
    attempts = [call for call in history.calls if call.f == "guarded"]
    accepted = [c for c in attempts if c.type is Type.OK and isinstance(c.answer, Applied)]
    stale = _accepted_in_time(accepted, findings) if goes_back else _accepted_in_order(accepted, findings)
    refused = sum(c.type is Type.FAIL and c.error in ("Refused", "LockLost", "LeaderLost") for c in attempts)
    counts = {
        "acquisitions": len(acquired),
        "guarded writes": len(attempts),
        "accepted": len(accepted),
        "refused": refused,
        "stale accepted": stale,
        "without answer": sum(c.type is Type.INFO for c in attempts),
    }
    blind = "" if len(acquired) > 1 and accepted else "the lock changed hands less than twice"
    return findings.judge(counts, blind="the history was cut short" if history.truncated else blind)


def _token(holding: Holding) -> tuple[int, int]:
    return holding.epoch, holding.revision


def _rising(name: str, calls: list[Call], findings: Findings) -> None:
    """A token noted before an acquisition was begun must be lower than the one it got."""
    seen: dict[tuple[int, int], Call] = {}
    ends = sorted(calls, key=lambda call: call.ended or 0)
    at, newest = 0, None
    for call in sorted(calls, key=lambda call: call.began):
        while at < len(ends) and (ends[at].ended or 0) < call.began:
            if newest is None or _token(ends[at].answer) > _token(newest.answer):
                newest = ends[at]
            at += 1
        token = _token(call.answer)
        if token in seen:
            findings.add(
                "token given twice",
                f"{token[0]}:{token[1]} for {name!r} to {seen[token].process} and {call.process}",
                "one owner for each token",
                seen[token],
                call,
            )
        elif newest is not None and token < _token(newest.answer):
            older = newest.answer
            findings.add(
                "token goes down",
                f"{token[0]}:{token[1]} for {name!r}",
                f"more than {older.epoch}:{older.revision}, which had been given before",
                newest,
                call,
            )
        seen.setdefault(token, call)


def _accepted_in_order(accepted: list[Call], findings: Findings) -> int:
    """By the revision of the writes, tokens may not fall. Answers how many stale ones were accepted."""
    newest: dict[str, Call] = {}
    stale = 0
    for call in sorted(accepted, key=lambda call: call.revision or 0):
        holding: Holding = call.asked
        before = newest.get(holding.name)
        if before is not None and _token(holding) < _token(before.asked):
            stale += 1
            findings.add(
                "stale write accepted",
                f"a write with token {holding.epoch}:{holding.revision} at revision {call.revision}",
                f"Refused: token {before.asked.epoch}:{before.asked.revision} had written at "
                f"revision {before.revision}",
                before,
                call,
            )
        else:
            newest[holding.name] = call
    return stale


def _accepted_in_time(accepted: list[Call], findings: Findings) -> int:
    """A write that was begun after one of a newer token had been answered may not be accepted."""
    newest: dict[str, Call] = {}
    stale, at = 0, 0
    ends = sorted(accepted, key=lambda call: call.ended or 0)
    for call in sorted(accepted, key=lambda call: call.began):
        while at < len(ends) and (ends[at].ended or 0) < call.began:
            holding = ends[at].asked
            before = newest.get(holding.name)
            if before is None or _token(holding) > _token(before.asked):
                newest[holding.name] = ends[at]
            at += 1
        before = newest.get(call.asked.name)
        if before is not None and _token(call.asked) < _token(before.asked):
            stale += 1
            findings.add(
                "stale write accepted",
                f"a write with token {call.asked.epoch}:{call.asked.revision}",
                f"Refused: token {before.asked.epoch}:{before.asked.revision} had written before",
                before,
                call,
            )
    return stale
