"""Connecting: from a URL to the server among its hosts that takes writes, and what it says of itself.

You ring at each door in turn and go in where the master of the house opens. Then you say how you want to
speak, whatever the house rules are, and check that you were heard.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from atoll import clock
from atoll.engines.mysql import answers, ddl
from atoll.engines.mysql.options import StoreOptions
from atoll.engines.mysql.wire import Stopped, Wire
from atoll.errors import AtollError, ConfigurationError, NotSent
from atoll.ports.address import Address

PORT = 3306
MODE = "STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
"""Nothing too long is cut short, whatever the server's own sql_mode lets pass."""
_MANNERS = (
    "SET NAMES binary",
    f"SET SESSION sql_mode='{MODE}',time_zone='+00:00',autocommit=1,completion_type=0,sql_safe_updates=0,"
    "sql_select_limit=18446744073709551615,unique_checks=1,timestamp=DEFAULT",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
)
_VARIABLES = (
    "version version_comment read_only super_read_only server_id server_uuid binlog_format log_bin "
    "sync_binlog innodb_flush_log_at_trx_commit innodb_doublewrite innodb_page_size max_allowed_packet "
    "wsrep_on max_connections event_scheduler rpl_semi_sync_master_enabled"
).split()
_HELLO = (
    f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({','.join(repr(name) for name in _VARIABLES)})",
    "SELECT @@session.sql_mode, @@session.autocommit, @@session.max_allowed_packet, DATABASE()",
    "SELECT CONVERT(table_name USING binary), engine, UNIX_TIMESTAMP(create_time) "
    "FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name LIKE 'atoll\\_%'",
)
_FOLLOWS = ("SHOW SLAVE STATUS", "SHOW REPLICA STATUS")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of itself when a connection begins. `variables`: its own names and words."""

    variables: dict[str, str]
    tables: dict[str, str]
    made: str
    packet: int
    database: str
    follows: bool | None
    """Whether it copies another server; None: this account may not ask."""

    @property
    def mariadb(self) -> bool:
        return "mariadb" in self.variables.get("version", "").lower()

    @property
    def read_only(self) -> bool:
        names = ("read_only", "super_read_only")
        return any(self.variables.get(name, "OFF") not in ("OFF", "0") for name in names)

    @property
    def here(self) -> str:
        """This life of the data: which server, and when the counter's table was made there."""
        server = self.variables.get("server_uuid") or f"server_id {self.variables.get('server_id', '?')}"
        return f"{server}/{self.made}"


@dataclass(slots=True)
class Met:
    """What this handle has learnt, in all its event loops. `identity`: of the store that it was opened on."""

    facts: Facts | None = None
    identity: str = ""
    epoch: int = 0
    """The newest that was seen: a server with an older one was replaced."""


class Way:
    """How the server that takes writes is reached."""

    def __init__(self, address: Address, options: StoreOptions, met: Met, shown: str) -> None:
        self._address, self._options, self._met, self._shown = address, options, met, shown

    async def connect(self, *, bare: bool = False) -> tuple[Wire, Facts]:
        """A connection that has been greeted. `bare`: the tables may be missing, as before they are made."""
        places = self._address.hosts or (("127.0.0.1", None),)
        found: list[AtollError] = []
        for number, (host, port) in enumerate(places):
            share = max(0.0, clock.remaining_s(self._options.ceiling_s)) / (len(places) - number)
            try:
                async with asyncio.timeout(share):
                    return await self._one(host, port or PORT, bare)
            except TimeoutError:
                said = f"{host}:{port or PORT} has not greeted in {share:.3g} s. Nothing was asked."
                found.append(NotSent(said))
            except AtollError as error:
                found.append(error)
        if len(found) == 1 or all(isinstance(error, ConfigurationError) for error in found):
            raise found[0]
        raise answers.no_primary([str(error).partition(". ")[0] for error in found])

    async def _one(self, host: str, port: int, bare: bool) -> tuple[Wire, Facts]:
        import asyncmy

        where = f"{self._options.unix_socket or f'{host}:{port}'}"
        tls = self._tls()
        try:
            connection = await asyncmy.connect(
                user=self._address.user or "",
                password=self._address.password or "",
                host=host,
                port=port,
                database=self._address.path,
                unix_socket=self._options.unix_socket or None,
                ssl=tls,
                charset="utf8mb4",
                use_unicode=False,
                conv={},
                autocommit=None,
                program_name="atoll",
            )
        except (asyncmy.errors.MySQLError, OSError, RuntimeError, ssl.SSLError) as error:
            raise answers.unconnected(error, where) from None
        wire = Wire(connection)
        try:
            return wire, await self._greeted(wire, where, bare)
        except BaseException:
            wire.cut()
            raise

    def _tls(self) -> Any:
        if not self._options.tls:
            return None
        if self._options.tls_ca:
            return ssl.create_default_context(cafile=self._options.tls_ca)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    async def _greeted(self, wire: Wire, where: str, bare: bool) -> Facts:
        try:
            facts = await hello(wire)
        except Stopped as stopped:
            raise answers.unconnected(stopped.error, where) from None
        if facts.read_only or facts.follows:
            raise answers.replica(where)
        _expect_manners(facts, where)
        if bare:
            return facts
        inside = f"the database {facts.database!r} of {where}"
        ddl.check_tables(facts.tables, inside, self._shown)
        try:
            number, identity, epoch = await _noted(wire, facts)
        except Stopped as stopped:
            if answers.is_answer(stopped.error):
                raise answers.refused(stopped.error, where, self._shown) from None
            raise answers.unconnected(stopped.error, where) from None
        ddl.check_format(number, inside, self._shown)
        if self._met.identity not in ("", identity):
            raise answers.another(where)
        if epoch < self._met.epoch:
            raise NotSent(
                f"{where} is at epoch {epoch} and was replaced: {self._met.epoch} has been seen elsewhere. "
                "Stop it, or make it a replica: who writes there writes into the void."
            )
        self._met.facts, self._met.identity, self._met.epoch = facts, identity, epoch
        return facts


