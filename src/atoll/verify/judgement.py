"""Judgement: what a checker says of a history, and the smallest story that shows why.

A referee's note, not a score: yes, no, or "I could not see". A no names the few calls involved, what
was expected of them and what was found, so that a person can follow it without trusting the referee.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atoll.verify.history import Call


class Answer(Enum):
    """Whether a claim held in one history."""

    YES = "held"
    NO = "broken"
    NOT_KNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that may not be. `rule` is a short stable name; `calls` are those that show it, in order."""

    rule: str
    found: str
    expected: str
    calls: tuple[Call, ...] = ()

    def __str__(self) -> str:
        return f"{self.rule}: found {self.found}; expected {self.expected}."


@dataclass(slots=True)
class Judgement:
    """A checker's answer. `counts` says what was looked at: a yes over nothing is no yes."""

    answer: Answer
    violations: list[Violation] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    note: str = ""

    def rules(self) -> set[str]:
        """The names of the rules that were broken."""
        return {v.rule for v in self.violations}


VIOLATIONS_MAX = 50


class Findings:
    """Collects violations up to a bound: the first few tell the story, the count tells the size."""

    def __init__(self, limit: int = VIOLATIONS_MAX) -> None:
        self.limit = limit
        self.seen = 0
        self.kept: list[Violation] = []

    def add(self, rule: str, found: str, expected: str, *calls: Call | None) -> None:
        """Note a violation; the calls that are None are left out, and each is named once."""
        self.seen += 1
        if len(self.kept) >= self.limit:
            return
        involved: list[Call] = []
        for call in calls:
            if call is not None and all(call is not other for other in involved):
                involved.append(call)
        involved.sort(key=lambda call: call.began)
        self.kept.append(Violation(rule, found, expected, tuple(involved)))

    def judge(self, counts: dict[str, int], *, blind: str = "") -> Judgement:
        """No if anything was found; not known, with the reason `blind`, where it could not see."""
        counts = {**counts, "violations": self.seen}
        if self.seen:
            return Judgement(Answer.NO, self.kept, counts)
        return Judgement(Answer.NOT_KNOWN if blind else Answer.YES, [], counts, blind)
