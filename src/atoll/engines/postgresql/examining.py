"""Examining: what this PostgreSQL's own settings mean for what is kept on it.

A surveyor who knows which beams of this make of house are usually sawn through, and by whom.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from atoll.engines.postgresql.connecting import Met
from atoll.ports.examining import Finding, Weight, heaviest_first

if TYPE_CHECKING:
    from atoll.engines.postgresql.store import PostgresStore

_NAMES = (
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "synchronous_standby_names",
    "max_connections",
    "idle_in_transaction_session_timeout",
    "wal_level",
    "default_transaction_isolation",
    "statement_timeout",
    "server_version",
)
_ASK = """SELECT s.name, s.reset_val FROM pg_settings s WHERE s.name = ANY($1::text[])
UNION ALL SELECT 'standbys', count(*)::text FROM pg_stat_replication
UNION ALL SELECT 'connections', count(*)::text FROM pg_stat_activity
UNION ALL SELECT 'oldest transaction',
    coalesce(extract(epoch FROM max(clock_timestamp() - a.xact_start)), 0)::int::text
    FROM pg_stat_activity a WHERE a.state LIKE 'idle in transaction%' AND a.datname = current_database()"""
Said = Mapping[str, str]


class PostgresExamining:
    """Reads pg_settings and what the server lets anybody see. A pooler hides nothing of it."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def damage(self) -> Sequence[str]:
        """Nothing beyond what a read would raise; a server's files are looked at by pg_amcheck."""
        return ()

    async def examine(self) -> Sequence[Finding]:
        rows = await self._store.look("a look at the settings", _ASK, list(_NAMES))
        return judged({str(name): str(value) for name, value in rows}, self._store.met)


def judged(said: Said, met: Met) -> list[Finding]:
    """The findings, the heaviest first."""
    found = [finding for rule in _RULES if (finding := rule(said)) is not None]
    found.append(_news(met))
    found.append(_clock())
    return heaviest_first(found)


def _fsync(said: Said) -> Finding:
    on = said["fsync"] == "on"
    return Finding(
        setting="fsync",
        value=said["fsync"],
        weight=Weight.FINE if on else Weight.BREAKS,
        cost="A commit is on the disk before it is answered."
        if on
        else "A power cut may lose what was answered, and damage the whole database.",
        fix="" if on else "fsync = on in postgresql.conf, then SELECT pg_reload_conf().",
    )


def _synchronous_commit(said: Said) -> Finding:
    value = said["synchronous_commit"]
    if value == "off":
        return Finding(
            setting="synchronous_commit",
            value=value,
            weight=Weight.BREAKS,
            cost="A crash of the server loses the last commits that were answered, up to three times "
            "wal_writer_delay: a lock that was given may be given again.",
            fix="ALTER ROLE the_role_of_this_url SET synchronous_commit = on",
        )
    weak = value in ("local", "remote_write") and said["synchronous_standby_names"] != ""
    return Finding(
        setting="synchronous_commit",
        value=value,
        weight=Weight.COSTS if weak else Weight.FINE,
        cost="A commit is answered before a standby has it on its disk."
        if weak
        else "Each of our transactions commits with this value, whatever a pooled session was set to.",
        fix="ALTER ROLE the_role_of_this_url SET synchronous_commit = on" if weak else "",
    )


def _full_page_writes(said: Said) -> Finding:
    on = said["full_page_writes"] == "on"
    return Finding(
        setting="full_page_writes",
        value=said["full_page_writes"],
        weight=Weight.FINE if on else Weight.COSTS,
        cost="A page that a power cut has torn is mended from the log."
        if on
        else "A power cut in the middle of a page damages it, unless the file system writes pages whole.",
        fix="" if on else "full_page_writes = on",
    )


