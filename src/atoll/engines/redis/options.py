"""Options: what a `redis://` URL may set, checked when the handle is made.

The small print of the desk: how long a name may be, how much is remembered, how long a clerk is waited for.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum

from atoll.errors import ConfigurationError


class Stated(Enum):
    """What the operator says of a server that does not let its settings be read."""

    NODE = "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """Times in seconds, sizes in bytes."""

    prefix: str = "atoll"
    """Names the store among others in one database; all its keys begin with {prefix}: one slot."""
    durable: Stated | None = None
    """`node`: the operator's word that each write is forced to disk, where CONFIG GET is forbidden."""
    ca: str | None = None
    """File of the authority that signed the server's certificate; without it those of the system."""
    cert: str | None = None
    key: str | None = None
    """Files of the client's own certificate and key, where the server wants one."""
    ceiling_s: float = 10.0
    """The longest a call may take."""
    connect_s: float = 2.0
    """How long a lone server that refuses connections is asked again."""
    connections_max: int = 32
    """Open at once in one event loop; the watches of a loop share one more."""
    key_bytes_max: int = 1024
    value_bytes_max: int = 1 << 20
    operations_max: int = 1000
    """Compares and operations together, in one transaction."""
    dedupe_window_s: float = 600.0
    """How long a request_id is remembered."""
    history_max: int = 10_000
    """About how many transactions are kept for those who resume; an older bookmark is Compacted."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, int | float) and not value > 0:
                raise ConfigurationError(f"found {one.name}={value}; expected more than 0.")
        if not self.prefix or "{" in self.prefix or "}" in self.prefix:
            raise ConfigurationError(
                f"found prefix={self.prefix!r}; expected some text without braces, which "
                "mark a slot in a cluster."
            )
        if (self.cert is None) != (self.key is None):
            raise ConfigurationError("found one of cert= and key=; expected both files, or neither.")
