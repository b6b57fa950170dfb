"""The four joined verbs as SQL for SQLite, whatever library carries it.

The words of the contract, without the pen. Each function speaks through `execute(sql, parameters) -> rows`
and
neither waits, commits nor rolls back; who calls it owns the transaction.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from atoll import clock
from atoll.engines.sqlite.envelope import check
from atoll.errors import Conflict, FormatRefused, LimitReached, Refused
from atoll.ports.broker import Message
from atoll.ports.joined import Staged
from atoll.ports.store import Token

Rows = list[tuple[Any, ...]]
Execute = Callable[[str, Sequence[Any]], Rows]

PART = "joined"
FORMAT = 1
BODY_BYTES_MAX = 1 << 20
MESSAGES_MAX = 10_000

# The position is made here and not by SQLite, because two prepared branches would be given the same rowid.
TABLES = (
    """CREATE TABLE IF NOT EXISTS atoll_inbox (
  scope TEXT NOT NULL,
  id TEXT NOT NULL,
  seen_at REAL NOT NULL,
  PRIMARY KEY (scope, id)
) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS atoll_inbox_seen_at ON atoll_inbox (seen_at)",
    """CREATE TABLE IF NOT EXISTS atoll_fence (
  resource TEXT PRIMARY KEY,
  epoch INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  passes INTEGER NOT NULL
) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS atoll_outbox (
  position INTEGER PRIMARY KEY,
  queue TEXT NOT NULL,
  id TEXT NOT NULL,
  key TEXT,
  body BLOB NOT NULL,
  headers TEXT NOT NULL,
  delay_s REAL NOT NULL,
  put_at REAL NOT NULL,
  claimed_until REAL NOT NULL DEFAULT 0,
  claimed_boot TEXT NOT NULL DEFAULT ''
)""",
)
FORMATS = (
    "CREATE TABLE IF NOT EXISTS atoll_format (part TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID"
)


def schema() -> str:
    """Atoll's tables in the user's database, as SQL."""
    note = f"INSERT OR IGNORE INTO atoll_format (part, number) VALUES ('{PART}', {FORMAT})"
    return ";\n".join((FORMATS, *TABLES, note)) + ";\n"


def ensure(execute: Execute, where: str) -> None:
    """Make the tables, or refuse those of a newer format."""
    execute(FORMATS, ())
    found = execute("SELECT number FROM atoll_format WHERE part = ?", (PART,))
    if found and found[0][0] > FORMAT:
        raise FormatRefused(
            f"{where}: its outbox tables have format {found[0][0]}, and this Atoll reads up to {FORMAT}. A "
            "newer Atoll wrote them; upgrade this one. Nothing was changed."
        )
    if not found:
        for table in TABLES:
            execute(table, ())
        execute("INSERT INTO atoll_format (part, number) VALUES (?, ?)", (PART, FORMAT))


def once(execute: Execute, scope: str, id: str) -> bool:
    """Whether `id` was not seen in `scope` before; the insert itself takes the write lock."""
    return bool(
        execute(
            "INSERT INTO atoll_inbox (scope, id, seen_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING RETURNING "
            "1",
            (scope, id, clock.wall_now()),
        )
    )


def fence(execute: Execute, resource: str, token: Token) -> None:
    """Note the token if none greater is noted, else Refused.

    Every pass changes the row, also with an equal token: so a prepared branch that was fenced holds the row,
    and a newer holder waits for its end instead of reading around it.
    """
    passed = execute(
        "INSERT INTO atoll_fence (resource, epoch, revision, passes) VALUES (?, ?, ?, 1) ON CONFLICT "
        "(resource) DO UPDATE SET epoch = excluded.epoch, revision = excluded.revision, passes = "
        "atoll_fence.passes + 1 WHERE (excluded.epoch, excluded.revision) >= (atoll_fence.epoch, "
        "atoll_fence.revision) RETURNING 1",
        (resource, token.epoch, token.revision),
    )
    if not passed:
        noted = Token(*execute("SELECT epoch, revision FROM atoll_fence WHERE resource = ?", (resource,))[0])
        raise Refused(
            f"{resource}: your token is {token}, and a holder with the newer token {noted} has been here. "
            "Your hold is over; nothing of this transaction may stand. Leave the block and acquire it "
            "again."
        )


