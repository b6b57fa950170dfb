"""SqliteBroker: the Broker port on one SQLite file, for several processes.

A ticket rack in a fireproof cabinet: what was accepted is on the disk before anybody is told so, and what was
handed out is written down as handed out before the ticket leaves the counter. So a worker that dies has
counted, and its ticket hangs there again when its lease is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import apsw

from atoll import clock
from atoll.engines.sqlite import broker_sql, place
from atoll.engines.sqlite.broker_sql import Moment
from atoll.engines.sqlite.envelope import check
from atoll.engines.sqlite.file import SqliteFile, SqliteOptions
from atoll.engines.sqlite.format import ensure
from atoll.engines.sqlite.limits import check_numbers
from atoll.engines.sqlite.line import Line
from atoll.errors import AtollError, ConfigurationError, LimitReached, OutcomeUnknown
from atoll.ports.address import Address
from atoll.ports.broker import (
    Accepted,
    BrokerClaims,
    Dead,
    Depth,
    Inspecting,
    Leased,
    Message,
    Settled,
    Taken,
)
from atoll.ports.store import Durable, Reach

T = TypeVar("T")

TAKE_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOptions:
    """Options of a `sqlite:///` broker. Times in seconds, sizes in bytes."""

    dedupe_window_s: float = 600.0
    """How long the id of a put and the end of a receipt are remembered; a row of about 150 bytes each."""
    body_bytes_max: int = 1 << 20
    messages_max: int = 1000
    """In one put."""
    bytes_max: int = 8 << 30
    """A put is refused when the file uses more than this."""
    ceiling_s: float = 10.0
    """The longest a call may take where no nearer `atoll.deadline` is set; waiting not counted."""
    shared_kernel: bool = False
    """The folder looks like a network's, but only this kernel ever opens the file."""
    vfs: str | None = None
    """A VFS registered with apsw; None: the system's."""
    create: bool = True
    """False: only a file and tables that are there already; nothing is made by asking."""

    def __post_init__(self) -> None:
        check_numbers(self, or_zero=("dedupe_window_s",))


