"""Envelope: what a message may weigh, on its way through a queue or an outbox.

The post weighs a parcel at the counter, not when the van is full.
"""

from __future__ import annotations

import math

from atoll.errors import ConfigurationError, LimitReached
from atoll.ports.broker import Message

HEADERS_MAX = 32
HEADER_BYTES_MAX = 4096


def check(message: Message, body_bytes_max: int) -> None:
    """Refuse what no broker would carry."""
    if not message.id:
        raise ConfigurationError("found a message without an id; expected a unique one. Use unique_id().")
    if not 0 <= message.delay_s < math.inf:
        raise ConfigurationError(f"message {message.id!r} has delay_s={message.delay_s}; expected 0 or more.")
    if len(message.body) > body_bytes_max:
        raise LimitReached(
            f"the body of message {message.id!r} has {len(message.body)} bytes; at most {body_bytes_max} "
            "(body_bytes_max). Keep it elsewhere and send its name."
        )
    size = sum(len(name.encode()) + len(text.encode()) for name, text in message.headers.items())
    if len(message.headers) > HEADERS_MAX or size > HEADER_BYTES_MAX:
        raise LimitReached(
            f"message {message.id!r} has {len(message.headers)} headers of {size} bytes; at most "
            f"{HEADERS_MAX} of {HEADER_BYTES_MAX} together. Put the rest into the body."
        )
