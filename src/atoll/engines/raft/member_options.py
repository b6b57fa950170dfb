"""Member options: what a member is started with, checked before anything is touched.

The form at the registry. A wrong box is pointed out, with what should stand in it, before a door is unlocked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll.algorithms.raft.messages import Member as Name
from atoll.algorithms.raft.settings import Settings
from atoll.engines.raft.tls import Tls
from atoll.errors import ConfigurationError

VOTERS_MAX = 7
APPLY_AHEAD_MAX = 20_000
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_PLACE = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:\s=,]+):(\d{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """When a snapshot is made by itself, and how much log is kept behind it for followers that are slow."""

    entries: int = 100_000
    bytes: int = 64 << 20
    keep: int = 10_000
    keep_bytes: int = 64 << 20

    def kept(self, entries: int, size: int) -> int:
        """How many entries to keep, where so many of late took `size` bytes together."""
        return min(self.keep, self.keep_bytes * entries // size) if size > 0 else self.keep


def settings_of(**chosen: Any) -> Settings:
    """The machine's settings; a long log is handed out as fast as it is applied, not all at once."""
    return Settings(**{"apply_ahead_max": APPLY_AHEAD_MAX, **chosen})


def check_name(name: str) -> None:
    """A member's name is short and plain."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"found the member's name {name!r:.80}; expected letters, digits, '.', '_' and '-', at most 63."
        )


def check_place(place: str) -> None:
    """A place is host:port."""
    if not _PLACE.fullmatch(place) or int(place.rpartition(":")[2]) > 65535:
        raise ConfigurationError(f"found the place {place!r:.80}; expected host:port, as 127.0.0.1:7401.")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberOptions:
    """What a member is started with. Places are host:port.

    `members`: all first members, the same for each; when the folder is not new, only their places count.
    `join`: any member of a cluster that stands, instead. `place`: where others reach it, if that is not
    `listen`.
    """

    id: Name
    data: Path
    members: Mapping[Name, str] = field(default_factory=dict)
    join: str = ""
    listen: str = ""
    place: str = ""
    tls: Tls | None = None
    insecure: bool = False
    settings: Settings = field(default_factory=lambda: settings_of())
    compaction: Compaction = field(default_factory=Compaction)

    @classmethod
    def of(
        cls,
        id: str,
        data: str | Path,
        *,
        members: str | Mapping[str, str] = "",
        tls: tuple[str, str, str] | None = None,
        election_s: float = 0.5,
        heartbeat_s: float = 0.1,
        lease_reads: bool = False,
        **others: Any,
    ) -> MemberOptions:
        """From plain words: `members` as "a=host:port,b=host:port", `tls` as three files."""
        return cls(
            id=id,
            data=Path(data),
            members=read_members(members) if isinstance(members, str) else dict(members),
            tls=Tls(ca=tls[0], cert=tls[1], key=tls[2]) if tls is not None else None,
            settings=settings_of(election_s=election_s, heartbeat_s=heartbeat_s, lease_reads=lease_reads),
            **others,
        )

    def __post_init__(self) -> None:
        for name in (self.id, *self.members):
            check_name(name)
        for place in filter(None, (*self.members.values(), self.join, self.listen, self.place)):
            check_place(place)
        if self.members and self.id not in self.members:
            raise ConfigurationError(
                f"found --id {self.id}, which is not among --members {', '.join(self.members)}. To "
                "add a member to "
                "a cluster that stands, start it with --join, then: atoll cluster add."
            )
        if len(self.members) > VOTERS_MAX or len(set(self.members.values())) < len(self.members):
            raise ConfigurationError(
                f"found {len(self.members)} members at {len(set(self.members.values()))} places; "
                "expected one to "
                f"{VOTERS_MAX} members, each at a place of its own. Three or five are usual."
            )
        if self.members and self.join:
            raise ConfigurationError(
                "found both --members and --join; a member begins a cluster or joins one."
            )

    @property
    def where(self) -> str:
        """Where to listen, as far as was told."""
        return self.listen or self.members.get(self.id, "")


def cluster_of(first: Mapping[Name, str]) -> str:
    """The id of a cluster that begins with these members.

    Each member computes it alone, so none waits for another, and two that were started with different lists
    notice it in their first greeting. It stays when members change.
    """
    text = "\n".join(f"{name}={place}" for name, place in sorted(first.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_members(text: str) -> dict[Name, str]:
    """`a=127.0.0.1:7401,b=...` as names and places."""
    found: dict[Name, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, place = part.partition("=")
        if not equals or name in found:
            raise ConfigurationError(
                f"found {part!r:.80} in --members; expected each member once, as "
                "a=127.0.0.1:7401,b=127.0.0.1:7402."
            )
        found[name] = place
    return found
