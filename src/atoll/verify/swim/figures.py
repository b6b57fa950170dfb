"""The figures of the page on SWIM: run, averaged over seeds, kept as data, and set in tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import mean
from typing import Any

from atoll.algorithms.swim.settings import Settings
from atoll.verify.swim import measures

Row = dict[str, Any]
Figures = dict[str, list[Row]]
Say = Callable[[str], None]

PAUSES_S = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
PARTS: dict[str, Settings] = {
    "SWIM alone": Settings.plain(),
    "buddy system": Settings(suspicion_max_multiplier=1, health_max=1),
    "patient probes, self-blame": Settings(suspicion_max_multiplier=1, buddy=False),
    "patient suspicions": Settings(health_max=1, buddy=False),
    "all of Lifeguard": Settings(),
}
LOSSES = (0.05, 0.1, 0.25)


def by_size(size: int, seeds: Iterable[int]) -> Row:
    """What one crash and one piece of news cost in a group of this size."""
    crashes = [measures.detection(seed, size, Settings()) for seed in seeds]
    news = [measures.dissemination(seed, size, Settings()) for seed in seeds]
    return {
        "members": size,
        "runs": len(crashes),
        "suspected_s": _mean(one.suspected_s for one in crashes),
        "first_s": _mean(one.first_s for one in crashes),
        "all_s": _mean(one.all_s for one in crashes),
        "all_worst_s": max(one.all_s for one in crashes),
        "false_failed": sum(one.false_failed for one in crashes),
        "packets": _mean(one.packets for one in crashes),
        "bytes": round(mean(one.bytes for one in crashes)),
        "rounds": _mean(one.rounds for one in news),
    }


def by_pause(pause_s: float, seeds: Iterable[int]) -> Row:
    """Members slow for so long, with Lifeguard and without."""
    chosen = list(seeds)
    plain = [measures.overload(seed, 64, Settings.plain(), pause_s=pause_s) for seed in chosen]
    guarded = [measures.overload(seed, 64, Settings(), pause_s=pause_s) for seed in chosen]
    return {
        "pause_s": pause_s,
        "runs": len(chosen),
        "swim": round(mean(one.false_failed for one in plain)),
        "lifeguard": round(mean(one.false_failed for one in guarded)),
        "swim_at_healthy": round(mean(one.false_failed_at_healthy for one in plain)),
        "lifeguard_at_healthy": round(mean(one.false_failed_at_healthy for one in guarded)),
    }


def by_part(part: str, seeds: Iterable[int]) -> Row:
    """One part of Lifeguard alone, at pauses of 16 s."""
    runs = [measures.overload(seed, 64, PARTS[part], pause_s=16.0) for seed in seeds]
    return {
        "part": part,
        "runs": len(runs),
        "false_failed": round(mean(one.false_failed for one in runs)),
        "at_healthy": round(mean(one.false_failed_at_healthy for one in runs)),
    }


def by_loss(loss: float, seeds: Iterable[int]) -> Row:
    """Packets lost by chance, with indirect probes and without."""
    chosen = list(seeds)
    alone = [measures.lossy(seed, 50, loss, Settings(indirect=0)) for seed in chosen]
    helped = [measures.lossy(seed, 50, loss, Settings()) for seed in chosen]
    return {
        "loss": loss,
        "runs": len(chosen),
        "suspected_direct": round(mean(one.false_suspected for one in alone)),
        "suspected_indirect": round(mean(one.false_suspected for one in helped)),
        "failed_direct": sum(one.false_failed for one in alone),
        "failed_indirect": sum(one.false_failed for one in helped),
    }


def run(sizes: Iterable[int], seeds: int, say: Say = lambda line: None) -> Figures:
    """All of them. From 5,000 members on one seed is run, for time's sake."""
    found: Figures = {"sizes": [], "pauses": [], "parts": [], "losses": []}
    numbers = range(1, seeds + 1)
    for size in sizes:
        found["sizes"].append(by_size(size, numbers if size < 5000 else (1,)))
        say(str(found["sizes"][-1]))
    for pause_s in PAUSES_S:
        found["pauses"].append(by_pause(pause_s, numbers))
        say(str(found["pauses"][-1]))
    for part in PARTS:
        found["parts"].append(by_part(part, numbers))
        say(str(found["parts"][-1]))
    for loss in LOSSES:
        found["losses"].append(by_loss(loss, numbers))
        say(str(found["losses"][-1]))
    return found


def _mean(values: Iterable[float]) -> float:
    return round(mean(values), 2)


# -- tables --------------------------------------------------------------------------------------------

_SIZES = {
    "members": "members",
    "first suspected, s": "suspected_s",
    "first failed, s": "first_s",
    "all know, s": "all_s",
    "worst of runs, s": "all_worst_s",
    "wronged": "false_failed",
    "packets": "packets",
    "bytes": "bytes",
    "rounds": "rounds",
    "runs": "runs",
}
_PAUSES = {
    "pauses of, s": "pause_s",
    "SWIM": "swim",
    "with Lifeguard": "lifeguard",
    "SWIM, told by the well": "swim_at_healthy",
    "with Lifeguard, told by the well": "lifeguard_at_healthy",
}
_PARTS = {"what is on": "part", "false verdicts": "false_failed", "told by the well": "at_healthy"}
_LOSSES = {
    "lost": "loss",
    "suspicions, direct only": "suspected_direct",
    "with indirect probes": "suspected_indirect",
    "false verdicts, direct only": "failed_direct",
    "with them": "failed_indirect",
}


def tables(figures: Figures) -> list[str]:
    """Markdown, as it stands on the page."""
    return [
        _table(figures["sizes"], _SIZES),
        _table(figures["pauses"], _PAUSES),
        _table(figures["parts"], _PARTS),
        _table(figures["losses"], _LOSSES),
    ]


def _table(rows: list[Row], columns: dict[str, str]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row[key]) for key in columns.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}" if value < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
