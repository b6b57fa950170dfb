"""A SQLite file that can promise to commit before it does.

A notary's office: you sign, the paper goes into the safe, and from then on anybody with the decision in his
hand can have it carried out, also after a fire in your own house. The safe is two tables in your file.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import apsw

from atoll import clock
from atoll.engines.sqlite import changeset, format, row_lock
from atoll.engines.sqlite.changeset import Recording
from atoll.engines.sqlite.transaction import SqliteTransaction
from atoll.errors import ConfigurationError, Conflict
from atoll.ports.participant import Finished, InDoubt, Isolates, Outcome, ParticipantClaims, Survives, Vote

if TYPE_CHECKING:
    from atoll.engines.sqlite.database import SqliteDatabase
    from atoll.engines.sqlite.session import Session

log = logging.getLogger("atoll.transaction")

ID_BYTES_MAX = 64
T = TypeVar("T")


class BranchTransaction(SqliteTransaction):
    """The transaction of a branch: as any other, but it cannot change the schema or end by itself."""

    def __init__(self, session: Session, name: str, recording: Recording, *, ceiling_s: float) -> None:
        super().__init__(session, name, ceiling_s=ceiling_s)
        self._recording = recording

    async def run(self, work: Callable[[apsw.Connection], T]) -> T:
        try:
            return await super().run(work)
        except apsw.AuthError as error:
            what = self._recording.denied[-1] if self._recording.denied else "this"
            raise ConfigurationError(
                f"{what} cannot be part of a transaction over several databases: SQLite could not promise it "
                f"before the decision. Do it on {self.name} in a transaction of its own."
            ) from error
        except apsw.ConstraintError as error:
            if row_lock.refused(error):
                raise row_lock.conflict(self.name) from error
            raise


class SqliteBranch:
    """One file's part of a transaction, open in this process; made by `SqliteParticipant.begin`."""

    def __init__(self, participant: SqliteParticipant, id: str) -> None:
        self.id = id
        self._participant = participant
        self._stack = AsyncExitStack()
        self._session: Session | None = None
        self._recording: Recording | None = None
        self._tx: BranchTransaction | None = None
        self._end_turn: Callable[[], None] = _nothing
        self._promised = False

    @property
    def tx(self) -> SqliteTransaction:
        """What `database.begin()` gives: `await tx.execute(sql, parameters)`."""
        assert self._tx is not None
        return self._tx

    async def begin(self) -> None:
        """Take the turn to write and begin."""
        database = self._participant.database
        try:
            self._end_turn = await self._stack.enter_async_context(database._turn())
            self._session = session = await self._stack.enter_async_context(database.session())
            ceiling_s = database.options.ceiling_s

            def start(connection: apsw.Connection) -> Recording:
                connection.execute("BEGIN IMMEDIATE")
                recording = Recording(connection, database.name)
                recording.start()
                return recording

            self._recording = await session.run(start, ceiling_s=database.options.wait_s)
            self._tx = BranchTransaction(session, database.name, self._recording, ceiling_s=ceiling_s)
        except BaseException:
            await self._leave()
            raise

    async def prepare(self) -> Vote:
        """Give the promise, forced to the disk. An error promised nothing, but OutcomeUnknown."""
        session, recording = self._session, self._recording
        if session is None or recording is None:
            raise Conflict(f"the branch {self.id} of {self._participant.name} is over. Begin anew.")
        if self._tx is not None:
            self._tx.over = True
        now = clock.wall_now()

        def promise(connection: apsw.Connection) -> Vote:
            if not connection.in_transaction:
                raise Conflict(
                    f"SQLite rolled back what was done to {recording.file} by itself. Nothing was "
                    "written; begin again."
                )
            vote = changeset.prepare(recording, self.id, now)
            if vote is Vote.PREPARED:
                self._promised = True
                connection.execute("COMMIT")
            _close(connection, recording)
            self._end_turn()  # here and not on the event loop: the next one begins that much sooner
            return vote

        try:
            vote = await session.run(
                promise, ceiling_s=self._participant.database.options.ceiling_s, final=True
            )
        except BaseException:
            await self._leave()
            raise
        self._session = None
        await self._left()
        return vote

    async def abort(self) -> None:
        """Undo it; a promise that was given, or may have been, is taken back."""
        if self._session is not None:
            await self._leave()
        if self._promised:
            self._promised = False
            await self._participant.finish(self.id, Outcome.ABORT)

    async def _leave(self) -> None:
        """Give session and turn back, rolled back if still open; also when cancelled meanwhile."""
        session, recording, self._session = self._session, self._recording, None
        if self._tx is not None:
            self._tx.over = True

        async def leave() -> None:
            try:
                if session is not None:
                    await session.run(lambda connection: _close(connection, recording), final=True)
            except Exception as error:
                log.debug("%s of %s: its session ends with it: %r", self.id, self._participant.name, error)
            finally:
                await self._left()

        await _to_its_end(leave())

    async def _left(self) -> None:
        """The session and the turn are given back; nothing here waits."""
        await self._stack.aclose()
        self._participant.opened.discard(self.id)
        if self._promised:
            self._participant.database.file.notify()


