"""Redis and Valkey: the Store port on one server, behind Sentinel, or in one slot of a Cluster.

A town clerk with one desk and a very fast pen: requests are served one at a time, each from beginning to end,
and every one leaves a line in the book. How much of the book survives a fire is the town's decision, so the
store reads that decision from the server and says it.
"""

from __future__ import annotations

from atoll.engines.redis.options import RedisOptions
from atoll.engines.redis.store import RedisStore

__all__ = ["RedisOptions", "RedisStore"]
