"""Lines: what a judged workload says in the report, claim by claim, with what bit and what did not.

The clerk who fills in the form after the trial: the verdict, the figures behind it, and honestly which of the
planned tests never touched anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from atoll.verify.judgement import Answer, Judgement, Violation
from atoll.verify.scenario import Bite, Claim, Hardship, Line, Workload

OUTSIDE = (Hardship.PROCESSES, Hardship.KILL, Hardship.PAUSE)
TOKENS = Claim("tokens only rise", "A later holder's token is greater, and nobody else has it.")
TERMS = Claim("terms only rise", "A later leader's token is greater, and nobody else has it.")


def lines(
    workload: Workload,
    judgement: Judgement,
    found: Sequence[Bite],
    *,
    local: bool = False,
    faults: bool = True,
    claim: Claim | None = None,
) -> list[Line]:
    """One line; for a lock and an election one more about their tokens."""
    never = [b.hardship.value for b in found if b.seen_by.startswith("of 0 ")]
    missing = [
        f"{b.hardship.value} (0 {b.seen_by})" for b in found if not b.times and b.hardship.value not in never
    ]
    missing += [f"{', '.join(never)} (not reached: give it more seconds)"] if never else []
    if local:
        outside = ", ".join(h.value for h in workload.hardships if h in OUTSIDE)
        missing += [f"{outside} (memory lives in one process)"] if outside else []
    elif not faults:
        unasked = ", ".join(h.value for h in workload.hardships if h is not Hardship.PROCESSES)
        missing += [f"{unasked} (not asked)"] if unasked else []
    answer = judgement.answer
    if answer is Answer.YES and not faults_bit(found) and not local and faults:
        answer, judgement.note = Answer.NOT_KNOWN, "no fault bit"
    said = claim or workload.claim
    line = Line(said, workload.name, answer, figures(workload, judgement), judgement, list(found), missing)
    if workload.name not in ("lock", "election"):
        return [line]
    counts = judgement.counts
    rising = [v for v in judgement.violations if v.rule != "stale write accepted"]
    stale = [v for v in judgement.violations if v.rule == "stale write accepted"]
    tokens = Line(
        TERMS if workload.name == "election" else TOKENS,
        workload.name,
        Answer.NO if rising else (Answer.YES if answer is Answer.NO else answer),
        f"{counts['acquisitions']:,} {'terms' if workload.name == 'election' else 'acquisitions'}",
        _part(judgement, rising),
        list(found),
    )
    if answer is Answer.NO and not stale:
        line.answer = Answer.YES
    line.judgement = _part(judgement, stale)
    return [line, tokens] if claim is None else [line]


def faults_bit(found: Sequence[Bite]) -> bool:
    """Whether any hardship beyond plain company bit."""
    return any(bite.times for bite in found if bite.hardship is not Hardship.PROCESSES)


def _part(judgement: Judgement, violations: list[Violation]) -> Judgement:
    return Judgement(Answer.NO if violations else Answer.YES, violations, judgement.counts, judgement.note)


def figures(workload: Workload, judgement: Judgement) -> str:
    """The sentence behind the verdict."""
    counts = judgement.counts
    match workload.name:
        case "lock" | "election":
            stale, writes = counts["stale accepted"], counts["guarded writes"]
            return f"{stale} of {writes:,}, {counts['refused']:,} refused"
        case "queue":
            return (
                f"{counts.get('lost', 0)} lost of {counts.get('put', 0):,}, "
                f"{counts.get('more than once', 0)} delivered again, {counts.get('late', 0)} late refused"
            )
        case "leases":
            return f"{counts['leases ended']:,} ends seen, {counts['reads']:,} reads"
        case "set":
            return (
                f"{counts['lost']:,} lost of {counts['added']:,}, {counts['unknown']} unanswered, "
                f"{counts['unknown there']} of them there"
            )
        case "counter":
            return (
                f"{counts['total']:,} in the end, {counts['counted']:,} counted, {counts['unknown']} unknown"
            )
    bad = f"{counts['violations']} wrong of " if counts["violations"] else ""
    return (
        f"{bad}{counts['writes']:,} writes, {counts['reads']:,} reads, {counts['without answer']} unanswered"
    )