def _nothing() -> None:
    """Before there is a turn."""


def _close(connection: apsw.Connection, recording: Recording | None) -> None:
    if recording is not None:
        recording.stop()
    connection.authorizer = None
    if connection.in_transaction:
        connection.execute("ROLLBACK")


class SqliteParticipant:
    """The Participant of a `SqliteDatabase`; `database.participant` gives it."""

    def __init__(self, database: SqliteDatabase) -> None:
        self.database = database
        self.opened: set[str] = set()
        """Ids of branches open and not yet prepared in this process."""
        self._ready: object = None

    def __repr__(self) -> str:
        return f"<SqliteParticipant {self.database.url}>"

    @property
    def name(self) -> str:
        return self.database.name

    async def open(self) -> ParticipantClaims:
        """Open the file and make or check the two tables a promise needs."""
        await self.database.open()
        file = self.database.file
        if self._ready is not file:
            await file.write(self._ensure)
            self._ready = file
        return ParticipantClaims(isolates=Isolates.ROWS, survives=Survives.HOST, parallel_prepare=True)

    def _ensure(self, connection: apsw.Connection) -> None:
        if self.database.options.create or format.read(connection, "participant") is not None:
            format.ensure(connection, "participant", changeset.FORMAT, changeset.DDL)

    async def begin(self, id: str) -> SqliteBranch:
        """Open a branch: the file's only writer until it is prepared or over. After `wait_s` Conflict."""
        if not 0 < len(id.encode()) <= ID_BYTES_MAX:
            raise ConfigurationError(
                f"found an id of {len(id.encode())} bytes; it has 1 to {ID_BYTES_MAX}. Shorten it."
            )
        await self.open()
        branch = SqliteBranch(self, id)
        self.opened.add(id)
        await branch.begin()
        return branch

    async def finish(self, id: str, outcome: Outcome) -> Finished:
        """Commit or abort a prepared branch.

        Not forced by itself: if a power cut forgets it, the branch is prepared again, and is finished again.
        """
        if id in self.opened:
            return Finished.BUSY
        await self.open()
        return await self.database.file.write(
            lambda connection: changeset.finish(connection, id, outcome, self.name), forced=False
        )

    async def in_doubt(self, prefix: str = "") -> Sequence[InDoubt]:
        """The prepared branches of this file whose ids start with `prefix`."""
        await self.open()

        def ask(connection: apsw.Connection) -> list[InDoubt]:
            if format.read(connection, "participant") is None:
                return []  # opened by somebody who only asks
            return changeset.in_doubt(connection, prefix)

        return await self.database.file.read(ask)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await `work` also when cancelled meanwhile; the cancellation comes after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
