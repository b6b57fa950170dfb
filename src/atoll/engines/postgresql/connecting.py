"""Connecting: from a URL to the primary among its servers.

You ring at every door of the street at once and go in where the master of the house opens. A house whose
master was replaced since you were last here is not entered again, however friendly the old one is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from atoll.engines.postgresql import answers
from atoll.engines.postgresql.options import StoreOptions
from atoll.engines.postgresql.sqlstate import unconnected
from atoll.engines.postgresql.wires import PsycopgWire, Row, Wire
from atoll.errors import AtollError, ConfigurationError, NotSent
from atoll.ports.address import Address

if TYPE_CHECKING:
    import psycopg

HELLO = """SELECT pg_is_in_recovery(), pg_backend_pid(), current_setting('fsync'),
(SELECT s.reset_val FROM pg_settings s WHERE s.name = 'synchronous_commit'),
current_setting('synchronous_standby_names'),
CASE WHEN pg_is_in_recovery() THEN '' ELSE (SELECT p.system_identifier::text FROM pg_control_system() p) END,
CASE WHEN pg_is_in_recovery() THEN 0
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
current_database(), current_setting('server_version'), current_setting('default_transaction_isolation')"""
_READ_COMMITTED = "SET default_transaction_isolation = 'read committed'"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of itself when a connection begins."""

    standby: bool
    pid: int
    fsync: str
    synchronous_commit: str
    standby_names: str
    system: str
    timeline: int
    database: str
    version: str
    isolation: str

    @property
    def incarnation(self) -> str:
        """This life of its data: the system identifier and the timeline."""
        return f"{self.system}/{self.timeline}"


@dataclass(slots=True)
class Met:
    """What this handle has learnt, in all its event loops. `timelines`: the newest of each system."""

    facts: Facts | None = None
    first: str = ""
    """The system that this handle was opened on, until it is closed."""
    direct: bool = False
    """No pooler stands between: the server answers to the process number that its greeting gave."""
    timelines: dict[str, int] = field(default_factory=dict)

    def note(self, facts: Facts, *, direct: bool) -> None:
        """Take the facts of a primary in."""
        self.facts, self.direct, self.first = facts, direct, self.first or facts.system
        self.timelines[facts.system] = max(facts.timeline, self.timelines.get(facts.system, 0))

    def old(self, facts: Facts) -> bool:
        """Whether a younger timeline of the same system has been seen: this primary was replaced."""
        return facts.timeline < self.timelines.get(facts.system, 0)


async def greet(wire: Wire) -> Facts:
    """Ask a server who it is."""
    row: Row = (await wire.rows(HELLO, ()))[0]
    return Facts(*row)


def is_direct(wire: PsycopgWire, facts: Facts) -> bool:
    """Whether no pooler stands between: one greets with a process number of its own making."""
    return facts.pid == wire.connection.info.backend_pid


class Way:
    """How a primary is reached: the URL's servers, or a conninfo as libpq reads it."""

    def __init__(self, address: Address, options: StoreOptions, met: Met, *, past: str = "") -> None:
        self._address, self._options, self._met, self._past = address, options, met, past

    async def connect(self) -> tuple[PsycopgWire, Facts]:
        """A connection to the primary. Raises the errors of `unconnected`, or that there is none."""
        if self._past:
            return await self._one(self._past, {})
        places = self._address.hosts or (("", self._address.port),)
        tasks = [asyncio.ensure_future(self._one("", _place(host, port))) for host, port in places]
        said: list[AtollError] = []
        chosen: tuple[PsycopgWire, Facts] | None = None
        try:
            for first in asyncio.as_completed(tasks):
                try:
                    chosen = await first
                    return chosen
                except AtollError as error:
                    said.append(error)
        finally:
            await _leave(tasks, chosen)
        if len(said) == 1 or all(isinstance(error, ConfigurationError) for error in said):
            raise said[0]
        raise answers.no_primary([str(error).partition(". ")[0] for error in said])

    async def _one(self, past: str, place: dict[str, str]) -> tuple[PsycopgWire, Facts]:
        import psycopg
        from psycopg.conninfo import make_conninfo

        where = _shown(place) or "the way past the pooler"
        try:
            words = make_conninfo(past, **({} if past else self._words()), **place)
            connection = await psycopg.AsyncConnection.connect(words, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            raise unconnected(error, where) from None
        try:
            return await self._greeted(connection, where)
        except BaseException:
            await connection.close()
            raise

    async def _greeted(
        self, connection: psycopg.AsyncConnection[Any], where: str
    ) -> tuple[PsycopgWire, Facts]:
        import psycopg

        wire = PsycopgWire(connection)
        try:
            facts = await greet(wire)
        except psycopg.Error as error:
            raise unconnected(error, where) from None
        if facts.standby:
            raise answers.standby(where)
        if self._met.first not in ("", facts.system):
            raise answers.another(where, self._met.first, facts.system)
        if self._met.old(facts):
            raise NotSent(
                f"{where} is on timeline {facts.timeline} and was replaced by a primary on timeline "
                f"{self._met.timelines[facts.system]}. Stop it: who writes there writes into the void."
            )
        direct = is_direct(wire, facts)
        self._met.note(facts, direct=direct)
        if direct and facts.isolation != "read committed":  # the session is ours alone
            await wire.script(_READ_COMMITTED)
        return (PsycopgWire(connection, prepares=True) if direct else wire), facts

    def _words(self) -> dict[str, str]:
        address, options = self._address, self._options
        words = {
            "user": address.user,
            "password": address.password,
            "dbname": address.path,
            "host": options.host,
            "sslmode": options.sslmode,
            "sslrootcert": options.sslrootcert,
            "sslcert": options.sslcert,
            "sslkey": options.sslkey,
            "application_name": options.application_name,
        }
        return {name: value for name, value in words.items() if value}


async def _leave(tasks: Sequence[asyncio.Future[tuple[PsycopgWire, Facts]]], chosen: object) -> None:
    """Hang up wherever else somebody answers."""
    for task in tasks:
        task.cancel()
    for late in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(late, tuple) and late is not chosen:
            await late[0].connection.close()


def _place(host: str, port: int | None) -> dict[str, str]:
    return {**({"host": host} if host else {}), **({"port": str(port)} if port else {})}


def _shown(place: dict[str, str]) -> str:
    return f"PostgreSQL at {place.get('host', 'this host')}:{place.get('port', '5432')}" if place else ""
