"""The queue as SQL: what a ticket rack looks like in tables.

One row is one message, and `state` says where it is: waiting, in hand, or settled. `due` is always the
moment at
which the row next moves by itself: handed out not before it, returned at it, forgotten at it. All moments
are of
the lease clock, and of one boot; the first to come after a boot moves the hands (`rewind`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from atoll.ports.broker import Accepted, Dead, Depth, Message, Settled, Taken

Rows = list[tuple[Any, ...]]

PART = "broker"
FORMAT = 1
WAITING, IN_HAND, SETTLED = 0, 1, 2
ACKNOWLEDGED, GIVEN_BACK, BURIED, OVER = "acknowledged", "given back", "buried", "over"
PRUNE_EXTRA = 64

TABLES = (
    """CREATE TABLE atoll_message (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  queue TEXT NOT NULL,
  state INTEGER NOT NULL,
  due REAL NOT NULL,
  first_due REAL NOT NULL,
  due_wall REAL NOT NULL,
  put_clock REAL NOT NULL,
  put_at REAL NOT NULL,
  attempts INTEGER NOT NULL,
  receipt TEXT NOT NULL,
  ended TEXT NOT NULL,
  id TEXT NOT NULL,
  key TEXT,
  headers TEXT NOT NULL,
  body BLOB NOT NULL
)""",
    "CREATE INDEX atoll_message_due ON atoll_message (queue, state, due)",
    "CREATE INDEX atoll_message_id ON atoll_message (queue, id)",
    """CREATE TABLE atoll_dead (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  queue TEXT NOT NULL,
  id TEXT NOT NULL,
  key TEXT,
  headers TEXT NOT NULL,
  body BLOB NOT NULL,
  attempts INTEGER NOT NULL,
  reason TEXT NOT NULL,
  buried_at REAL NOT NULL
)""",
    "CREATE INDEX atoll_dead_queue ON atoll_dead (queue, seq)",
    "CREATE TABLE atoll_broker_boot (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), boot TEXT NOT NULL)",
)


@dataclass(frozen=True, slots=True)
class Moment:
    """When a call was sent: lease clock, the boot it counts in, and the wall clock for people."""

    lease: float
    boot: str
    wall: float


def rewind(connection: apsw.Connection, now: Moment, window_s: float) -> None:
    """After a boot: every lease is over, delays go on by the wall clock, the lease clock has begun anew."""
    boot = connection.execute("SELECT boot FROM atoll_broker_boot").get
    if boot == now.boot:
        return
    if boot is not None:
        shift = now.lease - now.wall
        connection.execute(
            "UPDATE atoll_message SET ended = CASE state WHEN 1 THEN 'over' ELSE ended END, "
            "state = CASE state WHEN 1 THEN 0 ELSE state END, "
            "due = CASE state WHEN 2 THEN ? ELSE due_wall + ? END, first_due = due_wall + ?, "
            "put_clock = min(put_at + ?, ?)",
            (now.lease + window_s, shift, shift, shift, now.lease),
        )
    connection.execute(
        "INSERT INTO atoll_broker_boot VALUES (1, ?) ON CONFLICT (only_row) DO UPDATE SET boot = "
        "excluded.boot",
        (now.boot,),
    )


def put(
    connection: apsw.Connection, queue: str, messages: Sequence[Message], now: Moment, window_s: float
) -> list[Accepted]:
    """Insert what is not a duplicate; forget old settled ones, so the table stays bounded."""
    answers = []
    for message in messages:
        if (
            window_s > 0
            and connection.execute(
                "SELECT 1 FROM atoll_message WHERE queue = ? AND id = ? AND put_clock > ? LIMIT 1",
                (queue, message.id, now.lease - window_s),
            ).get
        ):
            answers.append(Accepted.DUPLICATE)
            continue
        due = now.lease + message.delay_s
        wall = now.wall + message.delay_s
        headers = json.dumps(dict(message.headers)) if message.headers else "{}"
        connection.execute(
            "INSERT INTO atoll_message (queue, state, due, first_due, due_wall, put_clock, put_at, attempts, "
            "receipt, ended, id, key, headers, body) VALUES (?, 0, ?, ?, ?, ?, ?, 0, '', '', ?, ?, ?, ?)",
            (queue, due, due, wall, now.lease, now.wall, message.id, message.key, headers, message.body),
        )
        answers.append(Accepted.ACCEPTED)
    connection.execute(
        "DELETE FROM atoll_message WHERE seq IN (SELECT seq FROM atoll_message "
        "WHERE queue = ? AND state = 2 AND due <= ? LIMIT ?)",
        (queue, now.lease, PRUNE_EXTRA + 2 * len(messages)),
    )
    return answers


def size(connection: apsw.Connection) -> int:
    """Bytes in use in the file, whoever uses them."""
    pages = connection.pragma("page_count") - connection.pragma("freelist_count")
    return int(pages * connection.pragma("page_size"))


def look(connection: apsw.Connection, queue: str, now: float, most: int) -> tuple[int, float | None]:
    """How many could be handed out now, up to `most`; else when the next moves by itself, None: none."""
    ready = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM atoll_message WHERE queue = ?1 AND state = 0 AND due <= ?2 "
        "UNION ALL SELECT 1 FROM atoll_message WHERE queue = ?1 AND state = 1 AND due <= ?2 LIMIT ?3)",
        (queue, now, most),
    ).get
    if ready:
        return int(ready), None
    due = connection.execute(
        "SELECT min(due) FROM (SELECT min(due) AS due FROM atoll_message WHERE queue = ?1 AND state = 0 "
        "UNION ALL SELECT min(due) FROM atoll_message WHERE queue = ?1 AND state = 1)",
        (queue,),
    ).get
    return 0, due


def take(
    connection: apsw.Connection, queue: str, most: int, until: float, nonce: str, *, now: float
) -> list[Taken]:
    """Bring back what was in hand for too long, then hand out the oldest that are due, attempts counted."""
    connection.execute(
        "UPDATE atoll_message SET state = 0, due = first_due, ended = 'over' "
        "WHERE queue = ? AND state = 1 AND due <= ?",
        (queue, now),
    )
    rows: Rows = connection.execute(
        "UPDATE atoll_message SET state = 1, due = ?, attempts = attempts + 1, ended = '', "
        "receipt = seq || '.' || (attempts + 1) || '.' || ? WHERE seq IN (SELECT seq FROM atoll_message "
        "WHERE queue = ? AND state = 0 AND due <= ? ORDER BY due, seq LIMIT ?) "
        "RETURNING first_due, seq, id, body, key, headers, receipt, attempts, put_at",
        (until, nonce, queue, now, most),
    ).fetchall()
    return [
        Taken(
            queue=queue,
            message=Message(id=id, body=body, key=key, headers=json.loads(headers)),
            receipt=receipt,
            attempt=attempts,
            lease_until=until,
            put_at=put_at,
        )
        for _, _, id, body, key, headers, receipt, attempts, put_at in sorted(rows, key=lambda row: row[:2])
    ]


def untake(connection: apsw.Connection, queue: str, nonce: str) -> None:
    """Have what the take of `nonce` handed out wait again, its attempt not counted: nobody has seen it."""
    connection.execute(
        "UPDATE atoll_message SET state = 0, due = first_due, attempts = attempts - 1, ended = 'given back' "
        "WHERE queue = ? AND state = 1 AND receipt LIKE '%.' || ?",
        (queue, nonce),
    )


def _held(connection: apsw.Connection, queue: str, receipt: str, verb: str, now: float) -> int | Settled:
    """The row that `receipt` holds; or what to answer, because it holds nothing any more."""
    number, _, rest = receipt.partition(".")
    attempt = rest.partition(".")[0]
    if not (number.isdecimal() and attempt.isdecimal() and len(number) < 19):
        return Settled.UNKNOWN
    row = connection.execute(
        "SELECT state, due, receipt, ended FROM atoll_message WHERE seq = ? AND queue = ?",
        (int(number), queue),
    ).fetchone()
    if row is None:
        return Settled.UNKNOWN
    state, due, current, ended = row
    if receipt != current:
        # Not the count of attempts: one taken back is given to the next, who then holds it in its place.
        newest = current.partition(".")[2].partition(".")[0]
        return Settled.LATE if newest and int(attempt) <= int(newest) else Settled.UNKNOWN
    if state == IN_HAND:
        return int(number) if due > now else Settled.LATE
    return Settled.ACKED if ended == verb else Settled.LATE


def acknowledge(
    connection: apsw.Connection, queue: str, receipts: Sequence[str], now: float, forget_at: float
) -> list[Settled]:
    """Settle each that is still held. The row stays until `forget_at`, without its body."""
    answers = []
    for receipt in receipts:
        held = _held(connection, queue, receipt, ACKNOWLEDGED, now)
        if isinstance(held, int):
            _settle(connection, held, ACKNOWLEDGED, forget_at)
            answers.append(Settled.ACKED)
        else:
            answers.append(held)
    return answers


def _settle(connection: apsw.Connection, seq: int, ended: str, forget_at: float) -> None:
    connection.execute(
        "UPDATE atoll_message SET state = 2, due = ?, ended = ?, headers = '{}', body = x'' WHERE seq = ?",
        (forget_at, ended, seq),
    )


def give_back(
    connection: apsw.Connection, queue: str, receipt: str, delay_s: float, now: Moment, *, counted: bool
) -> Settled:
    """Have it wait again, from `delay_s` on; its attempt taken back unless `counted`."""
    held = _held(connection, queue, receipt, GIVEN_BACK, now.lease)
    if not isinstance(held, int):
        return held
    due = now.lease + delay_s
    connection.execute(
        "UPDATE atoll_message SET state = 0, due = ?, first_due = ?, due_wall = ?, ended = ?, "
        "attempts = attempts - ? WHERE seq = ?",
        (due, due, now.wall + delay_s, GIVEN_BACK, not counted, held),
    )
    return Settled.ACKED


def bury(
    connection: apsw.Connection, queue: str, receipt: str, reason: str, now: Moment, *, forget_at: float
) -> Settled:
    """Move it among the dead."""
    held = _held(connection, queue, receipt, BURIED, now.lease)
    if not isinstance(held, int):
        return held
    connection.execute(
        "INSERT INTO atoll_dead (queue, id, key, headers, body, attempts, reason, buried_at) "
        "SELECT queue, id, key, headers, body, attempts, ?, ? FROM atoll_message WHERE seq = ?",
        (reason, now.wall, held),
    )
    _settle(connection, held, BURIED, forget_at)
    return Settled.ACKED


def extend(connection: apsw.Connection, queue: str, receipt: str, until: float, now: float) -> bool:
    """Whether it was still in hand, and is now until `until`."""
    held = _held(connection, queue, receipt, "", now)
    if not isinstance(held, int):
        return False
    connection.execute("UPDATE atoll_message SET due = ? WHERE seq = ?", (until, held))
    return True


def depths(connection: apsw.Connection, now: float) -> list[Depth]:
    """Every queue that holds something, by name."""
    buried: Rows = connection.execute("SELECT queue, count(*) FROM atoll_dead GROUP BY queue").fetchall()
    dead: dict[str, int] = dict(buried)
    alive: Rows = connection.execute(
        "SELECT queue, sum(state < 2 AND due <= ?1), sum(state = 0 AND due > ?1), sum(state = 1 AND due > "
        "?1), min(CASE WHEN state < 2 THEN put_clock END) FROM atoll_message GROUP BY queue",
        (now,),
    ).fetchall()
    rows = {queue: (ready, delayed, leased, oldest) for queue, ready, delayed, leased, oldest in alive}
    return [
        Depth(
            queue=queue,
            ready=ready,
            delayed=delayed,
            leased=leased,
            dead=dead.get(queue, 0),
            oldest_age_s=max(0.0, now - oldest) if oldest is not None else 0.0,
        )
        for queue in sorted({*rows, *dead})
        for ready, delayed, leased, oldest in [rows.get(queue, (0, 0, 0, None))]
    ]


def dead(connection: apsw.Connection, queue: str, limit: int) -> list[Dead]:
    """The buried, the longest buried first."""
    rows: Rows = connection.execute(
        "SELECT id, body, key, headers, attempts, reason, buried_at FROM atoll_dead WHERE queue = ? "
        "ORDER BY seq LIMIT ?",
        (queue, limit),
    ).fetchall()
    return [
        Dead(
            queue=queue,
            message=Message(id=id, body=body, key=key, headers=json.loads(headers)),
            attempts=attempts,
            reason=reason,
            buried_at=buried_at,
        )
        for id, body, key, headers, attempts, reason, buried_at in rows
    ]


def revive(connection: apsw.Connection, queue: str, ids: Sequence[str], now: Moment) -> int:
    """Have buried messages wait again as if just put; answers how many."""
    revived = 0
    for id in ids:
        for (seq,) in connection.execute(
            "SELECT seq FROM atoll_dead WHERE queue = ? AND id = ? ORDER BY seq", (queue, id)
        ).fetchall():
            connection.execute(
                "INSERT INTO atoll_message (queue, state, due, first_due, due_wall, put_clock, put_at, "
                "attempts, receipt, ended, id, key, headers, body) SELECT queue, 0, ?1, ?1, ?2, ?1, ?2, 0, "
                "'', '', id, key, headers, body FROM atoll_dead WHERE seq = ?3",
                (now.lease, now.wall, seq),
            )
            connection.execute("DELETE FROM atoll_dead WHERE seq = ?", (seq,))
            revived += 1
    return revived
