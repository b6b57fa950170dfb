"""Limits: what a `zookeeper://` URL may set, and the sizes that ZooKeeper itself sets.

The small print, checked when the handle is made and not when it is first used.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum

from atoll.errors import ConfigurationError

REQUEST_BYTES_MAX = 1_040_000
"""Just below jute.maxbuffer as servers have it (0xfffff): a larger request costs the connection."""
LEASE_BYTES_MAX = 900_000
"""Paths under one lease: the end of a session names them all in one packet between the servers."""


class Reads(Enum):
    """What stands before a read, so that it is not old."""

    QUORUM = "quorum"  # a write of ours that a majority has: linearizable, costs a forced write
    SYNC = "sync"  # the server catches up with the one it takes for the leader


@dataclass(frozen=True, slots=True, kw_only=True)
class ZookeeperOptions:
    """What a `zookeeper://` URL may say. Times in seconds, sizes in bytes."""

    key_bytes_max: int = 1024
    value_bytes_max: int = 1_000_000
    operations_max: int = 500
    """Compares and operations together; their bytes must fit into one request of 1 MB beside that."""
    dedupe_window_s: float = 600.0
    """How long a request_id is remembered, by the servers' wall clock."""
    reads: Reads = Reads.QUORUM
    session_s: float = 4.0
    """Wish for the session that reads and writes; a dead server is noticed after two thirds of it."""
    connect_s: float = 2.0
    """How long one server may take to shake hands before the next is tried."""
    ceiling_s: float = 10.0
    """The longest a call takes where no nearer deadline is set."""
    liveness_s: float = 10.0
    """A watch that cannot look for longer raises WatchLost."""
    in_flight_max: int = 1000
    """Calls that may be on their way on one connection; more are Overloaded."""
    tls: bool = False
    tls_ca: str = ""
    """File of the authority that signed the servers' certificates."""
    tls_cert: str = ""
    """File of our own certificate, where the servers ask for one."""
    tls_key: str = ""
    """File of its key."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not value > 0:
                raise ConfigurationError(f"found {one.name}={value}; expected more than 0.")
        if self.value_bytes_max > REQUEST_BYTES_MAX - 16 * self.key_bytes_max:
            raise ConfigurationError(
                f"found value_bytes_max={self.value_bytes_max}; a request to ZooKeeper, with the keys in it, "
                "takes 1 MB (jute.maxbuffer). Give at most 1000000."
            )
        if bool(self.tls_cert) != bool(self.tls_key) or ((self.tls_ca or self.tls_cert) and not self.tls):
            raise ConfigurationError(
                "found tls_ca, tls_cert or tls_key alone; expected tls=true, and tls_cert with tls_key."
            )
