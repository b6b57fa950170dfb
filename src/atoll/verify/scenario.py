"""Scenario: a workload, the hardships it goes through, and the claim it is held to.

A recipe card for an experiment: who does what, what goes wrong meanwhile, and what must be true all the
same. Cards are data; the kitchen is `run.py`.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from atoll import clock
from atoll.verify.curtain import Curtain
from atoll.verify.history import History
from atoll.verify.judgement import Answer, Judgement
from atoll.verify.tray import Budget


class Hardship(Enum):
    """What goes wrong on purpose."""

    PROCESSES = "several processes"
    KILL = "kill -9"
    PAUSE = "a pause past the lease"
    REPLY_LOST = "lost answers"
    REQUEST_LOST = "lost requests"
    POWER_CUT = "power cuts"
    SERVER_KILL = "server kill -9"
    SERVER_PAUSE = "server stopped past the lease"
    SERVER_RESTART = "server restart"
    CUT = "connections cut"
    SILENCE = "partition"
    ONE_WAY = "one-way partition"
    SWALLOW = "answers swallowed"
    DELAY = "delay"
    PEERS = "leader cut off from its peers"
    NAMESPACE = "partition by network namespaces"
    CLOCK = "server clock step"
    FAILOVER = "failover to a lagging replica"
    FULL_DISK = "full disk"


@dataclass(frozen=True, slots=True)
class Bite:
    """Proof that a hardship bit: how often, and by what it is seen. A `times` of 0 proves nothing."""

    hardship: Hardship
    times: int
    seen_by: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What must be true. `name` is what the report prints."""

    name: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One client of a workload: its handle, its keys, its dice and its end.

    `handle` is the recording store or broker; `until` is a time of the lease clock.
    """

    handle: Any
    book: History
    process: str
    prefix: str
    dice: random.Random
    until: float
    ttl_s: float = 1.0
    fragile: bool = False
    """Whether this process is one that will be stopped or killed."""
    budget: Budget | None = None
    curtain: Curtain | None = None

    def working(self) -> bool:
        """Whether there is time and room for one more call."""
        spent = self.budget is not None and self.budget.spent
        over = clock.lease_now() >= self.until or (self.curtain is not None and self.curtain.down)
        return not over and not self.book.full and not spent


@dataclass(frozen=True, slots=True)
class Workload:
    """What the clients do, over which port, and how the history is judged."""

    name: str
    port: str
    claim: Claim
    work: Callable[[Worker], Awaitable[None]]
    judge: Callable[[History, Any], Judgement]
    hardships: tuple[Hardship, ...] = (Hardship.PROCESSES,)
    finish: Callable[[Worker], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A workload with the hardships asked for in this run."""

    workload: Workload
    hardships: tuple[Hardship, ...]
    seconds: float
    seed: int
    clients: int = 4
    rounds: int = 0
    """How often each accident happens at least, whatever the time."""


@dataclass(slots=True)
class Line:
    """One line of the report: a claim and what became of it.

    `figures` is the sentence behind the verdict; `not_tested` names the hardships that were asked for
    and did not bite, with the reason.
    """

    claim: Claim
    workload: str
    answer: Answer | None
    figures: str = ""
    judgement: Judgement | None = None
    bites: list[Bite] = field(default_factory=list)
    not_tested: list[str] = field(default_factory=list)
    seconds: float = 0.0
    promised: bool = True
    """False: what was broken is something that the engine does not claim."""

    @property
    def verdict(self) -> str:
        """held, broken, not promised, not known or not run."""
        if self.answer is Answer.NO and not self.promised:
            return "not promised"
        return "not run" if self.answer is None else self.answer.value
