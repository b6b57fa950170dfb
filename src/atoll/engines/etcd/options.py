"""Options: what a URL of etcd may say beside where it is.

The form at the counter: every box has a unit, an empty one has a default, and a box that is not on the form
is refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

from atoll.errors import ConfigurationError

PORT = 2379
PREFIX = "atoll/"


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdOptions:
    """What an `etcd://` URL may say. Times in seconds, sizes in bytes."""

    ca: str | None = None
    """File with the certificates to trust; with it, or with `etcds://`, the connection is TLS."""
    cert: str | None = None
    """File with the certificate that this client shows, if the servers ask for one."""
    key: str | None = None
    """File with its private key."""
    ceiling_s: float = 5.0
    """A call that has not answered by then raises, whatever deadline is in force."""
    attempt_s: float = 1.5
    """How long one member is given to answer what may be asked of another one too."""
    liveness_s: float = 10.0
    """An observation that hears nothing for longer raises WatchLost."""
    dedupe_window_s: float = 600.0
    """How long a request_id is remembered, at least."""
    key_bytes_max: int = 1024
    value_bytes_max: int = 1 << 20
    operations_max: int = 126
    """Two less than the servers' `--max-txn-ops`."""
    request_bytes_max: int = 1572864
    """The servers' `--max-request-bytes`: a whole transaction may not be larger."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, int | float) and not value > 0:
                raise ConfigurationError(f"found {one.name}={value}; expected more than 0.")
            if isinstance(value, str) and not os.access(value, os.R_OK):
                raise ConfigurationError(
                    f"found {one.name}={value}, a file that cannot be read here. Name a PEM file, by its "
                    f"whole path."
                )
        if (self.cert is None) != (self.key is None):
            raise ConfigurationError(
                "found one of cert= and key= without the other; a certificate is shown with its private key. "
                "Give both files, or neither."
            )
