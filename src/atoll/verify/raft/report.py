"""The report of a simulation: figures, the table of faults by role, and how to play a broken seed again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atoll.verify.raft.counts import FAULTS, ROLES, Counts
from atoll.verify.raft.simulate import Outcome

COMMAND = "atoll verify raft --simulate"
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Summary:
    """Many outcomes in one. `hash` stands for all their traces."""

    first: int
    counts: Counts
    broken: tuple[Outcome, ...]
    hash: str

    @property
    def seeds(self) -> int:
        return self.counts.runs

    @property
    def again(self) -> str:
        """The command that plays the same again."""
        return f"{COMMAND} --seeds {self.seeds} --seed {self.first}"

    def exit_code(self) -> int:
        """0: all held; 1: some invariant did not."""
        return 1 if self.broken else 0


def summary(outcomes: Sequence[Outcome]) -> Summary:
    """Of outcomes in the order of their seeds, one at least."""
    traces = outcomes[0].trace_hash
    if len(outcomes) > 1:
        traces = hashlib.sha256("".join(one.trace_hash for one in outcomes).encode()).hexdigest()
    total = Counts.total(one.counts for one in outcomes)
    return Summary(outcomes[0].seed, total, tuple(o for o in outcomes if o.violation), traces)


def figures(counts: Counts) -> list[tuple[str, str]]:
    """Lines of (what, how many)."""
    kinds = counts.operations
    done = ", ".join(f"{kinds[kind]:,} {word}" for kind, word in _WORDS.items())
    return [
        ("operations", f"{sum(kinds.values()):,}: {done}"),
        ("elections", f"{counts.elections:,} terms with a leader"),
        (
            "crashes",
            f"{counts.crashes:,}, at {len(counts.points):,} distinct points (seed, member, moment of its "
            f"disk), of {len(counts.kinds):,} kinds (moment, role, what was not forced, what was kept)",
        ),
        ("membership changes", f"{counts.changes:,} committed, of voters or learners"),
        (
            "snapshots",
            f"{counts.notes['snapshots made']:,} made, {counts.notes['snapshots installed']:,} installed",
        ),
        ("torn tails cut", f"{counts.notes['torn tails cut']:,}"),
        ("damaged disks refused", f"{counts.notes['members refused for damage']:,}"),
        ("steps of machines", f"{counts.steps:,} in {counts.virtual_s:,.0f} virtual seconds"),
        ("at rest after healing", f"within {counts.healed_s_max:.1f} virtual seconds at most"),
    ]


_WORDS = {"write": "writes", "read": "reads", "alive": "keep-alives"}


def text(done: Summary) -> str:
    """For a terminal."""
    state = f"broken in {len(done.broken)}" if done.broken else "all invariants held"
    lines = [f"raft, {done.seeds:,} seed{'s' if done.seeds > 1 else ''} from {done.first}: {state}", ""]
    lines += [f"{what:<22} {many}" for what, many in figures(done.counts)]
    lines += ["", f"{'how often it bit':<22} " + "".join(f"{role:>12}" for role in ROLES)]
    for fault in FAULTS:
        lines.append(f"{fault:<22} " + "".join(f"{done.counts.cells[fault, role]:>12,}" for role in ROLES))
    lines.append("")
    for one in done.broken[:SHOWN]:
        lines += [f"seed {one.seed} at {one.at_s:.3f} s: {one.violation}", f"  again: {one_again(one)}"]
    if len(done.broken) > SHOWN:
        lines.append(f"and {len(done.broken) - SHOWN} more seeds")
    lines.append(f"trace {done.hash}")
    lines.append(f"{'A' if done.broken else 'A pass is not a proof. A'}gain: {done.again}")
    return "\n".join(lines)


def one_again(outcome: Outcome) -> str:
    """The command that writes the trace of one seed."""
    return f"{COMMAND} --seed {outcome.seed} --trace trace-{outcome.seed}.txt"


def as_data(done: Summary) -> dict[str, Any]:
    """For programs."""
    broken = [
        {"seed": one.seed, "at_s": one.at_s, "violation": one.violation, "again": one_again(one)}
        for one in done.broken
    ]
    return {
        "first_seed": done.first,
        "seeds": done.seeds,
        "held": not done.broken,
        "broken": broken,
        "trace": done.hash,
        "again": done.again,
        **done.counts.as_data(),
    }