async def hello(wire: Wire) -> Facts:
    """Say how we speak, and ask a server who it is."""
    answered = await wire.ask((*_MANNERS, *_HELLO))
    variables, (session,), tables = answered[len(_MANNERS) :]
    known = {name.decode().lower(): (value or b"").decode() for name, value in variables}
    mode, autocommit, packet, database = session
    known["session.sql_mode"], known["session.autocommit"] = mode.decode(), autocommit.decode()
    made = {name.decode(): (when or b"0").decode() for name, _, when in tables}
    return Facts(
        variables=known,
        tables={name.decode(): (engine or b"").decode() for name, engine, _ in tables},
        made=made.get("atoll_counter", "").partition(".")[0],
        packet=int(packet),
        database=(database or b"").decode(),
        follows=await _follows(wire),
    )


async def _follows(wire: Wire) -> bool | None:
    for question in _FOLLOWS:
        with suppress(Stopped):
            [rows] = await wire.ask((question,))
            return any(b"Yes" in row for row in rows)
    return None


async def _noted(wire: Wire, facts: Facts) -> tuple[int | None, str, int]:
    """The format's number, the store's identity and epoch; a brand-new store notes what it finds."""
    here, new = facts.here.encode().hex(), clock.unique_id()
    answered = await wire.ask(
        (
            f"SET @here=x'{here}'",
            f"SELECT number FROM atoll_format WHERE part='{ddl.PART}'",
            "SELECT identity, incarnation, epoch FROM atoll_counter WHERE one=1",
        )
    )
    numbers, counters = answered[1], answered[2]
    if not numbers or not counters:
        return None, "", 0
    identity, noted, epoch = counters[0]
    if not identity or not noted:
        answered = await wire.ask(
            (
                f"UPDATE atoll_counter SET identity='{new}' WHERE one=1 AND identity=''",
                "UPDATE atoll_counter SET incarnation=@here WHERE one=1 AND incarnation=''",
                "SELECT identity FROM atoll_counter WHERE one=1",
            )
        )
        identity = answered[2][0][0]
    return int(numbers[0][0]), identity.decode(), int(epoch)


def _expect_manners(facts: Facts, where: str) -> None:
    """Refuse a server, or a proxy before it, on which our words cannot mean what they say."""
    said = facts.variables
    if "STRICT_ALL_TABLES" not in said["session.sql_mode"] or said["session.autocommit"] != "1":
        raise ConfigurationError(
            f"{where}: asked for sql_mode={MODE} and autocommit=1 and found {said['session.sql_mode']!r} and "
            f"{said['session.autocommit']}: something between swallows SET. Connect to the server itself."
        )
    if said.get("wsrep_on", "OFF") not in ("OFF", "0"):
        raise ConfigurationError(
            f"{where} is a node of a Galera cluster: a row that is locked on one node is free on the others, "
            "and other nodes answer late. Exclusion cannot stand on it; use one server with a replica."
        )
    if said.get("log_bin") in ("ON", "1") and said.get("binlog_format") == "STATEMENT":
        raise ConfigurationError(
            f"{where} copies statements (binlog_format=STATEMENT); InnoDB refuses that in READ COMMITTED. "
            "Say: SET GLOBAL binlog_format = 'MIXED'"
        )
    if not facts.database:
        raise ConfigurationError(f"{where}: the URL names no database; expected mysql://user@host:3306/shop.")


async def make_tables(wire: Wire) -> None:
    """What is missing, one after the other; whoever makes them at the same time waits."""
    lock = ddl.LOCK.encode().hex()
    try:
        await wire.ask(
            (f"SELECT GET_LOCK(x'{lock}', 10)", *ddl.statements(), f"SELECT RELEASE_LOCK(x'{lock}')")
        )
    except Stopped:
        with suppress(Stopped, asyncio.TimeoutError):
            await wire.ask((f"SELECT RELEASE_LOCK(x'{lock}')",))
        raise
