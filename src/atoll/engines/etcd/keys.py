"""Keys: where ours lie among those of everybody else in the cluster.

A drawer of the town archive with two compartments: the papers, and the card that says whose drawer it is. Who
looks through the papers never sees the card.
"""

from __future__ import annotations

from atoll.engines.etcd.options import PREFIX


class Keys:
    """A user's key K is kept as `<prefix>k/K`; what the store knows of itself below `<prefix>m/`."""

    __slots__ = ("length", "meta", "prefix", "requests", "root")

    def __init__(self, path: str) -> None:
        prefix = path.strip("/")
        self.prefix = f"{prefix}/" if prefix else PREFIX
        self.root = f"{self.prefix}k/".encode()
        self.meta = f"{self.prefix}m/state".encode()
        self.requests = f"{self.prefix}m/request/".encode()
        self.length = len(self.root)

    def inside(self, key: str) -> bytes:
        """A user's key as etcd keeps it."""
        return self.root + key.encode()

    def outside(self, key: bytes) -> str:
        """What etcd keeps as the user's key."""
        return key[self.length :].decode()

    def span(self, prefix: str, start: str | None = None, end: str | None = None) -> tuple[bytes, bytes]:
        """The user's keys below `prefix`, from `start`, before `end`: low <= key < high, bytewise."""
        low = self.inside(prefix)
        high = after(low)
        if start is not None:
            low = max(low, self.inside(start))
        if end is not None:
            high = min(high, self.inside(end))
        return low, high


def after(prefix: bytes) -> bytes:
    """The first key behind all that begin with `prefix`, which is UTF-8 and so never ends in 0xff."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))
