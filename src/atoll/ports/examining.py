"""Examining: what a server's own settings mean for what is kept on it.

A surveyor's report. It names the beam, says what it carries today, what that costs on a bad day, and which
word in which file would change it. `atoll doctor` prints it; `atoll verify` reads it before it begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Weight(Enum):
    """How much a finding matters."""

    FINE = "fine"
    NOTE = "note"  # worth knowing; no promise of ours depends on it
    COSTS = "costs"  # a promise is weaker than it could be
    BREAKS = "breaks"  # a promise that people rely on does not hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One setting or fact. `setting`: as the server names it; `value`: as found."""

    setting: str
    value: str
    weight: Weight
    cost: str
    """One sentence: what it means for what is kept here."""
    fix: str = ""
    """What to type or write, empty where there is nothing to mend."""


def heaviest_first(found: Iterable[Finding]) -> list[Finding]:
    """In the order in which people should read them."""
    order = [Weight.BREAKS, Weight.COSTS, Weight.NOTE, Weight.FINE]
    return sorted(found, key=lambda finding: order.index(finding.weight))


class Examining(Protocol):
    """Ability: looks at its own server. Reads only."""

    async def examine(self) -> Sequence[Finding]:
        """What was found, the heaviest first."""
        ...

    async def damage(self) -> Sequence[str]:
        """Reads everything the engine keeps: one sentence for each fault, empty where none was found."""
        ...
