"""Raft: a store kept by three to seven processes of the user's own, with no other server."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atoll.engines.raft.node import Node as Node
    from atoll.engines.raft.store import RaftStore as RaftStore

_HOMES = {"Node": "node", "RaftStore": "store"}
__all__ = ["Node", "RaftStore"]


def __getattr__(name: str) -> Any:
    """A member's parts are loaded when they are asked for: a client needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
