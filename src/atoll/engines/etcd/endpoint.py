"""Endpoint: one member's door, and the calls that may be made through it.

A telephone line with its numbers already dialled once: what a call needs is made when the line is, and then
used for every call. Whether the line stands is asked before something is said that may not be said twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from atoll.engines.etcd import wire
from atoll.engines.etcd.options import PORT, EtcdOptions

_READY = grpc.ChannelConnectivity.READY
_CHANNEL = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Below 5 s etcd calls it flooding and hangs up.
    ("grpc.keepalive_time_ms", 6000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # What is asked again is decided in one place, and that is not the channel.
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]


class Endpoint:
    """A channel to one member in one event loop, and its calls. Connects at the first call."""

    __slots__ = ("address", "calls", "channel", "entered", "streams")

    def __init__(self, host: str, port: int | None, credentials: Any) -> None:
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{shown}:{port or PORT}"
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(self.address, options=_CHANNEL)
        else:
            self.channel = grpc.aio.secure_channel(self.address, credentials, options=_CHANNEL)
        self.entered = False
        """It was found to be of our cluster, by the connection that stands."""
        self.calls: dict[str, Any] = {
            name: self.channel.unary_unary(path, response_deserializer=wire.MESSAGES[answer].FromString)
            for name, (path, _, answer) in wire.METHODS.items()
        }
        self.streams: dict[str, Any] = {
            name: self.channel.stream_stream(path, response_deserializer=wire.MESSAGES[answer].FromString)
            for name, (path, _, answer) in wire.STREAMS.items()
        }

    @property
    def standing(self) -> bool:
        """The connection on which it was entered is still there."""
        return self.entered and self.channel.get_state() is _READY

    async def close(self) -> None:
        """Hang up; what is in flight ends."""
        self.entered = False
        await self.channel.close(None)


def credentials(options: EtcdOptions, *, tls: bool) -> Any:
    """What the channel trusts and shows, None where it is not TLS."""
    if not (tls or options.ca or options.cert):
        return None
    ca, key, cert = (Path(p).read_bytes() if p else None for p in (options.ca, options.key, options.cert))
    return grpc.ssl_channel_credentials(ca, key, cert)
