"""Many lives, and what is said about them: which seeds broke, what happened, and how to play one again."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.verify.swim.life import HARDSHIPS, Life, Wrong

COMMAND = "atoll verify swim --simulate"
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """One life."""

    seed: int
    violation: str | None
    happened: Counter[str]
    lasted_s: float
    """In its own time."""


def play(seed: int) -> Outcome:
    """One life under one seed."""
    life = Life(seed)
    try:
        life.live()
    except Wrong as wrong:
        return Outcome(seed, str(wrong), life.happened, life.cluster.now)
    return Outcome(seed, None, life.happened, life.cluster.now)


def played(seeds: Iterable[int], jobs: int = 1) -> Iterator[Outcome]:
    """The outcomes of these seeds, in their order, on `jobs` processes."""
    if jobs <= 1:
        yield from map(play, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(play, seeds)


def text(outcomes: Sequence[Outcome]) -> str:
    """For a terminal."""
    broken = [one for one in outcomes if one.violation is not None]
    happened = total(outcomes)
    state = f"broken in {len(broken)}" if broken else "the living agreed in the end, each time"
    lines = [f"swim, {_seeds(len(outcomes))} from {outcomes[0].seed}: {state}", ""]
    lines += [f"{what:<22} {happened[what]:>10,}" for what in HARDSHIPS]
    lines += [f"{what:<22} {many:>10,}" for what, many in sorted(happened.items()) if what not in HARDSHIPS]
    lines.append("")
    for one in broken[:SHOWN]:
        lines += [str(one.violation), f"  again: {COMMAND} --seed {one.seed}"]
    if len(broken) > SHOWN:
        lines.append(f"and {len(broken) - SHOWN} more seeds")
    again = f"{COMMAND} --seeds {len(outcomes)} --seed {outcomes[0].seed}"
    lines.append(f"Again: {again}" if broken else f"A pass is not a proof. Again: {again}")
    return "\n".join(lines)


def as_data(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """For programs."""
    broken = [one for one in outcomes if one.violation is not None]
    return {
        "first_seed": outcomes[0].seed,
        "seeds": len(outcomes),
        "held": not broken,
        "broken": [{"seed": one.seed, "violation": one.violation} for one in broken],
        "happened": dict(sorted(total(outcomes).items())),
        "simulated_s": round(sum(one.lasted_s for one in outcomes)),
    }


def total(outcomes: Iterable[Outcome]) -> Counter[str]:
    """What happened in all of them together."""
    happened: Counter[str] = Counter()
    for one in outcomes:
        happened.update(one.happened)
    return happened


def _seeds(many: int) -> str:
    return f"{many:,} seed{'s' if many != 1 else ''}"
