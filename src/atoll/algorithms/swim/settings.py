"""Settings: how often a member looks, how long it doubts, how much it says. Checked once, then trusted."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.algorithms.swim.messages import ADDRESS_BYTES_MAX, METADATA_BYTES_MAX, NAME_BYTES_MAX
from atoll.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times in seconds, sizes in bytes."""

    probe_interval_s: float = 1.0
    """One member is probed in each; longer while this member finds itself slow."""
    probe_timeout_s: float = 0.5
    """After this without an answer others are asked to probe too, and a stream is tried."""
    indirect: int = 3
    """How many others are asked; 0 for none."""
    stream_probe: bool = True
    """Try a stream beside the indirect probes: some networks lose datagrams only."""
    suspicion_multiplier: float = 5.0
    """The shortest suspicion is this, times log10 of the members (at least 1), times `probe_interval_s`."""
    suspicion_max_multiplier: float = 6.0
    """A suspicion that nobody else shares lasts this times longer. 1: every one lasts the same."""
    confirmations: int = 3
    """So many others must share a suspicion to make it as short as may be."""
    health_max: int = 8
    """A member that finds itself slow waits up to this times longer. 1: it never does."""
    buddy: bool = True
    """A suspected member is told so by whoever probes it."""
    gossip_interval_s: float = 0.2
    gossip_fanout: int = 3
    """While there is news, it goes to so many others in each `gossip_interval_s`. 0: on probes alone."""
    retransmit_multiplier: float = 4.0
    """Each member passes a piece of news on this times log10 of the members (rounded up), then no more."""
    sync_interval_s: float = 30.0
    """Whole lists are exchanged with somebody; doubles with each doubling of the members beyond 32."""
    reconnect_interval_s: float = 30.0
    """How often failed members and unseen seeds are tried again, together, by all members."""
    gossip_to_dead_s: float = 30.0
    """So long news still goes to one that failed, so that it can refute."""
    remember_s: float = 3600.0
    """So long a failed or departed member is remembered; then its name is as new."""
    leave_s: float = 5.0
    """`Departed` comes at the latest after this."""
    stream_timeout_s: float = 10.0
    packet_bytes_max: int = 1400
    sync_bytes_max: int = 4 << 20
    metadata_bytes_max: int = 512
    members_max: int = 20_000
    """Names beyond this are not taken in, remembered ones counted too."""

    def __post_init__(self) -> None:
        if not 0 < self.probe_timeout_s < self.probe_interval_s:
            raise ConfigurationError(
                f"found probe_timeout_s={self.probe_timeout_s} and probe_interval_s={self.probe_interval_s}; "
                "expected 0 < probe_timeout_s < probe_interval_s, so that others can be asked in between."
            )
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ConfigurationError(f"found {name}={getattr(self, name)}; expected at least {least}.")
        if self.metadata_bytes_max > METADATA_BYTES_MAX:
            raise ConfigurationError(
                f"found metadata_bytes_max={self.metadata_bytes_max}; expected at most {METADATA_BYTES_MAX}: "
                "metadata travels with every word of a member; keep a reference in it."
            )
        room = self.metadata_bytes_max + 2 * NAME_BYTES_MAX + 2 * ADDRESS_BYTES_MAX + 100
        if self.packet_bytes_max < room:
            raise ConfigurationError(
                f"found packet_bytes_max={self.packet_bytes_max}; expected at least {room}, so that "
                f"an update with metadata_bytes_max={self.metadata_bytes_max} finds room beside a probe."
            )

    @classmethod
    def plain(cls) -> Settings:
        """SWIM as in its paper, without Lifeguard: for comparison."""
        return cls(suspicion_max_multiplier=1.0, health_max=1, buddy=False)


_LEAST: dict[str, float] = {
    "indirect": 0,
    "suspicion_multiplier": 0.1,
    "suspicion_max_multiplier": 1,
    "confirmations": 0,
    "health_max": 1,
    "gossip_interval_s": 0.001,
    "gossip_fanout": 0,
    "retransmit_multiplier": 0.1,
    "sync_interval_s": 0.01,
    "reconnect_interval_s": 0.01,
    "gossip_to_dead_s": 0,
    "remember_s": 0,
    "leave_s": 0,
    "stream_timeout_s": 0.001,
    "sync_bytes_max": 2048,
    "metadata_bytes_max": 0,
    "members_max": 2,
}
