"""Road: the way to whoever takes writes, and one question asked over it.

A messenger who knows the town. They find the mayor's house anew when the mayor has changed, knock again while
nobody has taken the letter, and never hand the same letter over twice: once it is out of their hands and no
answer comes, they say that they do not know.

Connections are redis-py's; its own repeating of commands is not used, because it repeats what was sent too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.crc import key_slot
from redis.exceptions import RedisError

from atoll import clock
from atoll.engines.parts import call
from atoll.engines.redis import translation
from atoll.engines.redis.options import RedisOptions
from atoll.engines.redis.place import Kind, Place
from atoll.errors import AtollError, NotSent, OutcomeUnknown

PAUSE_S = 0.02
LOOK_S = 1.0
"""How often sentinels are asked, while calls are made, whether the master is still the same."""
_SENTINEL_S = 1.0

Where = tuple[str, int]


class Letter(NamedTuple):
    """What is asked, as the protocol carries it; `anew`: the form for a server that lost the script."""

    what: str
    words: bytes
    anew: Callable[[], bytes] | None = None
    id: str | None = None


class Unreachable(Exception):
    """Nothing was sent: no connection, or nobody who leads is known."""


class Road:
    """The connections of one handle in one event loop."""

    def __init__(self, place: Place, url: str, options: RedisOptions) -> None:
        self.place, self.url, self._options = place, url, options
        self._hosts: list[Where] = list(place.hosts)
        self._leader: Where | None = None
        self._idle: list[Any] = []
        self._busy: set[Any] = set()
        self._gate = asyncio.Semaphore(options.connections_max)
        self._slot = key_slot(options.prefix.encode())
        self._look_at = 0.0
        self._looking: asyncio.Task[None] | None = None
        self.closed = False

    async def close(self) -> None:
        """Close every connection; calls in flight end as unknown."""
        self.closed = True
        if self._looking is not None:
            self._looking.cancel()
        for connection in (*self._idle, *self._busy):
            await _shut(connection)
        self._idle.clear()

    async def ask(self, letter: Letter, *, ceiling_s: float, repeatable: bool = False) -> Any:
        """The answer to one letter.

        What was not sent, or was refused, is tried again until the deadline where that may help. What was
        sent without an answer is asked again only if `repeatable`; else OutcomeUnknown with its id.
        """
        left = call.left_s(letter.what, ceiling_s)
        self._keep_informed()
        until = clock.loop_now() + left
        ends = (
            until
            if self.place.kind is not Kind.ALONE
            else min(until, clock.loop_now() + self._options.connect_s)
        )
        share = max(left / 3, 0.2) if repeatable else left
        last: Exception | None = None
        waited = PAUSE_S
        while True:
            try:
                connection = await self._taken(min(until, clock.loop_now() + share))
            except Unreachable as error:
                last = error
            else:
                try:
                    return await self._exchange(letter, connection, min(until, clock.loop_now() + share))
                except OutcomeUnknown as error:
                    if not repeatable or clock.loop_now() >= until:
                        raise
                    last, ends = error, until
                except RedisError as error:
                    last = self._heed(letter, error)
                    ends = until
            if clock.loop_now() + waited >= ends or self.closed:
                raise self._given_up(letter, last)
            await asyncio.sleep(waited)
            waited = min(waited * 1.5, 0.25)

    def _given_up(self, letter: Letter, last: Exception | None) -> AtollError:
        if isinstance(last, AtollError):
            return last
        if isinstance(last, RedisError):
            return translation.translated(letter.what, self.url, last, letter.id)
        return translation.unreachable(letter.what, self.url, last)

    def _heed(self, letter: Letter, error: RedisError) -> Exception:
        """A refusal that may pass: note where to ask now. Raises one that will not."""
        word = translation.code(error)
        if word == "MOVED" and (there := translation.moved_to(error)) is not None:
            before = self._leader[0] if self._leader else ""
            self._lead((there[0] or before, there[1]))
            return error
        if word in translation.MOVES and (self.place.kind is not Kind.ALONE or word == "MASTERDOWN"):
            self._lead(None)
            return error
        if word in translation.WAITS or word == "MAXCLIENTS":
            return error
        raise translation.translated(letter.what, self.url, error, letter.id) from error

    async def _exchange(self, letter: Letter, connection: Any, until: float) -> Any:
        """Send and wait for the answer. The connection is kept only if it is in order."""
        began = clock.loop_now()
        limit = asyncio.timeout(max(0.0, until - began))
        self._busy.add(connection)
        kept = answered = False
        try:
            async with limit:
                words = letter.words
                while True:
                    try:
                        await connection.send_packed_command(words, check_health=False)
                        answer = await connection.read_response()
                        kept = answered = True
                        return answer
                    except RedisError as error:
                        word, answered = translation.code(error), translation.refused(error)
                        kept = answered and word != "READONLY"
                        if word != "NOSCRIPT" or letter.anew is None or words is not letter.words:
                            raise
                    words = letter.anew()
        except TimeoutError:
            if not limit.expired():
                raise
            self._lead(None)
            raise call.unknown(letter.what, self.url, clock.loop_now() - began, letter.id) from None
        except (RedisError, OSError) as error:
            if isinstance(error, RedisError) and answered:
                raise
            self._lead(None)
            raise OutcomeUnknown(
                f"{letter.what} was sent to {self.url} and the connection broke ({error}). It may have "
                "happened: read before you ask again.",
                id=letter.id,
            ) from error
        finally:
            self._busy.discard(connection)
            if kept and not self.closed and self.leads(connection):
                self._idle.append(connection)
            else:
                await _shut(connection)
            self._gate.release()

    async def _taken(self, until: float) -> Any:
        """A connection to whoever leads, with a place in the gate; Unreachable past `until`."""
        if self._gate.locked():
            try:
                async with asyncio.timeout(max(0.0, until - clock.loop_now())):
                    await self._gate.acquire()
            except TimeoutError as error:
                raise Unreachable(f"all {self._options.connections_max} connections are in use") from error
        else:
            await self._gate.acquire()
        try:
            while self._idle:
                connection = self._idle.pop()
                if self.leads(connection) and await _fresh(connection):
                    return connection
                await _shut(connection)
            return await self.connect(until - clock.loop_now())
        except BaseException:
            self._gate.release()
            raise

    async def connect(self, within_s: float) -> Any:
        """A new connection to whoever leads, within that time and connect_s."""
        within_s = max(0.0, min(within_s, self._options.connect_s))
        limit = asyncio.timeout(within_s)
        try:
            async with limit:
                leader = self._leader or await self._found()
                connection = await self._connected(leader, self.place.login, self.place.tls)
        except TimeoutError as error:
            self._lead(None)
            if not limit.expired():
                raise
            raise Unreachable(f"it took no connection within {within_s:.3g} s") from error
        except Unreachable:
            self._lead(None)
            raise
        self._leader = leader
        return connection

    def _keep_informed(self) -> None:
        """Sentinels may have named another master while the old one answers on, and loses what it takes."""
        now = clock.loop_now()
        if self.place.kind is Kind.SENTINEL and self._leader is not None and now >= self._look_at:
            self._look_at = now + LOOK_S
            if self._looking is None or self._looking.done():
                self._looking = asyncio.get_running_loop().create_task(self._look(), context=clock.detached())

    async def _look(self) -> None:
        with suppress(Unreachable, RedisError, OSError, AtollError):
            leader = await self._found()
            if self._leader is not None:
                self._lead(leader)

    async def _found(self) -> Where:
        if self.place.kind is Kind.ALONE:
            return self._hosts[0]
        last: Exception | None = None
        for host in tuple(self._hosts):
            try:
                async with asyncio.timeout(_SENTINEL_S):
                    found = await (
                        self._asked_sentinel(host)
                        if self.place.kind is Kind.SENTINEL
                        else self._asked_node(host)
                    )
            except (Unreachable, RedisError, OSError, TimeoutError) as error:
                last = error
                continue
            if found is not None:
                self._hosts.remove(host)  # who answered is asked first next time
                self._hosts.insert(0, host)
                return found
        who = "sentinel" if self.place.kind is Kind.SENTINEL else "node"
        raise Unreachable(f"no {who} of {len(self._hosts)} names a master; the last said: {last}")

    async def _asked_sentinel(self, host: Where) -> Where | None:
        words = ("SENTINEL", "get-master-addr-by-name", self.place.master)
        found = await self._once(host, words, self.place.sentinel_login, self.place.sentinel_tls)
        return (found[0].decode(), int(found[1])) if found else None

    async def _asked_node(self, host: Where) -> Where | None:
        """Who has our slot; the other nodes are remembered for the day when this one is gone."""
        found = None
        for low, high, *nodes in await self._once(
            host, ("CLUSTER", "SLOTS"), self.place.login, self.place.tls
        ):
            where = [(node[0].decode() or host[0], int(node[1])) for node in nodes if node[0] is not None]
            self._hosts += [node for node in where if node not in self._hosts]
            if low <= self._slot <= high:
                found = where[0]
        return found

    async def _once(self, host: Where, words: Sequence[str], login: Mapping[str, Any], tls: bool) -> Any:
        connection = await self._connected(host, login, tls)
        try:
            await connection.send_command(*words, check_health=False)
            return await connection.read_response()
        finally:
            await _shut(connection)

    async def _connected(self, where: Where, login: Mapping[str, Any], tls: bool) -> Any:
        """Connected, logged in, its database chosen; nothing of ours was sent."""
        made: type[Any] = SSLConnection if tls else Connection
        address: dict[str, Any] = {"host": where[0], "port": where[1]}
        if "path" in login:
            made, address = UnixDomainSocketConnection, {}
        connection = made(
            **address, **login, protocol=2, retry=None, socket_timeout=None, socket_connect_timeout=None
        )
        try:
            await connection.connect()
        except (RedisError, OSError) as error:
            await _shut(connection)
            refusal = translation.certificate(self.url, error)
            if refusal is not None:
                raise refusal from error
            if translation.code(error) in ("WRONGPASS", "NOAUTH", "NOPERM"):
                raise translation.translated("connecting", self.url, error, None) from error
            raise Unreachable(str(error)) from error
        except BaseException:
            await _shut(connection)
            raise
        return connection

    def _lead(self, leader: Where | None) -> None:
        """Somebody else leads, or nobody is known to; connections to others are not used again."""
        self._leader = leader

    def leads(self, connection: Any) -> bool:
        """Whether it goes to whoever is known to take writes."""
        if self.place.kind is Kind.ALONE or self._leader is None:
            return self._leader is not None
        return self._leader == (connection.host, int(connection.port))


async def _fresh(connection: Any) -> bool:
    """Nothing came while it was idle, above all not its end."""
    reader = getattr(connection, "_reader", None)  # a reset is told by nothing public before it is written to
    if reader is not None and reader.exception() is not None:
        return False
    try:
        return not await connection.can_read()
    except (RedisError, OSError):
        return False


async def _shut(connection: Any) -> None:
    with suppress(RedisError, OSError, NotSent):
        await connection.disconnect(nowait=True)