class SqliteBroker:
    """Queues in one file; `sqlite:///queue.db`. Durable: NODE, forced before each answer. Reach: HOST.

    Inert until first use; opens anew in a forked child. Concurrent calls share a forced write.
    """

    def __init__(self, path: str | Path, *, options: BrokerOptions | None = None) -> None:
        self.path = str(path)
        self.options = options or BrokerOptions()
        self._url = f"sqlite:///{self.path}"
        self._file: SqliteFile | None = None
        self._pid = os.getpid()
        self._ready = False
        self._lines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Line]] = (
            weakref.WeakKeyDictionary()
        )
        self._undoing: set[asyncio.Future[None]] = set()
        self._leased = SqliteLeased(self)
        self._inspecting = SqliteInspecting(self)

    @classmethod
    def from_address(cls, address: Address) -> Self:
        """What `atoll.broker("sqlite:///queue.db")` makes."""
        broker = cls(place.path_of(address), options=address.parse_options(BrokerOptions))
        broker._url = str(address)
        return broker

    def __repr__(self) -> str:
        return f"<Broker {self._url}>"

    @property
    def url(self) -> str:
        return self._url

    @property
    def leased(self) -> Leased | None:
        return self._leased

    @property
    def inspecting(self) -> Inspecting | None:
        return self._inspecting

    @property
    def delaying(self) -> bool:
        return True

    async def open(self) -> BrokerClaims:
        """Open the file, make or check its tables; after a boot, end the leases of the boot before."""
        if self._pid != os.getpid():
            self._file, self._ready, self._pid = None, False, os.getpid()
            self._lines = weakref.WeakKeyDictionary()
        if self._file is None:
            self._file = SqliteFile.shared(
                self.path,
                SqliteOptions(
                    shared_kernel=self.options.shared_kernel,
                    ceiling_s=self.options.ceiling_s,
                    vfs=self.options.vfs,
                    create=self.options.create,
                ),
            )
        if not self._ready:
            now, window_s, create = moment(), self.remembered_s, self.options.create

            def prepare(connection: apsw.Connection) -> None:
                ensure(connection, broker_sql.PART, broker_sql.FORMAT, broker_sql.TABLES, create=create)
                broker_sql.rewind(connection, now, window_s)

            await self._file.write(prepare)
            self._ready = True
        return BrokerClaims(
            durable=Durable.NODE,
            reach=Reach.HOST,
            body_bytes_max=self.options.body_bytes_max,
            messages_max=self.options.messages_max,
            dedupe_window_s=self.options.dedupe_window_s,
        )

    async def close(self) -> None:
        """Give the file back; what waits stays. A verb opens it again."""
        file, self._file, self._ready = self._file, None, False
        if file is not None and self._pid == os.getpid():
            await file.release()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def remembered_s(self) -> float:
        """How long a settled receipt is remembered."""
        return max(60.0, self.options.dedupe_window_s)

    async def put(self, queue: str, messages: Sequence[Message]) -> Sequence[Accepted]:
        """All of them or none; on the disk when it returns."""
        options, kept, now = self.options, tuple(messages), moment()
        if len(kept) > options.messages_max:
            raise LimitReached(
                f"{len(kept)} messages in one put; at most {options.messages_max} (messages_max). Split it."
            )
        for message in kept:
            check(message, options.body_bytes_max)

        def work(connection: apsw.Connection) -> list[Accepted]:
            if (found := broker_sql.size(connection)) > options.bytes_max:
                raise LimitReached(
                    f"{self.path} uses {found} bytes; at most {options.bytes_max} (bytes_max). Nothing was "
                    "put: let the workers catch up, remove dead letters, or raise bytes_max.",
                    retry_after_s=1.0,
                )
            return broker_sql.put(connection, queue, kept, now, options.dedupe_window_s)

        return await self.write(work)

    async def take(self, queue: str, most: int, *, lease_s: float, wait_s: float = 0.0) -> Sequence[Taken]:
        """See the port. Waits for a commit, a delay's or a lease's end; asks nothing in between."""
        if most < 1 or not lease_s > 0 or not wait_s >= 0:
            raise ConfigurationError(
                f"found most={most}, lease_s={lease_s}, wait_s={wait_s}; expected most of 1 or more, lease_s "
                "greater than 0, wait_s of 0 or more."
            )
        until = clock.loop_now() + clock.remaining_s(wait_s)
        if not self._ready or self._pid != os.getpid():
            await self.open()
        line = self._line(queue)
        watcher = _Watcher(self, queue)
        while True:
            if line.empty or wait_s == 0:
                taken = await self._take(queue, min(most, TAKE_MAX), lease_s)
                if taken or until <= clock.loop_now():
                    return taken
            if not await line.wait(until, watcher.look, watcher.watch):
                return []
            if taken := await self._take(queue, min(most, TAKE_MAX), lease_s):
                return taken

    async def _take(self, queue: str, most: int, lease_s: float) -> list[Taken]:
        now, nonce = clock.lease_now(), f"{clock.chance().getrandbits(64):016x}"
        file = await self.file()
        try:
            return await file.write(
                lambda connection: broker_sql.take(connection, queue, most, now + lease_s, nonce, now=now)
            )
        except (asyncio.CancelledError, OutcomeUnknown):
            # It may be written all the same, unheard of: put it back instead of waiting out its lease.
            undoing = asyncio.ensure_future(_undo(file, queue, nonce))
            self._undoing.add(undoing)
            undoing.add_done_callback(self._undoing.discard)
            raise

    async def acknowledge(self, queue: str, receipts: Sequence[str]) -> Sequence[Settled]:
        """Settle what is still held; each answer is true of the disk."""
        kept, now = tuple(receipts), clock.lease_now()
        forget_at = now + self.remembered_s
        return await self.write(
            lambda connection: broker_sql.acknowledge(connection, queue, kept, now, forget_at)
        )

    async def give_back(
        self, queue: str, receipt: str, *, delay_s: float = 0.0, counted: bool = True
    ) -> Settled:
        """Have it wait again after `delay_s`; not `counted`: as if it had not been handed out."""
        if not 0 <= delay_s < math.inf:
            raise ConfigurationError(f"found delay_s={delay_s}; expected 0 or more.")
        now = moment()
        return await self.write(
            lambda connection: broker_sql.give_back(connection, queue, receipt, delay_s, now, counted=counted)
        )

    async def bury(self, queue: str, receipt: str, reason: str) -> Settled:
        """Keep it among the dead with `reason`."""
        now = moment()
        forget_at = now.lease + self.remembered_s
        return await self.write(
            lambda connection: broker_sql.bury(connection, queue, receipt, reason, now, forget_at=forget_at)
        )

    async def write(self, work: Callable[[apsw.Connection], T], *, forced: bool = True) -> T:
        """`work` in a write of the file, opened if need be."""
        return await (await self.file()).write(work, forced=forced)

    async def file(self) -> SqliteFile:
        """The file, open and of a format this broker reads."""
        if not self._ready or self._file is None or self._pid != os.getpid():
            await self.open()
        assert self._file is not None
        return self._file

    def _line(self, queue: str) -> Line:
        lines = self._lines.setdefault(asyncio.get_running_loop(), {})
        if queue not in lines:
            for name in [name for name, line in lines.items() if line.empty]:
                del lines[name]
            lines[queue] = Line()
        return lines[queue]


