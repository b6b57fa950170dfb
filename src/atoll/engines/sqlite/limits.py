"""Limits: what a URL may set for a store in a file, and what a number among them may be.

The small print, checked when the handle is made and not when it is first used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from atoll.engines.sqlite.file import SqliteOptions
from atoll.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions(SqliteOptions):
    """What a `sqlite:///` URL may say of a store. Times in seconds, sizes in bytes."""

    key_bytes_max: int = 1024
    value_bytes_max: int = 1 << 20
    operations_max: int = 1000
    """Compares and operations together, in one transaction."""
    dedupe_window_s: float = 600.0
    """How long a request_id is remembered."""
    history_max: int = 10_000
    """Transactions kept for those who resume; an older bookmark is Compacted."""
    history_s_max: float = 3600.0
    """And not longer than this."""

    def __post_init__(self) -> None:
        check_numbers(self)


def check_numbers(options: Any, *, or_zero: Sequence[str] = ("wait_s",)) -> None:
    """Every number among the options counts, weighs or lasts something, so it is above 0."""
    for one in fields(options):
        value = getattr(options, one.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        least = 0 if one.name in or_zero else 1 if isinstance(value, int) else None
        if least is not None and not value >= least:
            raise ConfigurationError(f"found {one.name}={value}; expected {least} or more.")
        if least is None and not value > 0:
            raise ConfigurationError(f"found {one.name}={value}; expected more than 0.")