def put(execute: Execute, queue: str, messages: Sequence[Message]) -> None:
    """Stage the messages, in their order and after those already there."""
    if len(messages) > MESSAGES_MAX:
        raise LimitReached(f"{len(messages)} messages in one put; at most {MESSAGES_MAX}. Put them in parts.")
    for message in messages:
        check(message, BODY_BYTES_MAX)
    if not messages:
        return
    now = clock.wall_now()
    luck = clock.chance().getrandbits(10)
    last = execute("SELECT max(position) FROM atoll_outbox", ())[0][0] or 0
    first = max(int(now * 1e6) << 10 | luck, last + 1 + luck)
    for position, message in enumerate(messages, first):
        execute(
            "INSERT INTO atoll_outbox (position, queue, id, key, body, headers, delay_s, put_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                position,
                queue,
                message.id,
                message.key,
                message.body,
                json.dumps(dict(message.headers)),
                message.delay_s,
                now,
            ),
        )


def any_staged(execute: Execute, queues: Sequence[str]) -> bool:
    """Whether something of these queues is there to be claimed; takes no write lock."""
    return bool(
        execute(
            f"SELECT 1 FROM atoll_outbox WHERE queue IN ({_marks(queues)}) AND NOT (claimed_boot = ? AND "
            "claimed_until > ?) LIMIT 1",
            (*queues, clock.boot_id(), clock.lease_now()),
        )
    )


def staged(execute: Execute, limit: int, claim_s: float, queues: Sequence[str]) -> list[Staged]:
    """Claim the oldest unclaimed of these queues for `claim_s`; a claim of another boot is over."""
    now, boot = clock.lease_now(), clock.boot_id()
    rows = execute(
        "UPDATE atoll_outbox SET claimed_until = ?, claimed_boot = ? WHERE position IN (SELECT position "
        f"FROM atoll_outbox WHERE queue IN ({_marks(queues)}) AND NOT (claimed_boot = ? AND claimed_until > "
        "?) ORDER BY position LIMIT ?) RETURNING position, queue, id, key, body, headers, delay_s, put_at",
        (now + claim_s, boot, *queues, boot, now, limit),
    )
    return [
        Staged(
            position=position,
            queue=queue,
            message=Message(id=id, body=body, key=key, headers=json.loads(headers), delay_s=delay_s),
            put_at=put_at,
        )
        for position, queue, id, key, body, headers, delay_s, put_at in sorted(rows)
    ]


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def queues(execute: Execute) -> list[str]:
    """The names of the queues that something is staged for."""
    return [name for (name,) in execute("SELECT DISTINCT queue FROM atoll_outbox ORDER BY queue", ())]


def forget(execute: Execute, positions: Sequence[int]) -> None:
    """Remove what has been sent."""
    for position in positions:
        execute("DELETE FROM atoll_outbox WHERE position = ?", (position,))


def waiting(execute: Execute) -> tuple[int, float]:
    """How many are staged, and the age of the oldest in seconds."""
    count, oldest = execute("SELECT count(*), min(put_at) FROM atoll_outbox", ())[0]
    return count, max(0.0, clock.wall_now() - oldest) if count else 0.0


def prune(execute: Execute, seen_max_s: float, limit: int = 1000) -> None:
    """Forget the oldest ids of the inbox that are past their retention, a bounded number at a time."""
    execute(
        "DELETE FROM atoll_inbox WHERE (scope, id) IN "
        "(SELECT scope, id FROM atoll_inbox WHERE seen_at < ? LIMIT ?)",
        (clock.wall_now() - seen_max_s, limit),
    )


def conflict(what: str, *, stale: bool) -> Conflict:
    """SQLite's two kinds of busy, in one sentence each."""
    if stale:
        return Conflict(
            f"{what}: this transaction had read before it wrote, and another one committed in between, so "
            "it can never be committed. Nothing was written. Roll it back and retry the whole transaction; "
            "`fence` or `once` as the first statement avoids it."
        )
    return Conflict(
        f"{what}: another transaction had the write lock for longer than this one waits. Nothing was "
        "written by this statement. Roll back and retry the whole transaction."
    )
