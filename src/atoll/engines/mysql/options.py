"""Options: what a `mysql://` URL may set, and what is refused at the door.

The small print, read when the handle is made and not when it is first used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from atoll.errors import ConfigurationError

KEY_BYTES_MAX = 3072
"""What an index of InnoDB takes, with pages of 16 KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """What a `mysql://` URL may say. Times in seconds, sizes in bytes."""

    create: bool = False
    """Make the tables if they are missing; for tests. Elsewhere: `atoll schema URL`."""
    poll_s: float = 0.1
    """How often to look for news; MariaDB and MySQL cannot call anybody."""
    ceiling_s: float = 10.0
    """The longest a call takes where no nearer `atoll.deadline` is set."""
    connections_max: int = 8
    """Connections of this handle in one event loop."""
    queue_max: int = 10_000
    """Writes that may wait in one event loop; more are Overloaded."""
    unix_socket: str = ""
    """The server's socket file, in place of host and port."""
    tls: bool = False
    """Speak TLS; without `tls_ca` nobody checks whom one speaks to."""
    tls_ca: str = ""
    """The file of who signs the server's certificate; its name is checked then."""
    key_bytes_max: int = 1024
    value_bytes_max: int = 1 << 20
    """At most what the server's max_allowed_packet leaves room for."""
    operations_max: int = 500
    """Compares and operations together, in one transaction."""
    dedupe_window_s: float = 600.0
    """How long a request_id is remembered."""
    history_max: int = 10_000
    """Transactions kept for those who resume; an older bookmark is Compacted."""
    history_s_max: float = 3600.0
    """And not longer than this."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not 0 < value < math.inf:
                raise ConfigurationError(f"found {one.name}={value}; expected more than 0.")
        if self.key_bytes_max > KEY_BYTES_MAX:
            raise ConfigurationError(
                f"found key_bytes_max={self.key_bytes_max}; expected at most {KEY_BYTES_MAX}, which is what "
                "an index of InnoDB takes."
            )
        if self.tls_ca and not self.tls:
            raise ConfigurationError("found tls_ca without tls=true; add tls=true, or leave tls_ca out.")
