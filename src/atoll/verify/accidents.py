"""Accidents: what happened to whom and when, and whether anybody noticed.

An insurer's file. A claim is paid only if somebody was in the car: a fault that hit no call proves nothing.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from atoll.ports.broker import Settled
from atoll.verify.history import Call, History, Type
from atoll.verify.scenario import Bite, Hardship


@dataclass(slots=True)
class Accident:
    """One thing that was done: to which process or server, when by the lease clock, for how long.

    `proof`: what the fault itself counted, such as bytes dropped; 0 means it touched nothing.
    """

    hardship: Hardship
    process: str
    at: float
    seconds: float = 0.0
    proof: int = 1


Fate = Callable[[random.Random, float], Awaitable[list[Accident]]]
"""Makes one accident happen and answers when it is over; given the dice and the lease's seconds."""

DELAY_MIN_S = 0.03
"""The least that a delay holds one chunk back."""
HANDED_S = 0.002
"""The least that a call waits for an orderly end: a leader that hands over first keeps nobody for longer than
a round or two. That another led meanwhile is the fault's own proof."""
LATE_S = 3.0
"""How long after a fault an error may still be its fault."""

_OF_SERVERS: dict[Hardship, str] = {
    Hardship.SERVER_KILL: "server kills",
    Hardship.SERVER_PAUSE: "server stops",
    Hardship.SERVER_RESTART: "server restarts",
    Hardship.CUT: "cuts of all connections",
    Hardship.SILENCE: "partitions that dropped bytes",
    Hardship.ONE_WAY: "one-way partitions",
    Hardship.SWALLOW: "times answers swallowed",
    Hardship.DELAY: "delays",
    Hardship.PEERS: "leaders cut off and replaced",
    Hardship.NAMESPACE: "partitions by dropped packets",
    Hardship.CLOCK: "clock steps that the server saw",
    Hardship.FAILOVER: "failovers",
    Hardship.FULL_DISK: "full disks",
    Hardship.POWER_CUT: "power cuts that dropped bytes",
}
"""What each is called in a report; one counts where a call in flight failed or waited for it."""

_ORDINARY = {"Refused", "Conflict", "Taken"}
"""What a rival does to a call on the finest day; it proves no fault."""
_SILENT = {Hardship.CLOCK}
"""What no call need notice: the proof is what the server itself says."""


def bites(history: History, accidents: list[Accident], asked: Iterable[Hardship]) -> list[Bite]:
    """What each hardship is proved by, in the history itself."""
    lost = [c for c in history.calls if c.type is Type.INFO and c.error == "OutcomeUnknown"]
    killed = {a.process for a in accidents if a.hardship is Hardship.KILL}
    in_flight = {c.process.partition(".")[0] for c in history.calls if c.ended is None} & killed
    pauses = [a for a in accidents if a.hardship is Hardship.PAUSE]
    noticed = [a for a in pauses if _noticed(history, a)]
    found = {
        Hardship.PROCESSES: (_together(history), "processes at once"),
        Hardship.KILL: (len(in_flight), f"kills of {len(killed)} with calls in flight"),
        Hardship.PAUSE: (len(noticed), f"pauses of {len(pauses)} past a lease with work in hand"),
        Hardship.REPLY_LOST: (len(lost), "requests or answers lost"),
    }
    for hardship, words in _OF_SERVERS.items():
        mine = [a for a in accidents if a.hardship is hardship]
        felt = sum(bool(a.proof) and (hardship in _SILENT or _felt(history, a)) for a in mine)
        found[hardship] = (felt, f"of {len(mine)} {words}")
    return [Bite(hardship, *found[hardship]) for hardship in asked if hardship in found]


def _felt(history: History, accident: Accident) -> bool:
    """Some call was in flight when it happened and failed or waited, or failed soon after."""
    end = accident.at + accident.seconds
    slow_s = min(0.5, max(0.02, accident.seconds / 2))
    if accident.hardship is Hardship.DELAY:  # there and back, each held for DELAY_MIN_S at least
        slow_s = DELAY_MIN_S * 2
    elif accident.hardship is Hardship.SERVER_RESTART:
        slow_s = HANDED_S
    for call in history.calls:
        if call.began_at > end + LATE_S or call.ended_at < accident.at:
            continue
        if (call.error and call.error not in _ORDINARY) or call.ended is None:
            return True
        if call.began_at <= end and call.ended_at - call.began_at >= slow_s:
            return True
    return False


def _noticed(history: History, accident: Accident) -> bool:
    """Something of the stopped process was begun before the pause and ended after it, or was refused then."""
    end = accident.at + accident.seconds
    mine = (c for c in history.calls if c.process.partition(".")[0] == accident.process)
    return any(
        (c.began_at < accident.at and c.ended_at > end and c.f not in ("acquired", "take"))
        or (end - 0.05 <= c.ended_at < end + 0.5 and c.error in ("Refused", "LeaseOver"))
        or _late(c, end)
        for c in mine
    )


def _late(call: Call, end: float) -> bool:
    return (
        call.f == "acknowledge"
        and end - 0.05 <= call.ended_at < end + 0.5
        and Settled.LATE in (call.answer or ())
    )


def _together(history: History) -> int:
    """How many processes had a call open while another process had one."""
    latest: tuple[float, str] = (0.0, "")
    found: set[str] = set()
    for call in history.calls:
        process = call.process.partition(".")[0]
        if process != latest[1] and call.began_at < latest[0]:
            found |= {process, latest[1]}
        if call.ended is not None and call.ended_at > latest[0]:
            latest = (call.ended_at, process)
    return len(found)
