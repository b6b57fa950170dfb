"""Options: what a `raft://` URL may say beside where the members are.

The form at the counter. What the members themselves decide (how long history is kept, how large a command may
be) is not on it: they say it when they are asked.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, fields

from atoll.engines.raft.tls import Tls
from atoll.errors import ConfigurationError

PORT = 7400
"""Where a member is looked for that is named without a port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftOptions:
    """Times in seconds, sizes in bytes."""

    ca: str | None = None
    """File with the authority that signed the members' certificates and ours; with it, TLS."""
    cert: str | None = None
    """File with the certificate that this client shows."""
    key: str | None = None
    """File with its private key."""
    ceiling_s: float = 5.0
    """A call that has not answered by then raises, whatever deadline is in force."""
    attempt_s: float = 1.0
    """How long one member is given before another is asked too."""
    liveness_s: float = 10.0
    """An observation that hears nothing for longer raises WatchLost."""
    key_bytes_max: int = 1024
    value_bytes_max: int = 512 << 10
    """A whole transaction must fit into the members' `message_bytes_max` too."""
    operations_max: int = 1000
    """Compares and operations together, in one transaction."""
    queue_max: int = 10_000
    """Writes that may wait in one event loop."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, int | float) and not value > 0:
                raise ConfigurationError(f"found {one.name}={value}; expected more than 0.")
            if isinstance(value, str) and not os.access(value, os.R_OK):
                raise ConfigurationError(
                    f"found {one.name}={value}, a file that cannot be read here. Name a PEM file, by its "
                    "whole path."
                )
        if len({self.ca is None, self.cert is None, self.key is None}) > 1:
            raise ConfigurationError(
                "found some of ca=, cert= and key=, not all; members and clients show each other "
                "certificates of one authority. Give all three files, or none."
            )


def context(options: RaftOptions) -> ssl.SSLContext | None:
    """What the connection trusts and shows; None: plain."""
    if options.ca is None or options.cert is None or options.key is None:
        return None
    return Tls(ca=options.ca, cert=options.cert, key=options.key).for_calling()
