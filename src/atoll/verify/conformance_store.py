"""Conformance of a Store: every sentence of the port is a question to the engine.

`make()` gives a handle on a store; the cases keep to keys of their own, but those of a store that can
be moved freeze it whole and raise its epoch: use one that nobody else uses. Run all of `CASES`, or
`await function(make)` one by one; a broken promise raises Violation, one that the engine does not claim
raises NotTested.
"""

from __future__ import annotations

from atoll.verify import (
    conformance_guard,
    conformance_lease,
    conformance_moving,
    conformance_observe,
    conformance_range,
    conformance_transact,
)
from atoll.verify.conformance import Cases, NotTested, Violation

__all__ = ["CASES", "NotTested", "Violation"]

CASES: Cases = [
    *conformance_transact.CASES,
    *conformance_guard.CASES,
    *conformance_range.CASES,
    *conformance_observe.CASES,
    *conformance_lease.CASES,
    *conformance_moving.CASES,
]