class _Watcher:
    """How one taker looks at its queue, and waits for the file to change."""

    def __init__(self, broker: SqliteBroker, queue: str) -> None:
        self._broker = broker
        self._queue = queue
        self._seen = -1

    async def look(self, most: int) -> tuple[int, float]:
        file = await self._broker.file()
        self._seen = file.version
        now = clock.lease_now()
        ready, due = await file.read(lambda connection: broker_sql.look(connection, self._queue, now, most))
        return ready, math.inf if due is None else due - clock.lease_now()

    async def watch(self, wait_s: float) -> None:
        file = await self._broker.file()
        await file.changed(file.version if self._seen < 0 else self._seen, wait_s)


class SqliteLeased:
    """A delivery is the taker's until its lease ends by the lease clock."""

    def __init__(self, broker: SqliteBroker) -> None:
        self._broker = broker

    async def extend(self, queue: str, receipt: str, lease_s: float) -> float | None:
        """Lease it for `lease_s` from now; not forced, because a power cut ends every lease anyway."""
        if not 0 < lease_s < math.inf:
            raise ConfigurationError(f"found lease_s={lease_s}; expected seconds greater than 0.")
        now = clock.lease_now()
        held = await self._broker.write(
            lambda connection: broker_sql.extend(connection, queue, receipt, now + lease_s, now), forced=False
        )
        return lease_s if held else None


class SqliteInspecting:
    """What waits and what died."""

    def __init__(self, broker: SqliteBroker) -> None:
        self._broker = broker

    async def depths(self) -> Sequence[Depth]:
        now = clock.lease_now()
        return await (await self._broker.file()).read(lambda connection: broker_sql.depths(connection, now))

    async def dead(self, queue: str, limit: int = 100) -> Sequence[Dead]:
        file = await self._broker.file()
        return await file.read(lambda connection: broker_sql.dead(connection, queue, limit))

    async def revive(self, queue: str, ids: Sequence[str]) -> int:
        kept, now = tuple(ids), moment()
        return await self._broker.write(lambda connection: broker_sql.revive(connection, queue, kept, now))


def moment() -> Moment:
    """Now, by the clocks in use here."""
    return Moment(lease=clock.lease_now(), boot=clock.boot_id(), wall=clock.wall_now())


async def _undo(file: SqliteFile, queue: str, nonce: str) -> None:
    """Put back what a take that nobody heard of has handed out; its lease does, where this fails."""
    with contextlib.suppress(AtollError, apsw.Error):
        await file.write(lambda connection: broker_sql.untake(connection, queue, nonce))
