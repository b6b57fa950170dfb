"""Knobs: how weak the memory engine shall be, as options of its URL.

A driving school's second set of pedals. Left alone, everything is as good as memory can be; each knob
takes away one comfort that some real server does not give either. `weird` says what it takes away.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from atoll.errors import ConfigurationError
from atoll.ports.store import Observing


def knob(default: Any, weird: str, *, server: bool = False) -> Any:
    """An option with the line that says what it breaks. `server`: shared by all handles of one name."""
    return field(default=default, metadata={"weird": weird, "server": server})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreKnobs:
    """Options of `memory://` as a store. Times in seconds, sizes in bytes, losses as probabilities."""

    observe: Observing = knob(  # noqa: RUF009
        Observing.PROMPT, "coalesced: quick changes are merged, a delete may be unseen"
    )
    observe_late_s: float = knob(0.0, "news reaches an observer this much later")
    observe_reset: float = knob(0.0, "this share of the news comes as a whole new snapshot")
    expiry_late_s: float = knob(0.0, "a lease's keys stand this long after its end", server=True)
    granted_ttl_factor: float = knob(1.0, "a lease is granted for the wish times this", server=True)
    ttl_min_s: float = knob(0.0, "no lease is granted for less", server=True)
    reply_loss: float = knob(0.0, "this share of the calls is done, and its answer lost: OutcomeUnknown")
    request_loss: float = knob(0.0, "this share of the calls is lost on the way: OutcomeUnknown too")
    latency_s: float = knob(0.0, "a call takes this long, half before it is done and half after")
    operations_max: int = knob(1000, "compares and operations in one transaction", server=True)
    value_bytes_max: int = knob(1 << 20, "a longer value is refused", server=True)
    key_bytes_max: int = knob(1024, "a longer key is refused", server=True)
    dedupe_window_s: float = knob(600.0, "a request_id is forgotten after this; 0: never known", server=True)
    dedupe_max: int = knob(100_000, "and forgotten earlier when there are more than this", server=True)
    history: bool = knob(True, "false: there is no `history` ability")
    history_max: int = knob(10_000, "transactions kept; an older bookmark is Compacted", server=True)
    leasing: bool = knob(True, "false: there is no `leasing` ability")
    forgets_at_failover: bool = knob(False, "only claimed: exclusive recipes must refuse the store")
    ceiling_s: float = knob(10.0, "a call without an answer by then raises")

    def __post_init__(self) -> None:
        _check(self, ("observe_reset", "reply_loss", "request_loss"))


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerKnobs:
    """Options of `memory://` as a broker."""

    reply_loss: float = knob(0.0, "this share of the calls is done, and its answer lost: OutcomeUnknown")
    request_loss: float = knob(0.0, "this share of the calls is lost on the way: OutcomeUnknown too")
    latency_s: float = knob(0.0, "a call takes this long, half before it is done and half after")
    dedupe_window_s: float = knob(3600.0, "a message id is forgotten after this; 0: never known", server=True)
    dedupe_max: int = knob(100_000, "and forgotten earlier when there are more than this", server=True)
    body_bytes_max: int = knob(1 << 20, "a longer body is refused", server=True)
    messages_max: int = knob(1000, "more in one put are refused", server=True)
    waiting_max: int = knob(1_000_000, "a queue holds no more than this, its dead included", server=True)
    receipts_max: int = knob(100_000, "settled receipts remembered; an older one is UNKNOWN", server=True)
    leased: bool = knob(True, "false: no `leased` ability, a message in hand never comes back by itself")
    uncounts: bool = knob(True, "false: an attempt once counted is never taken back", server=True)
    ceiling_s: float = knob(10.0, "a call without an answer by then raises")

    def __post_init__(self) -> None:
        _check(self, ("reply_loss", "request_loss"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TierKnobs:
    """Options of `memory://` as a tier."""

    bytes_max: int = knob(64_000_000, "keys and values together; the longest unread goes first", server=True)
    value_bytes_max: int = knob(1 << 20, "a longer value is refused", server=True)
    token_ttl_s: float = knob(60.0, "a claim slip is forgotten after this, and its fill refused", server=True)
    tokens_max: int = knob(100_000, "keys with open slips; beyond it the oldest are forgotten", server=True)
    counters_max: int = knob(100_000, "counters kept; beyond it the soonest to end goes first", server=True)
    forget: float = knob(0.0, "this share of the reads finds the copy forgotten")
    reply_loss: float = knob(0.0, "this share of the calls is done, and its answer lost: OutcomeUnknown")
    request_loss: float = knob(0.0, "this share of the calls is lost on the way: OutcomeUnknown too")
    latency_s: float = knob(0.0, "a call takes this long, half before it is done and half after")
    ceiling_s: float = knob(10.0, "a call without an answer by then raises")

    def __post_init__(self) -> None:
        _check(self, ("forget", "reply_loss", "request_loss"))


Knobs = StoreKnobs | BrokerKnobs | TierKnobs


def server_side(knobs: Knobs) -> dict[str, Any]:
    """The knobs that belong to what is shared, not to one handle on it."""
    return {f.name: getattr(knobs, f.name) for f in fields(knobs) if f.metadata["server"]}


def _check(knobs: Knobs, shares: tuple[str, ...]) -> None:
    for option in fields(knobs):
        value, name = getattr(knobs, option.name), option.name
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if name in shares and not 0 <= value <= 1:
            raise ConfigurationError(f"found {name}={value}; expected a probability from 0 to 1.")
        if name.endswith("_max") and value < 1:
            raise ConfigurationError(f"found {name}={value}; expected 1 or more.")
        if name in ("granted_ttl_factor", "ceiling_s") and not value > 0:
            raise ConfigurationError(f"found {name}={value}; expected more than 0.")
        if not value >= 0:
            raise ConfigurationError(f"found {name}={value}; expected 0 or more.")
