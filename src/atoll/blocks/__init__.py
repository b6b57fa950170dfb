"""Blocks: what a user types.

LAW: stands on ports and algorithms; names no engine and opens none. A file begins with Promise, What
can break it, Proved by: no promise, no block.

What is not on the front door is imported from here: `from atoll.blocks import Semaphore, ReadWriteLock,
Barrier, DoubleBarrier, Latch, Counter, Group, Config, Members`. Each is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atoll.blocks.barrier import Barrier, DoubleBarrier
    from atoll.blocks.breaking import break_lock, breaks
    from atoll.blocks.config import Config, Version
    from atoll.blocks.counter import Counter
    from atoll.blocks.latch import Latch
    from atoll.blocks.members import Members, Peer
    from atoll.blocks.members_registry import MembersRegistry
    from atoll.blocks.membership import Group, Member
    from atoll.blocks.read_write_lock import ReadWriteLock
    from atoll.blocks.semaphore import Permit, Semaphore
    from atoll.ports.observer import (
        MemberEvent,
        MemberFailed,
        MemberJoined,
        MemberLeft,
        MemberRefuted,
        MemberSuspected,
        MemberUpdated,
    )

_HOMES = {
    "Barrier": "barrier",
    "Config": "config",
    "Counter": "counter",
    "DoubleBarrier": "barrier",
    "Group": "membership",
    "Latch": "latch",
    "Member": "membership",
    "MemberEvent": "members",
    "MemberFailed": "members",
    "MemberJoined": "members",
    "MemberLeft": "members",
    "MemberRefuted": "members",
    "MemberSuspected": "members",
    "MemberUpdated": "members",
    "Members": "members",
    "MembersRegistry": "members_registry",
    "Peer": "members",
    "Permit": "semaphore",
    "ReadWriteLock": "read_write_lock",
    "Semaphore": "semaphore",
    "Version": "config",
    "break_lock": "breaking",
    "breaks": "breaking",
}

__all__ = [
    "Barrier",
    "Config",
    "Counter",
    "DoubleBarrier",
    "Group",
    "Latch",
    "Member",
    "MemberEvent",
    "MemberFailed",
    "MemberJoined",
    "MemberLeft",
    "MemberRefuted",
    "MemberSuspected",
    "MemberUpdated",
    "Members",
    "MembersRegistry",
    "Peer",
    "Permit",
    "ReadWriteLock",
    "Semaphore",
    "Version",
    "break_lock",
    "breaks",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        value = getattr(importlib.import_module(f"atoll.blocks.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'atoll.blocks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
