"""Counts: what a run really did, and what really bit; counts of many runs are added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

FAULTS = (
    "loss",
    "duplication",
    "reordering",
    "delay",
    "one-way cut",
    "ring cut",
    "split",
    "isolation",
    "killed",
    "power cut, dropped",
    "power cut, torn",
    "power cut, reordered",
    "power cut, names lost",
    "disk stall",
    "write error",
    "bit flip",
    "wiped",
    "pause",
    "clock drift",
    "members changed",
)
ROLES = ("leader", "follower", "candidate", "learner")


@dataclass(slots=True)
class Counts:
    """`cells`: (fault, role of whom it bit). `points`: (seed, member, its boundary) of each crash."""

    runs: int = 0
    steps: int = 0
    virtual_s: float = 0.0
    healed_s_max: float = 0.0
    operations: Counter[str] = field(default_factory=Counter)
    elections: int = 0
    changes: int = 0
    crashes: int = 0
    points: set[tuple[int, str, int]] = field(default_factory=set)
    kinds: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    """(boundary, role, what stood unforced, what the disk kept) of each crash."""
    boundaries: Counter[str] = field(default_factory=Counter)
    cells: Counter[tuple[str, str]] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, other: Counts) -> None:
        """Add another run's."""
        for name in ("runs", "steps", "virtual_s", "elections", "changes", "crashes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.healed_s_max = max(self.healed_s_max, other.healed_s_max)
        self.points |= other.points
        for name in ("operations", "kinds", "boundaries", "cells", "notes"):
            getattr(self, name).update(getattr(other, name))

    @property
    def missing(self) -> list[tuple[str, str]]:
        """Cells of the table that nothing has bitten."""
        return [(fault, role) for fault in FAULTS for role in ROLES if not self.cells[fault, role]]

    @classmethod
    def total(cls, parts: Iterable[Counts]) -> Counts:
        """All of them together."""
        whole = cls()
        for part in parts:
            whole.add(part)
        return whole

    def as_data(self) -> dict[str, Any]:
        """For programs."""
        return {
            "runs": self.runs,
            "operations": dict(sorted(self.operations.items())),
            "elections": self.elections,
            "crashes": self.crashes,
            "crash_points": len(self.points),
            "crash_kinds": len(self.kinds),
            "membership_changes": self.changes,
            "steps": self.steps,
            "virtual_s": round(self.virtual_s, 3),
            "healed_s_max": round(self.healed_s_max, 3),
            "faults": {f: {r: self.cells[f, r] for r in ROLES} for f in FAULTS},
            "boundaries": dict(sorted(self.boundaries.items())),
            "notes": dict(sorted(self.notes.items())),
        }
