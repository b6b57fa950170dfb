"""Lineage: which life of a cluster an id names: the first, or one that was recovered after it.

A king's name and number. The second of that name is the first's heir and nobody obeys the first any more; a
king of another name is a stranger, whatever his number.
"""

from __future__ import annotations

_MARK = "."


def generation(cluster: str) -> int:
    """1 for a cluster that was never recovered."""
    number = cluster.partition(_MARK)[2]
    return int(number) if number.isdigit() else 1


def following(cluster: str) -> str:
    """The id of the next generation."""
    return f"{cluster.partition(_MARK)[0]}{_MARK}{generation(cluster) + 1}"


def succeeds(cluster: str, before: str) -> bool:
    """Whether `cluster` is a later generation of `before`."""
    same = cluster.partition(_MARK)[0] == before.partition(_MARK)[0]
    return same and generation(cluster) > generation(before)
