"""Profile: what kind of cluster a seed runs, and how bad the world is to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from atoll.algorithms.raft.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Times in virtual seconds. `drift`: a clock runs at most this much too fast or too slow."""

    members: int = 3
    clients: int = 4
    batch_max: int = 24
    padding: int = 20
    """Bytes of a value beside what it says."""
    think_s: float = 0.08
    load_s: float = 40.0
    healed_s_max: float = 10.0
    """After the last fault is healed, every operation has ended within this."""
    trouble_every_s: float = 0.38
    settings: Settings = field(default_factory=lambda: Settings(election_s=0.3, heartbeat_s=0.1))
    snapshot_every: int = 300
    state_kept: bool = False
    """The state survives a crash with its applied index, as on a forced SQLite; else it is built anew."""
    drift: float = 0.1
    changes: bool = True
    weather: float = 0.02
    """The probability that a letter is lost, and that it is doubled, in fair weather."""
    lying_disks: bool = False
    """Disks say they forced, and did not. Raft does not survive that; a negative control."""
    last_batch_flips: bool = False
    """Bits are flipped in the last forced batch, too. It looks like a torn tail; a negative control."""


def profile_of(seed: int) -> Profile:
    """The profile that a seed names."""
    dice = Random(f"{seed}/profile")
    lease_reads = dice.random() < 0.25
    drift_max = 0.1
    return Profile(
        members=dice.choice((3, 3, 3, 3, 3, 5, 5, 5, 7)),
        clients=dice.randint(3, 6),
        batch_max=dice.choice((1, 12, 32, 64)),
        padding=dice.choice((0, 60, 150)),
        snapshot_every=dice.choice((60, 250, 1000)),
        state_kept=dice.random() < 0.5,
        drift=drift_max * 0.45 if lease_reads else 0.1,
        weather=dice.choice((0.0, 0.01, 0.05)),
        settings=Settings(
            election_s=0.3,
            heartbeat_s=dice.choice((0.1, 0.15)),
            message_bytes_max=dice.choice((1500, 6000, 1 << 16)),
            inflight_messages_max=dice.choice((2, 16)),
            inflight_bytes_max=dice.choice((3000, 1 << 20)),
            uncommitted_bytes_max=dice.choice((8000, 1 << 20)),
            chunk_bytes=dice.choice((200, 1 << 12)),
            lease_reads=lease_reads,
            drift_max=drift_max,
        ),
    )