def _standbys(said: Said) -> Finding:
    names, count = said["synchronous_standby_names"], int(said["standbys"])
    if names:
        alone = count == 0
        return Finding(
            setting="synchronous_standby_names",
            value=names,
            weight=Weight.COSTS if alone else Weight.FINE,
            cost="No standby is connected, so every commit waits until one is."
            if alone
            else "A commit is answered when a standby has it too; promote only such a one.",
            fix="Start a standby, or empty synchronous_standby_names and know what that costs."
            if alone
            else "",
        )
    if count:
        return Finding(
            setting="standbys",
            value=f"{count}, none synchronous",
            weight=Weight.COSTS,
            cost="A failover forgets the last commits. The timeline changes with it, so locks, terms and "
            "guards are refused (EpochUncertain) until `atoll store bump`; what else was last is gone.",
            fix="synchronous_standby_names = 'ANY 1 (*)', with two standbys so that one may fail.",
        )
    return Finding(
        setting="standbys",
        value="0",
        weight=Weight.NOTE,
        cost="This server is the only one that has it: with its disk all is lost, and while it is down "
        "nobody takes a lock.",
        fix="A standby and synchronous_standby_names, where that matters.",
    )


def _connections(said: Said) -> Finding:
    used, most = int(said["connections"]), int(said["max_connections"])
    tight = used > most * 0.8
    return Finding(
        setting="max_connections",
        value=f"{most}, {used} in use",
        weight=Weight.COSTS if tight else Weight.FINE,
        cost="When they run out, a new process cannot renew its leases in time."
        if tight
        else "A handle takes at most connections_max (8) in each event loop, and one to listen.",
        fix="A pooler before the server, smaller pools, or connections_max=2 in the URL." if tight else "",
    )


def _idle_in_transaction(said: Said) -> Finding:
    value, oldest = said["idle_in_transaction_session_timeout"], int(said["oldest transaction"])
    off, hurts = value == "0", oldest > 60
    return Finding(
        setting="idle_in_transaction_session_timeout",
        value=f"{value} ms; the oldest idle transaction here is {oldest} s old",
        weight=Weight.COSTS if hurts else Weight.NOTE if off else Weight.FINE,
        cost="A transaction that somebody left open keeps every old version of the counter row, and each "
        "call reads past all of them."
        if off or hurts
        else "Forgotten transactions end, so the counter row stays short.",
        fix="ALTER DATABASE the_database SET idle_in_transaction_session_timeout = '60s'"
        if off or hurts
        else "",
    )


def _isolation(said: Said) -> Finding | None:
    value = said["default_transaction_isolation"]
    if value == "read committed":
        return None
    return Finding(
        setting="default_transaction_isolation",
        value=value,
        weight=Weight.COSTS,
        cost="Writers who meet are refused by the server and tried again, instead of waiting for each other.",
        fix="ALTER ROLE the_role_of_this_url SET default_transaction_isolation = 'read committed'",
    )


def _statement_timeout(said: Said) -> Finding | None:
    value = int(said["statement_timeout"])
    if value == 0 or value >= 1000:
        return None
    return Finding(
        setting="statement_timeout",
        value=f"{value} ms",
        weight=Weight.COSTS,
        cost="A busy moment longer than this ends calls with Overloaded.",
        fix="ALTER ROLE the_role_of_this_url SET statement_timeout = '10s'",
    )


def _wal_level(said: Said) -> Finding | None:
    if said["wal_level"] != "minimal":
        return None
    return Finding(
        setting="wal_level",
        value="minimal",
        weight=Weight.NOTE,
        cost="No standby can follow this server, and no backup of it goes on to a later moment.",
        fix="wal_level = replica, then restart",
    )


_RULES: tuple[Callable[[Said], Finding | None], ...] = (
    _fsync,
    _synchronous_commit,
    _full_page_writes,
    _standbys,
    _connections,
    _idle_in_transaction,
    _isolation,
    _statement_timeout,
    _wal_level,
)


def _news(met: Met) -> Finding:
    return Finding(
        setting="a pooler between",
        value="no" if met.direct else "yes, or not known",
        weight=Weight.FINE if met.direct else Weight.NOTE,
        cost="News come by NOTIFY."
        if met.direct
        else "LISTEN does not pass a pooler in transaction mode: news come by looking every poll_s (0.1 s).",
        fix="" if met.direct else "notify=postgresql://user@the-server-itself:5432/db in the URL.",
    )


def _clock() -> Finding:
    return Finding(
        setting="clock",
        value="the server's wall clock",
        weight=Weight.NOTE,
        cost="Leases are judged by it: one that is set forward ends them early (never_early is False).",
        fix="Let chrony slew it, never step; and fence what must not be written late.",
    )
