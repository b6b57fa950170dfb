"""SqliteStore: the Store port on one SQLite file, shared by the processes of one machine.

The default: nothing to install, nothing to start. What was answered is on the disk, what a killed
process held comes free by itself, and the file is one that every SQLite tool can open and read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Self

import apsw

from atoll import clock
from atoll.engines.parts import pages
from atoll.engines.sqlite import format, history, leases, ledger, place, watchman
from atoll.engines.sqlite.examining import SqliteExamining
from atoll.engines.sqlite.file import SqliteFile
from atoll.engines.sqlite.history import SqliteHistory
from atoll.engines.sqlite.lane import T, Work
from atoll.engines.sqlite.leases import SqliteLeasing
from atoll.engines.sqlite.ledger import Asked, Clocks, Times
from atoll.engines.sqlite.limits import StoreOptions
from atoll.engines.sqlite.moving import SqliteMoving
from atoll.engines.sqlite.watchman import Watchman
from atoll.errors import ConfigurationError, OutcomeUnknown
from atoll.ports import refusal
from atoll.ports.address import Address
from atoll.ports.examining import Examining
from atoll.ports.register import Applied, Got, Observation, Unmet
from atoll.ports.store import (
    Compare,
    Durable,
    Guard,
    History,
    Leasing,
    Moving,
    Operation,
    Ranged,
    Reach,
    StoreClaims,
    delete,
    put,
    unchanged,
)

EXPIRY_LATE_MAX_S = 1.0
"""Whoever reads, writes or watches ends what is over first; this is for a writer that is busy."""


class SqliteStore:
    """A store in a file. Durable: NODE. Reach: HOST. Inert until first use; reopens in a forked child."""

    def __init__(self, path: str, *, options: StoreOptions | None = None) -> None:
        self.options = options or StoreOptions()
        self._path = os.path.abspath(path) if path and path != ":memory:" else path
        self._url = str(Address(scheme="sqlite", path=path))
        self._file: SqliteFile | None = None
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._ready = False
        self.life = 0
        """Rises when the handle is closed; a watch begun before it ends."""
        self._leasing = SqliteLeasing(self)
        self._history = SqliteHistory(self)
        self._moving = SqliteMoving(self)
        self._examining = SqliteExamining(self)

    @classmethod
    def from_address(cls, address: Address) -> Self:
        """The store that `sqlite:///state.db?option=value` names."""
        store = cls(place.path_of(address), options=address.parse_options(StoreOptions))
        store._url = str(address)
        return store

    def __repr__(self) -> str:
        return f"<Store {self._url}>"

    @property
    def url(self) -> str:
        return self._url

    @property
    def leasing(self) -> Leasing | None:
        return self._leasing

    @property
    def history(self) -> History | None:
        return self._history

    @property
    def moving(self) -> Moving | None:
        return self._moving

    @property
    def examining(self) -> Examining | None:
        return self._examining

    @property
    def shadow(self) -> None:
        return None

    @property
    def path(self) -> str:
        """The file, absolute."""
        return self._path

    @property
    def version(self) -> int:
        """See SqliteFile.version."""
        return self._file.version if self._file is not None else 0

    @property
    def failed(self) -> str | None:
        """Why the file was closed by itself, None while it works."""
        return self._file.failed if self._file is not None else None

    async def open(self) -> StoreClaims:
        """Open the file, make or check the tables, end what an earlier boot left. Cheap when open."""
        await self._opened()
        return StoreClaims(
            durable=Durable.NODE,
            reach=Reach.HOST,
            expiry_late_max_s=EXPIRY_LATE_MAX_S,
            key_bytes_max=self.options.key_bytes_max,
            value_bytes_max=self.options.value_bytes_max,
            operations_max=self.options.operations_max,
            dedupe_window_s=self.options.dedupe_window_s,
            epoch_source="a row in the file, raised by moving.bump(); a file copied back keeps its own",
            liveness_s=history.LIVENESS_S,
        )

    async def close(self) -> None:
        """End this handle's watches with WatchLost and give the file back. A verb opens it again."""
        with self._lock:
            file, self._file, self._ready = self._file, None, False
            self.life += 1
        if file is not None and file.pid == os.getpid():
            file.notify()
            await file.release()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def epoch(self) -> int:
        return await self.read(ledger.epoch)

    async def get(self, key: str) -> Got:
        refusal.check_key(key, self.options)
        return await self.read(lambda connection: ledger.got(connection, key))

    async def range(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int = 1000
    ) -> Ranged:
        """Entries below `prefix`, or of start <= key < end, or of both, as of one revision."""
        refusal.check_limit(limit)
        return await self.read(lambda connection: ledger.ranged(connection, prefix, start, end, limit))

    async def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
        return await self.transact(put(key, value), compare=[unchanged(key, revision)])

    async def delete_if(self, key: str, revision: int) -> Applied | Unmet:
        return await self.transact(delete(key), compare=[unchanged(key, revision)])

    async def transact(
        self,
        *then: Operation,
        compare: Sequence[Compare] = (),
        guard: Guard | None = None,
        request_id: str | None = None,
    ) -> Applied | Unmet:
        refusal.check_transaction(then, compare, guard, self.options)
        if guard is not None:
            guard.check()
        asked, clocks, options = Asked(then, compare, guard, request_id), self.clocks(), self.options

        def work(connection: apsw.Connection) -> Applied | Unmet:
            times = clocks()
            leases.sweep(connection, times)
            return ledger.transact(connection, asked, times, options)

        try:
            return await self.write(work)
        except OutcomeUnknown as error:
            error.id = error.id or request_id
            raise

    async def observe(self, prefix: str) -> AsyncIterator[Observation]:
        """See the port. One observation for each transaction; a reset when it fell behind the history."""
        await self._opened()
        async for observation in pages.observe(history.Pages(self), prefix):
            yield observation

    async def read(self, work: Work[T]) -> T:
        """Run `work` on one snapshot in which no lease is over."""
        file, clocks = await self._opened(), self.clocks()

        def due(connection: apsw.Connection) -> tuple[bool, T | None]:
            if leases.next_due(connection) <= clocks().lease_now:
                return True, None
            return False, work(connection)

        while True:
            over, answer = await file.read(due)
            if not over:
                return answer  # type: ignore[return-value]
            await file.write(lambda connection: leases.sweep(connection, clocks()))

    async def write(self, work: Work[T], *, forced: bool = True) -> T:
        """Run `work` as one transaction of the file; see SqliteFile.write."""
        file = self._file
        if file is None or not self._ready or self._pid != os.getpid():
            file = await self._opened()
        return await file.write(work, forced=forced)

    def watchman(self) -> Watchman | None:
        """Who reads the news for this event loop; None while the file is closed here."""
        return watchman.of(self._file) if self._file is not None else None

    def clocks(self) -> Clocks:
        """Reads the caller's clock wherever it is called."""
        mine = clock.current()
        return lambda: Times(mine.boot_id, mine.lease_now(), mine.wall_now())

    async def _opened(self) -> SqliteFile:
        if self._pid != os.getpid():
            self._lock, self._pid = threading.Lock(), os.getpid()
            self._file, self._ready = None, False
            self.life += 1
        with self._lock:
            if self._file is None:
                self._file, self._ready = SqliteFile.shared(self._path, self.options), False
            file = self._file
        if not self._ready:
            await self._prepare(file)
            self._ready = True
        return file

    async def _prepare(self, file: SqliteFile) -> None:
        clocks = self.clocks()
        await file.write(self._ensure)
        await self._refuse_two_kernels(file, clocks)
        await file.write(lambda c: leases.end_other_boots(c, clocks()))

    def _ensure(self, connection: apsw.Connection) -> None:
        part, number, create = ledger.PART, ledger.FORMAT, self.options.create
        format.ensure(connection, part, number, ledger.DDL, ledger.UPGRADES, create=create)

    async def _refuse_two_kernels(self, file: SqliteFile, clocks: Clocks) -> None:
        """A young lease of another boot: this machine has just restarted, or another one has the file."""
        first = young = await file.read(lambda c: leases.foreign(c, clocks()))
        until = clock.call_deadline(self.options.ceiling_s)
        while young:
            renewed = [id for id, (wall, _) in young.items() if id not in first or wall > first[id][0]]
            left_s = max(left for _, left in young.values())
            if renewed or clock.loop_now() > until:
                why = "renewed it just now" if renewed else f"may have it for {left_s:.0f} s yet"
                raise ConfigurationError(
                    f"found in {self._path} a lease of another boot; its holder {why}: another kernel "
                    "has the file, and neither sees the other's locks. Keep the file on one machine, in no "
                    "shared folder. If this machine has just restarted, open it again a little later."
                )
            await file.changed(file.version, min(left_s + 0.01, 0.25))
            young = await file.read(lambda c: leases.foreign(c, clocks()))
