"""Examining: what the server's settings mean for a store on it. `atoll doctor` prints it.

A surveyor who reads the labels on the beams: what each carries on a bad day, and which word would change it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from atoll.engines.mysql import ddl
from atoll.ports.examining import Finding, Weight, heaviest_first

if TYPE_CHECKING:
    from atoll.engines.mysql.connecting import Facts
    from atoll.engines.mysql.store import MysqlStore

_CHECK = (
    *(f"CHECK TABLE {name}" for name in ddl.TABLES),
    "SELECT (SELECT COUNT(*) FROM atoll_entry e JOIN atoll_counter c ON e.revision>c.revision)"
    "+(SELECT COUNT(*) FROM atoll_event v JOIN atoll_counter c ON v.revision>c.revision),"
    "(SELECT COUNT(*) FROM atoll_entry e LEFT JOIN atoll_lease l ON l.id=e.lease "
    "WHERE e.lease IS NOT NULL AND l.id IS NULL)",
)
Said = Mapping[str, str]


class MysqlExamining:
    """Looks at the server of a store. Reads only."""

    def __init__(self, store: MysqlStore) -> None:
        self._store = store

    async def damage(self) -> Sequence[str]:
        """CHECK TABLE reads everything; beside it what the tables say of each other."""
        rows = await self._store.ask("CHECK TABLE", _CHECK, commits=len(_CHECK) - 1)
        said = [row for one in rows[:-1] for row in one]
        found = [
            f"{table.decode()}: {text.decode()}"
            for table, _, kind, text in said
            if kind != b"note" and text not in (b"OK", b"Table is already up to date")
        ]
        ahead, orphans = map(int, rows[-1][0])
        if ahead:
            found.append(f"{ahead} entries or events are newer than the counter: it went back in time")
        if orphans:
            found.append(f"{orphans} entries belong to a lease that is not there")
        return found

    async def examine(self) -> Sequence[Finding]:
        await self._store.fresh()
        await self._store.look("a look at the revision")
        facts = self._store.facts()
        found = [rule(facts.variables) for rule in _RULES]
        found += [_replica(facts), _packet(facts, self._store), _news(self._store), _clock()]
        return heaviest_first(found)


def _flush(said: Said) -> Finding:
    value = said.get("innodb_flush_log_at_trx_commit", "?")
    return Finding(
        setting="innodb_flush_log_at_trx_commit",
        value=value,
        weight=Weight.FINE if value == "1" else Weight.BREAKS,
        cost="A commit is on the disk before it is answered."
        if value == "1"
        else "A power cut forgets about the last second of commits, locks that were given among them.",
        fix="" if value == "1" else "SET GLOBAL innodb_flush_log_at_trx_commit = 1, and in the server's file",
    )


def _doublewrite(said: Said) -> Finding:
    off = said.get("innodb_doublewrite", "ON") in ("OFF", "0")
    return Finding(
        setting="innodb_doublewrite",
        value="OFF" if off else "ON",
        weight=Weight.COSTS if off else Weight.FINE,
        cost="A power cut in the middle of a page damages it, unless the file system writes pages whole."
        if off
        else "A page that a power cut has torn is mended.",
        fix="innodb_doublewrite = ON in the server's file" if off else "",
    )


def _binlog(said: Said) -> Finding:
    kept, sync = said.get("log_bin") in ("ON", "1"), said.get("sync_binlog", "0")
    if kept and sync == "1":
        return Finding(
            setting="sync_binlog",
            value="1",
            weight=Weight.FINE,
            cost="A commit is in the binary log, on the disk, before anybody sees it.",
        )
    return Finding(
        setting="sync_binlog",
        value=f"{sync}, log_bin {'ON' if kept else 'OFF'}",
        weight=Weight.COSTS if kept else Weight.NOTE,
        cost="After a power cut a replica may have commits that this server forgot, or lack some."
        if kept
        else "InnoDB shows a commit to others a moment before it is on the disk: after a crash in that "
        "moment a reader has seen what nobody was promised.",
        fix="sync_binlog = 1" if kept else "log_bin and sync_binlog = 1, where readers must not be ahead",
    )


def _replica(facts: Facts) -> Finding:
    unknown = facts.follows is None
    return Finding(
        setting="follows another server",
        value="not known" if unknown else "no",
        weight=Weight.NOTE if unknown else Weight.FINE,
        cost="This account may not ask; a replica that takes writes is recognised by read_only alone."
        if unknown
        else "It is nobody's replica.",
        fix="GRANT REPLICA MONITOR (MySQL: REPLICATION CLIENT) ON *.* TO the_account" if unknown else "",
    )


def _packet(facts: Facts, store: MysqlStore) -> Finding:
    tight = store.value_bytes_max < store.options.value_bytes_max
    return Finding(
        setting="max_allowed_packet",
        value=str(facts.packet),
        weight=Weight.COSTS if tight else Weight.FINE,
        cost=f"Values of at most {store.value_bytes_max} bytes fit (they travel as hexadecimals).",
        fix=f"max_allowed_packet = {2 * store.options.value_bytes_max + (1 << 20)}" if tight else "",
    )


def _news(store: MysqlStore) -> Finding:
    return Finding(
        setting="news",
        value=f"by looking every {store.options.poll_s:g} s",
        weight=Weight.NOTE,
        cost="The server cannot call anybody, so a waiter hears up to this much later.",
        fix="poll_s=0.02 in the URL, for more questions to the server",
    )


def _clock() -> Finding:
    return Finding(
        setting="clock",
        value="the server's wall clock",
        weight=Weight.NOTE,
        cost="Leases are judged by it: one that is set forward ends them early (never_early is False).",
        fix="Let chrony slew it, never step; and fence what must not be written late.",
    )


_RULES: tuple[Callable[[Said], Finding], ...] = (_flush, _doublewrite, _binlog)
