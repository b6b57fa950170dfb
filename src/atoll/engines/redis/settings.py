"""Settings: what the server says of itself, and what can be promised on it.

Reading the building's papers before signing the lease. What may not be seen counts as the worst, unless the
landlord gives their word, and then the contract says whose word it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from redis.exceptions import RedisError

from atoll.engines.redis import feed
from atoll.engines.redis.ledger import Ledger
from atoll.engines.redis.options import RedisOptions, Stated
from atoll.engines.redis.place import Kind
from atoll.engines.redis.scripts import Head
from atoll.errors import ConfigurationError, OutcomeUnknown
from atoll.ports.store import Durable, Reach, StoreClaims

EXPIRY_LATE_MAX_S = 1.0
"""Whoever reads, writes or watches ends what is over first; this is for a server that is busy."""
READ = (
    "appendonly appendfsync no-appendfsync-on-rewrite aof-load-truncated save maxmemory maxmemory-policy "
    "min-replicas-to-write busy-reply-threshold protected-mode bind"
).split()


@dataclass(frozen=True, slots=True)
class Settings:
    """`config` None: CONFIG GET is forbidden. `info`: empty where INFO is."""

    config: dict[str, str] | None
    info: dict[str, str] = field(default_factory=dict)

    @property
    def forced(self) -> bool:
        """Each write is on the disk before it is answered."""
        config = self.config or {}
        return (
            config.get("appendonly") == "yes"
            and config.get("appendfsync") == "always"
            and config.get("no-appendfsync-on-rewrite", "no") == "no"
        )

    @property
    def evicts(self) -> bool:
        """Keys without an expiry may be removed where memory is full."""
        config = self.config or {}
        return config.get("maxmemory-policy", "").startswith("allkeys") and config.get("maxmemory") != "0"

    @property
    def replicas(self) -> int | None:
        """None where it may not be seen."""
        return int(self.info["connected_slaves"]) if "connected_slaves" in self.info else None


async def read(ledger: Ledger) -> Settings:
    """Ask for them; what is forbidden is left out."""
    config: dict[str, str] = {}
    allowed = True
    for name in READ:
        try:
            answer = await ledger.command("CONFIG", "GET", name)
        except (ConfigurationError, OutcomeUnknown, RedisError):
            allowed = False
            break
        if answer:
            config[answer[0].decode()] = answer[1].decode()
    info: dict[str, str] = {}
    for section in ("server", "replication", "persistence"):
        try:
            answer = await ledger.command("INFO", section)
        except (ConfigurationError, OutcomeUnknown, RedisError):
            continue
        lines = (line.partition(":") for line in answer.decode(errors="replace").splitlines())
        info |= {name: value for name, colon, value in lines if colon}
    return Settings(config if allowed else None, info)


def durable(found: Settings, options: RedisOptions) -> Durable:
    """NODE where each write is forced, or where the operator says so of what may not be read."""
    if found.config is None:
        return Durable.NODE if options.durable is Stated.NODE else Durable.NONE
    return Durable.NODE if found.forced and not found.evicts else Durable.NONE


def remedy(found: Settings, options: RedisOptions, fails_over: bool) -> str:
    """What to do where exclusion cannot be kept; empty where it can."""
    if found.config is not None and found.evicts:
        return "It may evict the locks: CONFIG SET maxmemory-policy noeviction, and the same in redis.conf."
    if fails_over:
        return (
            "Redis copies to its replicas after it has answered, so a failover may forget a lock, and WAIT "
            "does not mend that: use etcd://, zookeeper:// or postgresql:// for exclusion."
        )
    if durable(found, options) is Durable.NODE:
        return ""
    if found.config is None:
        return (
            "CONFIG GET is forbidden there, so its appendfsync is not known: allow it (ACL SETUSER ... "
            "+config|get), or say ?durable=node if you know that each write is forced to disk."
        )
    config = found.config
    if config.get("appendonly") != "yes":
        told, fix = "It has no append-only file", "CONFIG SET appendonly yes, CONFIG SET appendfsync always"
    elif config.get("appendfsync") != "always":
        told, fix = f"It has appendfsync {config.get('appendfsync')}", "CONFIG SET appendfsync always"
    else:
        told = "While its file is rewritten nothing is forced to disk"
        fix = "CONFIG SET no-appendfsync-on-rewrite no"
    return f"{told}, so a crash may forget the last writes, a lock too: {fix}, and the same in redis.conf."


def claims(ledger: Ledger, found: Settings, head: Head) -> StoreClaims:
    """What this server keeps as it is set now."""
    options = ledger.options
    fails_over = ledger.place.kind is not Kind.ALONE or head.copied or found.replicas is None
    return StoreClaims(
        durable=durable(found, options),
        reach=Reach.NETWORK,
        ttl_min_s=0.0,
        expiry_late_max_s=EXPIRY_LATE_MAX_S,
        never_early=False,
        key_bytes_max=options.key_bytes_max,
        value_bytes_max=options.value_bytes_max,
        operations_max=options.operations_max,
        dedupe_window_s=options.dedupe_window_s,
        epoch_source="a field beside the data, raised by moving.bump(); the replication id of the server is "
        "compared inside every transaction",
        liveness_s=feed.LIVENESS_S,
        linearizable=not fails_over,
        incarnation="" if head.life == "?" else head.life,
        forgets_at_failover=fails_over,
        remedy=remedy(found, options, fails_over),
    )
