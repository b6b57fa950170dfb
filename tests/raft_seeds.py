"""The seeds of the Raft simulation, shared out over test files so that several processes play them.

Together the six shares pass what is promised: 1,000,000 operations of clients, 10,000 elections, 2,000
crashes at distinct points, 500 membership changes, and no empty cell in the table of faults by role.
"""

from __future__ import annotations

from functools import cache

from atoll.verify.raft.report import Summary, summary, text
from atoll.verify.raft.simulate import simulated

SHARES = 6
SEEDS = 72
CEILING_S = 900
"""Half a minute of work on a core of one's own; a crowded machine may take long."""
PROMISED = {"operations": 1_000_000, "elections": 10_000, "crash_points": 2_000, "membership_changes": 500}


@cache
def share(number: int) -> Summary:
    """What one share of the seeds gave; played once in a process."""
    first = number * SEEDS
    return summary([*simulated(range(first, first + SEEDS))])


def holds(number: int) -> None:
    """Every invariant held under every seed of the share; if not, the report says which and how again."""
    done = share(number)
    assert not done.broken, text(done)
    assert done.seeds == SEEDS


def has_its_part(number: int) -> None:
    """The share has its part of what is promised, and every fault bit every role."""
    done = share(number).counts
    reached = {
        "operations": sum(done.operations.values()),
        "elections": done.elections,
        "crash_points": len(done.points),
        "membership_changes": done.changes,
    }
    short = {name: many for name, many in reached.items() if many * SHARES < PROMISED[name]}
    assert not short, f"{short} of {PROMISED} in {SHARES} shares"
    assert done.missing == []
