"""Options: what a CASPaxos register may be told. Checked once, then trusted."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class CasPaxosOptions:
    """Times in seconds."""

    name: str = "atoll"
    """Keeps several registers on the same acceptors apart."""
    best_effort: bool = False
    """Takes acceptors that may forget what they acknowledged, or answer from the past."""
    ceiling_s: float = 10.0
    acceptor_s: float = 3.0
    """An acceptor that has not answered for this is not waited for."""
    in_flight_max: int = 256
    """Questions on their way to one acceptor; beyond it, it counts as not answering."""
    liveness_s: float = 15.0

    def __post_init__(self) -> None:
        for option in ("ceiling_s", "acceptor_s", "liveness_s"):
            if not getattr(self, option) > 0:
                raise ConfigurationError(f"found {option}={getattr(self, option)}; expected more than 0.")
        if self.in_flight_max < 1:
            raise ConfigurationError(f"found in_flight_max={self.in_flight_max}; expected at least 1.")
        if not self.name or "/" in self.name:
            raise ConfigurationError(f"found name={self.name!r}; expected some text without a slash.")
