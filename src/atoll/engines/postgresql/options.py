"""Options: what a `postgresql://` URL may set for a store, and what is refused at the door.

The small print, read when the handle is made and not when it is first used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from urllib.parse import urlsplit

from atoll.errors import ConfigurationError

KEY_BYTES_MAX = 2600
"""What an index of PostgreSQL takes in one entry, with room for its own words."""
NOTIFY = ("auto", "direct", "off")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """What a `postgresql://` URL may say of a store. Times in seconds, sizes in bytes."""

    create: bool = False
    """Make the tables if they are missing; for tests. Elsewhere: `atoll schema URL`."""
    notify: str = field(default="auto", repr=False)
    """How news come: `direct`: LISTEN on a connection of its own to the same servers; `off`: polling;
    `auto`: LISTEN where no pooler stands between; or the postgresql:// URL of a way past the pooler."""
    poll_s: float = 0.1
    """How often to look for news where nothing is heard."""
    ceiling_s: float = 10.0
    """The longest a call takes where no nearer `atoll.deadline` is set."""
    connections_max: int = 8
    """Connections of this handle in one event loop; one more listens."""
    queue_max: int = 10_000
    """Writes that may wait in one event loop; more are Overloaded."""
    host: str = ""
    """The folder of a Unix socket, as in postgresql:///shop?host=/var/run/postgresql."""
    sslmode: str = ""
    sslrootcert: str = ""
    sslcert: str = ""
    sslkey: str = ""
    application_name: str = "atoll"
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
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not 0 < value < math.inf:
                raise ConfigurationError(f"found {one.name}={value}; expected more than 0.")
        if self.key_bytes_max > KEY_BYTES_MAX:
            raise ConfigurationError(
                f"found key_bytes_max={self.key_bytes_max}; expected at most {KEY_BYTES_MAX}, which is what "
                "an index of PostgreSQL takes."
            )
        if self.notify not in NOTIFY and urlsplit(self.notify).scheme not in ("postgresql", "postgres"):
            raise ConfigurationError(
                f"found notify={self.notify[:20]!r}; expected {', '.join(NOTIFY)}, or the postgresql:// URL "
                "of a way past the pooler."
            )
