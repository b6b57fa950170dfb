"""Settings: how patient a member is, and how much it puts in flight. Checked once, then trusted."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times in seconds, sizes in bytes."""

    election_s: float = 0.5
    """A follower that heard no leader for this, up to twice this, stands for election."""
    heartbeat_s: float = 0.1
    message_bytes_max: int = 1 << 20
    """Entries in one Append; also the largest command."""
    inflight_messages_max: int = 64
    """Appends with entries on their way to one follower."""
    inflight_bytes_max: int = 8 << 20
    uncommitted_bytes_max: int = 64 << 20
    """Beyond this, proposals are refused as OVERLOADED."""
    chunk_bytes: int = 256 << 10
    apply_ahead_max: int = 0
    """Entries that may be handed out beyond what `Applied` has reported; 0: no bound, and no reports."""
    lease_reads: bool = False
    """Answer reads from the leader's lease, without a round; the same on all members. `now` must count the
    time in which a machine sleeps, and clocks may drift by less than `drift_max`."""
    drift_max: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_s * 2 <= self.election_s:
            raise ConfigurationError(
                f"found heartbeat_s={self.heartbeat_s} and election_s={self.election_s}; expected a positive "
                "heartbeat_s of at most half of election_s, so that one lost heartbeat deposes nobody."
            )
        for name in (
            "message_bytes_max",
            "inflight_messages_max",
            "inflight_bytes_max",
            "uncommitted_bytes_max",
            "chunk_bytes",
        ):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"found {name}={getattr(self, name)}; expected at least 1.")
        if self.apply_ahead_max < 0:
            raise ConfigurationError(f"found apply_ahead_max={self.apply_ahead_max}; expected 0 or more.")
        if not 0 <= self.drift_max < 0.5:
            raise ConfigurationError(f"found drift_max={self.drift_max}; expected 0 up to 0.5.")
