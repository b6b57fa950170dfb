"""Memory: every port, in this process, with knobs that make it as weak as the weakest server.

A sand-table. It is the store, the broker and the tier of a program that needs no server, and the
place where recipes meet late news, lost answers and odd leases before a real network sends them.
"""

from __future__ import annotations

from atoll.engines.memory.broker import MemoryBroker
from atoll.engines.memory.knobs import BrokerKnobs, StoreKnobs, TierKnobs
from atoll.engines.memory.store import MemoryStore
from atoll.engines.memory.tier import MemoryTier

__all__ = ["BrokerKnobs", "MemoryBroker", "MemoryStore", "MemoryTier", "StoreKnobs", "TierKnobs"]
