"""State writing: one command after another, judged and written; what was noted is entered batch by batch.

A clerk with a pad. He looks into the book to judge, writes the present lines at once, and collects on his pad
what goes to the other pages (history, receipts), to enter all of it at the end of the batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import apsw
import msgspec

from atoll.algorithms.raft.messages import Entry as LogEntry
from atoll.algorithms.raft.messages import Index, Membership, Term
from atoll.algorithms.raft.sessions import CLIENTS_MAX, RESULT_BYTES_MAX, Verdict, verdict
from atoll.engines.parts.notices import Line
from atoll.engines.raft import command
from atoll.engines.raft.command import (
    TTL_MAX_S,
    TTL_MIN_S,
    Bump,
    Command,
    Expire,
    Freeze,
    Grant,
    Result,
    Revoke,
    Row,
    Transact,
)
from atoll.ports.register import Entry
from atoll.ports.store import Compare

HISTORY_MAX = 10_000
"""Transactions kept for those who resume."""
HISTORY_S_MAX = 3600.0
"""And not longer than this, by the leader's hour."""
DEDUPE_WINDOW_S = 600.0
"""How long a request_id is remembered."""
LINES_MAX = 500
VALUE_MAX = 1024
_TRIM_EVERY = 64
_GET = "SELECT key, value, revision, create_revision, lease FROM atoll_entry WHERE key = ?"
_PUT = (
    "INSERT INTO atoll_entry VALUES (?1, ?2, ?3, ?3, ?4) ON CONFLICT (key) DO UPDATE SET "
    "value = excluded.value, revision = excluded.revision, lease = excluded.lease RETURNING create_revision"
)
_LATE = "an answer this old is not kept."
_FORGOTTEN = "this client was silent for so long that what it asked is not known any more."


class Kept(NamedTuple):
    """What a command may change besides the tables."""

    revision: int
    epoch: int
    frozen: str | None
    leases: dict[str, float]
    at: float


