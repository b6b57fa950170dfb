"""The ZooKeeper engine: a Store on the ensemble you already run, through kazoo.

The name is imported when it is first asked for; without kazoo it says what to type.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atoll.engines.zookeeper.store import ZookeeperStore

__all__ = ["ZookeeperStore"]

_HOMES = {"ZookeeperStore": "store"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no {name}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
