"""Examining: what a Redis server's own settings mean for locks, leaders and decisions kept on it.

The surveyor's report on one building; every line ends with the screw to turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from atoll.engines.redis import settings
from atoll.engines.redis.options import Stated
from atoll.engines.redis.place import Kind
from atoll.engines.redis.settings import Settings
from atoll.ports.examining import Finding, Weight, heaviest_first

if TYPE_CHECKING:
    from atoll.engines.redis.store import RedisStore

_LOOPBACK = ("127.", "::1", "localhost")


class RedisExamining:
    """Reads INFO and CONFIG; changes nothing, makes nothing."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def damage(self) -> Sequence[str]:
        """What is damaged is noticed by the script itself, which raises EpochUncertain."""
        return ()

    async def examine(self) -> Sequence[Finding]:
        """The heaviest first."""
        ledger = self._store.ledger
        found = await settings.read(ledger)
        findings = [
            *_version(found),
            *_disk(found, ledger.options.durable),
            *_memory(found),
            *_copies(found, ledger.place.kind),
            *_door(ledger.place.hosts, bool(ledger.place.login.get("password")), found),
        ]
        return heaviest_first(findings)


def _version(found: Settings) -> Iterator[Finding]:
    for name in ("valkey_version", "redis_version"):
        if name in found.info:
            yield Finding(setting=name, value=found.info[name], weight=Weight.FINE, cost="It runs scripts.")
            return
    yield Finding(
        setting="INFO",
        value="forbidden",
        weight=Weight.COSTS,
        cost="Whether it has replicas, and whether it was promoted from one, cannot be seen.",
        fix="ACL SETUSER <user> +info",
    )


def _disk(found: Settings, stated: Stated | None) -> Iterator[Finding]:
    config = found.config
    if config is None:
        yield Finding(
            setting="CONFIG GET",
            value="forbidden",
            weight=Weight.NOTE if stated else Weight.COSTS,
            cost=(
                "That each write is forced to disk is the operator's word (?durable=node), not read."
                if stated
                else "Whether a write is forced to disk cannot be read, so none counts as durable."
            ),
            fix="ACL SETUSER <user> +config|get",
        )
        return
    yield from _file(config, found.info)
    if found.info.get("aof_last_write_status", "ok") != "ok":
        yield Finding(
            setting="aof_last_write_status",
            value=found.info["aof_last_write_status"],
            weight=Weight.BREAKS,
            cost="It cannot write its append-only file, so nothing new is durable.",
            fix="Free the disk; see the server's log.",
        )


def _file(config: dict[str, str], info: dict[str, str]) -> Iterator[Finding]:
    """The append-only file."""
    if config.get("appendonly") != "yes":
        snapshot = f"the last snapshot (save {config['save']})" if config.get("save") else "nothing"
        yield Finding(
            setting="appendonly",
            value=config.get("appendonly", "no"),
            weight=Weight.BREAKS,
            cost=f"After a crash {snapshot} is left: locks, leaders and decisions since then are forgotten.",
            fix="CONFIG SET appendonly yes, CONFIG SET appendfsync always, and the same in redis.conf.",
        )
        return
    yield Finding(setting="appendonly", value="yes", weight=Weight.FINE, cost="Every write is in a file.")
    how = config.get("appendfsync", "")
    costs = {
        "always": "Every write is on the disk before it is answered; each costs a forced write.",
        "everysec": "A power cut loses up to 1 or 2 seconds of acknowledged writes, a lock too.",
        "no": "A power cut loses what the kernel had not written yet, often 30 seconds of writes.",
    }
    yield Finding(
        setting="appendfsync",
        value=how,
        weight=Weight.FINE if how == "always" else Weight.BREAKS,
        cost=costs.get(how, "It is not known when writes reach the disk."),
        fix="" if how == "always" else "CONFIG SET appendfsync always, and the same in redis.conf.",
    )
    if config.get("no-appendfsync-on-rewrite") == "yes":
        yield Finding(
            setting="no-appendfsync-on-rewrite",
            value="yes",
            weight=Weight.BREAKS,
            cost="While the file is rewritten nothing is forced to disk, whatever appendfsync says.",
            fix="CONFIG SET no-appendfsync-on-rewrite no",
        )
    if config.get("aof-load-truncated") == "yes":
        torn = "valkey_version" not in info
        yield Finding(
            setting="aof-load-truncated",
            value="yes",
            weight=Weight.COSTS if torn else Weight.NOTE,
            cost=(
                "A file torn by a power cut is cut in the midst of a transaction, whose first half comes "
                "back at the second start; the store notices, and asks for a bump."
                if torn
                else "A file whose end is damaged is cut there at the start; only the server's log says so."
            ),
            fix="CONFIG SET aof-load-truncated no; after a power cut: redis-check-aof --fix.",
        )


def _memory(found: Settings) -> Iterator[Finding]:
    config = found.config or {}
    if "maxmemory-policy" not in config:
        return
    policy, most = config["maxmemory-policy"], config.get("maxmemory", "0")
    if policy.startswith("allkeys"):
        yield Finding(
            setting="maxmemory-policy",
            value=f"{policy}, maxmemory {most}",
            weight=Weight.BREAKS if found.evicts else Weight.COSTS,
            cost="Where memory is full it evicts any key, the table of locks too; then the store is refused.",
            fix="CONFIG SET maxmemory-policy noeviction, and a server of its own for the cache.",
        )
    else:
        yield Finding(
            setting="maxmemory-policy",
            value=f"{policy}, maxmemory {most}",
            weight=Weight.FINE,
            cost="No key of ours is evicted: none has an expiry. Where memory is full, writes are refused.",
        )
    if most == "0":
        yield Finding(
            setting="maxmemory",
            value="0",
            weight=Weight.NOTE,
            cost="Nothing bounds its memory but the kernel, which kills it.",
            fix="CONFIG SET maxmemory to what the machine can spare.",
        )


def _copies(found: Settings, kind: Kind) -> Iterator[Finding]:
    replicas = found.replicas
    if kind is Kind.ALONE and not replicas:
        if replicas == 0:
            yield Finding(
                setting="connected_slaves",
                value="0",
                weight=Weight.FINE,
                cost="It stands alone: nothing fails over, so nothing is forgotten by failing over.",
            )
        return
    yield Finding(
        setting="connected_slaves",
        value=f"{replicas if replicas is not None else 'not known'}, {kind.value}",
        weight=Weight.BREAKS,
        cost="A replica hears of a write after it was answered; promoted, it may not know of a lock.",
        fix="Use etcd://, zookeeper:// or postgresql:// for exclusion, or best_effort=True with a fence.",
    )
    least = (found.config or {}).get("min-replicas-to-write", "")
    if least == "0":
        yield Finding(
            setting="min-replicas-to-write",
            value="0",
            weight=Weight.COSTS,
            cost="A master that is cut off from everybody goes on taking writes that will be thrown away.",
            fix="CONFIG SET min-replicas-to-write 1; it shortens that time, it is no agreement.",
        )


def _door(hosts: Sequence[tuple[str, int]], password: bool, found: Settings) -> Iterator[Finding]:
    if password:
        return
    near = all(host.startswith(_LOOPBACK) or host.startswith("/") for host, _ in hosts)
    yield Finding(
        setting="requirepass",
        value="none is used",
        weight=Weight.NOTE if near else Weight.COSTS,
        cost="Whoever reaches the port may take, break and forge locks.",
        fix="ACL SETUSER with a password, and redis://user:password@host.",
    )