class Judge:
    """Says whether a transaction may be applied. Reads only."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute
        one = connection.execute
        self.revision = int(one("SELECT max(revision) FROM atoll_event").get or 0)
        self.epoch = int(one("SELECT value FROM atoll_store WHERE name = 'epoch'").get)

    def row(self, key: str) -> Row | None:
        """What stands at `key`."""
        found: Row | None = self._execute(_GET, (key,)).fetchone()
        return found

    def judged(self, asked: Transact) -> Result:
        """Why `asked` may not be applied, or a `Done` without results where it may."""
        if asked.guard is not None:
            key, epoch, revision = asked.guard
            owner = self.row(key)
            if owner is None or (epoch, revision) != (self.epoch, owner[2]):
                return command.GuardRefused(owner, self.epoch, self.revision)
        if asked.compare:
            seen = {key: self.row(key) for key, _, _ in asked.compare}
            if not all(_holds(one, seen[one[0]]) for one in asked.compare):
                rows = tuple(row for row in seen.values() if row is not None)
                return command.Unmet(rows, self.revision)
        return command.Done(self.revision)


def _holds(one: tuple[str, int, int | bytes], row: Row | None) -> bool:
    key, field, expected = one
    return Compare(key, command.FIELDS[field], expected).holds(None if row is None else Entry(*row))


class Book(Judge):
    """The state's tables on the connection that writes; made and used within its transactions.

    Numbers that every command needs are kept here; `reload` reads them again after a rollback.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.reload()

    def reload(self) -> None:
        """Everything from the tables."""
        Judge.__init__(self, self._connection)
        one = self._connection.execute
        self.applied: Index
        self.term: Term
        self.at: float
        row: Any = one("SELECT applied, term, at, membership FROM atoll_raft").fetchone()
        self.applied, self.term, self.at, packed = row
        self.membership: Membership | None
        self.membership = None if packed is None else msgspec.msgpack.decode(packed, type=Membership)
        note = one("SELECT value FROM atoll_store WHERE name = 'frozen'").get
        self.frozen: str | None = None if note is None else bytes(note).decode()
        self.leases: dict[str, float] = dict(one("SELECT id, ttl_s FROM atoll_lease"))
        self._clients: dict[int, int] = {
            client % (1 << 64): sequence
            for client, sequence in one("SELECT client, sequence FROM atoll_session ORDER BY used")
        }
        self.lease_news: dict[str, float | None] = {}
        """What the batch did to leases: the time granted, None for one that ended."""
        self._events: list[tuple[Any, ...]] = []
        self._told: list[tuple[Any, ...]] = []
        self._sessions: dict[int, tuple[int, int, int, bytes | None]] = {}
        self._trim_at: tuple[int, float] | None = None
        self.settled = (self.applied, self.term)

    # -- one batch -------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A new batch."""
        self._told = []
        self.lease_news = {}

    def flush(self) -> None:
        """Enter what is on the pad."""
        many = self._connection.executemany
        if self._events:
            many("INSERT INTO atoll_event VALUES (?, ?, ?, ?, ?, ?, ?)", self._events)
            self._told += self._events
            self._events = []
        if self._sessions:
            many("INSERT OR REPLACE INTO atoll_session VALUES (?, ?, ?, ?)", self._sessions.values())
            self._sessions = {}

    def finish(self) -> None:
        """Enter everything, and how far the log was applied."""
        self.flush()
        one = self._connection.execute
        if self._trim_at is not None:
            self._trim(*self._trim_at)
            self._trim_at = None
        one("UPDATE atoll_raft SET applied = ?, term = ?, at = ?", (self.applied, self.term, self.at))

    def settle(self) -> None:
        """The batch is committed."""
        self.settled = (self.applied, self.term)

    def lines(self) -> list[Line] | None:
        """What the batch touched, for those who watch; None where that is too much to say."""
        if len(self._told) > LINES_MAX:
            return None
        return [
            Line(revision, value is not None, key, _told_entry(revision, key, value, created, lease))
            for revision, _, key, value, created, lease, _ in self._told
            if key is not None
        ]

    def kept(self) -> Kept:
        """To be put back by `restore` when a command is undone."""
        return Kept(self.revision, self.epoch, self.frozen, dict(self.leases), self.at)

    def restore(self, kept: Kept) -> None:
        """As it was before a command that raised."""
        self._events = []
        self.revision, self.epoch, self.frozen, self.leases, self.at = kept
        self.lease_news = {lease: self.leases.get(lease) for lease in self.lease_news}

    def member(self, membership: Membership) -> None:
        """Who are members from here on."""
        self.membership = membership
        packed = msgspec.msgpack.encode(membership)
        self._connection.execute("UPDATE atoll_raft SET membership = ?", (packed,))

    # -- one entry -------------------------------------------------------------------------------------

    def command(self, entry: LogEntry) -> bytes:
        """Apply one entry's commands, once, however often the client asked; its packed results."""
        if entry.client:
            match verdict(self._clients.get(entry.client, 0), entry.sequence):
                case Verdict.REPEATED:
                    return self._remembered(entry.client)
                case Verdict.LATE:
                    return command.pack_results([command.Late(_LATE)])
                case Verdict.FORGOTTEN:
                    return command.pack_results([command.Late(_FORGOTTEN)])
        try:
            at, asked = command.unpack(entry.data)
        except ValueError as error:
            return self.answer(entry, command.pack_results([command.Error(str(error))]))
        if at > self.at:
            self.at = at
        return self.answer(entry, command.pack_results([self._apply(one) for one in asked]))

    def answer(self, entry: LogEntry, result: bytes) -> bytes:
        """Remember `result` as the client's last one."""
        client = entry.client
        if client:
            self._clients.pop(client, None)
            self._clients[client] = entry.sequence
            if len(self._clients) > CLIENTS_MAX:
                self._forget(next(iter(self._clients)))
            kept = result if len(result) <= RESULT_BYTES_MAX else None
            self._sessions[client] = (_signed(client), entry.sequence, entry.index, kept)
        return result

    def _forget(self, client: int) -> None:
        del self._clients[client]
        self._sessions.pop(client, None)
        self._execute("DELETE FROM atoll_session WHERE client = ?", (_signed(client),))

    def _remembered(self, client: int) -> bytes:
        """The client's last result; it is on the pad, or in the table."""
        waiting = self._sessions.get(client)
        if waiting is not None:
            found = waiting[3]
        else:
            select = "SELECT result FROM atoll_session WHERE client = ?"
            found = self._execute(select, (_signed(client),)).get
        return command.pack_results([command.Late(_LATE)]) if found is None else found

    def _apply(self, asked: Command) -> Result:
        match asked:
            case Transact():
                return self._transact(asked)
            case Grant(lease, ttl_s):
                return self._grant(lease, ttl_s)
            case Revoke(lease):
                self._end(lease)
            case Expire(leases):
                for lease in leases:
                    self._end(lease)
            case Bump(above):
                self.epoch = max(self.epoch, above) + 1
                self._execute("UPDATE atoll_store SET value = ? WHERE name = 'epoch'", (self.epoch,))
                return command.Raised(self.epoch)
            case Freeze(note):
                self.frozen = note
                self._execute("DELETE FROM atoll_store WHERE name = 'frozen'")
                if note is not None:
                    self._execute("INSERT INTO atoll_store VALUES ('frozen', ?)", (note.encode(),))
        return command.Ended()

    def _transact(self, asked: Transact) -> Result:
        if asked.request_id is not None:
            known = self._execute(
                "SELECT revision FROM atoll_request WHERE id = ? AND at > ?",
                (asked.request_id, self.at - DEDUPE_WINDOW_S),
            ).get
            if known is not None:
                return command.Replayed(known)
        if asked.then and self.frozen is not None:
            return command.Frozen(self.frozen)
        if asked.guard is not None or asked.compare:
            found = self.judged(asked)
            if not isinstance(found, command.Done):
                return found
        for _, _, lease in asked.then:
            if lease is not None and lease not in self.leases:
                return command.LeaseGone(lease)
        if not asked.then:
            return command.Done(self.revision)
        return self._write(asked)

    def _write(self, asked: Transact) -> Result:
        number = self.revision + 1
        execute, at = self._execute, self.at
        results: list[int | Row | None] = []
        events: list[tuple[Any, ...]] = []
        for key, value, lease in asked.then:
            if value is not None:
                created = execute(_PUT, (key, value, number, lease)).get
                results.append(created)
                events.append((number, len(events), key, value, created, lease, at))
                continue
            gone = self.row(key)
            results.append(gone)
            if gone is not None:
                execute("DELETE FROM atoll_entry WHERE key = ?", (key,))
                events.append((number, len(events), key, None, gone[3], None, at))
        self._record(number, events or [(number, 0, None, None, None, None, at)])
        if asked.request_id is not None:
            execute("DELETE FROM atoll_request WHERE at <= ?", (at - DEDUPE_WINDOW_S,))
            execute(
                "INSERT OR REPLACE INTO atoll_request VALUES (?, ?, ?, '')", (asked.request_id, number, at)
            )
        return command.Done(number, tuple(results))

    def _record(self, number: int, events: Iterable[tuple[Any, ...]]) -> None:
        self._events += events
        self.revision = number
        if number % _TRIM_EVERY == 0:
            self._trim_at = (number, self.at)

    def _grant(self, lease: str, ttl_s: float) -> Result:
        if lease not in self.leases:
            self.leases[lease] = min(ttl_s, TTL_MAX_S) if ttl_s >= TTL_MIN_S else TTL_MIN_S
            self.lease_news[lease] = self.leases[lease]
            # Its end is in the leader's book alone; infinity keeps the readers of this table from guessing.
            self._execute(
                "INSERT INTO atoll_lease VALUES (?, ?, 9e999, '', ?)", (lease, self.leases[lease], self.at)
            )
        return command.Granted(self.leases[lease])

    def _end(self, lease: str) -> None:
        if self.leases.pop(lease, None) is None:
            return
        self.lease_news[lease] = None
        self._execute("DELETE FROM atoll_lease WHERE id = ?", (lease,))
        gone = self._execute(
            "DELETE FROM atoll_entry WHERE lease = ? RETURNING key, create_revision", (lease,)
        ).fetchall()
        number = self.revision + 1
        events = [
            (number, place, key, None, created, None, self.at)
            for place, (key, created) in enumerate(sorted(gone))
        ]
        if events:
            self._record(number, events)

    def _trim(self, newest: int, at: float) -> None:
        """Forget transactions beyond the count and the age kept, as of `newest`; it always stays itself."""
        young = self._execute(
            "SELECT revision FROM atoll_event WHERE at >= ? ORDER BY revision LIMIT 1", (at - HISTORY_S_MAX,)
        ).get
        oldest = max(newest - HISTORY_MAX + 1, newest if young is None else young)
        self._execute("DELETE FROM atoll_event WHERE revision < ?", (min(oldest, newest),))


def _signed(client: int) -> int:
    """SQLite's integers end where a client's number may not."""
    return client - (1 << 64) if client >= 1 << 63 else client


def _told_entry(
    revision: int, key: str, value: bytes | None, created: int, lease: str | None
) -> Entry | None:
    if value is None or len(value) > VALUE_MAX:
        return None
    return Entry(key, value, revision, created, lease)  # a lease's end is told as a commit of its own
