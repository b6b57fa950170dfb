"""Door: the member's one port. Who may come in, as what, and who is sent away with which sentence.

A porter with a list. He asks everybody the same questions in the same order, lets nobody stand in the hall
for long, and when a second guest gives the name of one who is already inside, he calls up and asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from atoll.algorithms.raft.messages import Member, Message
from atoll.engines.raft.connection import Connection, Murmur
from atoll.engines.raft.frames import (
    FRAME_BYTES_MAX,
    Caller,
    Hello,
    Letter,
    Ping,
    Refusal,
    Welcome,
    Why,
    agreed_format,
    pack,
    read_hello,
    read_remark,
)
from atoll.engines.raft.peers import Peers
from atoll.errors import FormatRefused, NotReady

UNGREETED_MAX = 256
CLIENTS_MAX = 4096
GREETING_S = 5.0
ANSWER_S = 1.0
"""A member that is asked whether it is still there has this long; it is silent for longer when it is dead."""

Desk = Callable[[Connection, Hello], None]
"""Takes a client's connection after its greeting: sets `on_frame` and `on_lost`."""


@dataclass(slots=True)
class Guest:
    """A member inside: its greeting, its connection."""

    hello: Hello
    connection: Connection
    answered: asyncio.Event = field(default_factory=asyncio.Event)


class Door:
    """Listens, greets, and passes on what members say to `heard`, and clients to `desk`."""

    def __init__(
        self,
        peers: Peers,
        heard: Callable[[Member, Message], None],
        desk: Desk,
        *,
        bytes_max: int = FRAME_BYTES_MAX,
    ) -> None:
        self.me = peers.me
        self.place = ""
        self._peers = peers
        self._heard = heard
        self._desk = desk
        self._bytes_max = bytes_max
        self._murmur = Murmur()
        self._server: asyncio.Server | None = None
        self._hall: dict[Connection, asyncio.TimerHandle] = {}
        self._guests: dict[Member, Guest] = {}
        self._clients: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, listen: str) -> str:
        """Begin to listen; answers host:port. NotReady where the port is taken."""
        host, _, port = listen.rpartition(":")
        tls = self._peers.tls.for_answering() if self._peers.tls is not None else None
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._enter,
                host.strip("[]"),
                int(port),
                ssl=tls,
                ssl_handshake_timeout=GREETING_S if tls is not None else None,
                backlog=1024,
            )
        except (OSError, ValueError, OverflowError) as error:
            raise NotReady(
                f"the member {self.me.name!r} cannot listen on {listen}: {error}. Expected host:port of this "
                "machine that nobody else listens on."
            ) from None
        self.place = f"{host}:{self._server.sockets[0].getsockname()[1]}"
        return self.place

    def close(self) -> None:
        """Nobody comes in any more, and everybody leaves."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        inside = [guest.connection for guest in self._guests.values()]
        for connection in [*self._hall, *inside, *self._clients]:
            connection.close("this member stops")

    @property
    def clients(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    # -- the hall --

    def _enter(self) -> Connection:
        connection = Connection(self._greeted, self._left, self._murmur)
        loop = asyncio.get_running_loop()
        self._hall[connection] = loop.call_later(GREETING_S, self._put_out, connection, "no greeting in time")
        if len(self._hall) > UNGREETED_MAX:
            self._put_out(next(iter(self._hall)), "too many who do not greet")
        return connection

    def _put_out(self, connection: Connection, why: str) -> None:
        """Out of the hall, also where a handshake is not over: asyncio tells of no end of those."""
        timer = self._hall.pop(connection, None)
        if timer is not None:
            timer.cancel()
        connection.abort(why)

    def _left(self, connection: Connection, why: str) -> None:
        timer = self._hall.pop(connection, None)
        if timer is not None:
            timer.cancel()
        self._clients.discard(connection)

    def _greeted(self, connection: Connection, body: bytes) -> None:
        hello = read_hello(body)
        if connection not in self._hall:
            connection.abort("the greeting came too late")
            return
        connection.on_frame = _too_early
        why, sentence = self._judge(hello, connection)
        if sentence:
            self._refuse(connection, why, sentence)
        elif hello.caller == Caller.PEER:
            task = asyncio.get_running_loop().create_task(self._member(connection, hello))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._client(connection, hello)

    def _judge(self, hello: Hello, connection: Connection) -> tuple[Why, str]:
        """Why not, and a sentence; "" for a welcome guest."""
        me = self.me
        try:
            agreed_format(hello, *me.formats)
        except FormatRefused as refusal:
            return Why.FORMAT, str(refusal)
        if hello.caller not in (Caller.PEER, Caller.CLIENT):
            return Why.FORMAT, f"found a caller of kind {hello.caller}; expected a member (1) or a client (2)"
        if hello.cluster != me.cluster and (hello.cluster or hello.caller == Caller.PEER):
            return Why.CLUSTER, (
                f"found a caller {hello.name!r:.60} of cluster {hello.cluster[:40]!r} at {connection.place}; "
                f"here is {me.name!r} of cluster {me.cluster!r}. Were all members first started with the "
                "same --members? Mend the address, or start it on an empty folder."
            )
        if hello.to and hello.to != me.name:
            return Why.NAME, f"found a call for {hello.to!r:.60}; here is {me.name!r}. Mend the address."
        names = connection.certificate_names()
        if hello.caller == Caller.PEER and names is not None and hello.name not in names:
            return Why.NAME, (
                f"found a caller {hello.name!r:.60} whose certificate names {', '.join(sorted(names))}; "
                "expected its own name there, as a DNS name."
            )
        if hello.caller == Caller.CLIENT and len(self._clients) >= CLIENTS_MAX:
            return Why.BUSY, f"{CLIENTS_MAX} clients are connected to {me.name!r} already; ask another member"
        return Why.FORMAT, ""

    def _refuse(self, connection: Connection, why: Why, sentence: str) -> None:
        self._murmur.say(f"turned away {connection.place}: {sentence}")
        connection.send(pack(Refusal(why, sentence)))
        connection.close(sentence)

    def _admit(self, connection: Connection, hello: Hello) -> bool:
        """Out of the hall; False where the caller has left already."""
        timer = self._hall.pop(connection, None)
        if timer is None or connection.closed:
            return False
        timer.cancel()
        connection.admit(self._bytes_max)
        format = agreed_format(hello, *self.me.formats)
        connection.send(pack(Welcome(format, self.me.cluster, self.me.name, self.me.born)))
        return True

    # -- clients --

    def _client(self, connection: Connection, hello: Hello) -> None:
        if not self._admit(connection, hello):
            return
        self._clients.add(connection)
        connection.on_frame = _not_served
        self._desk(connection, hello)
        theirs = connection.on_lost

        def lost(gone: Connection, why: str) -> None:
            self._clients.discard(gone)
            if theirs != self._left:
                theirs(gone, why)

        connection.on_lost = lost

    # -- members --

    async def _member(self, connection: Connection, hello: Hello) -> None:
        twin = await self._twin(hello, connection)
        if twin:
            self._refuse(connection, Why.DOUBLE, twin)
            return
        if hello.knew and hello.knew != self.me.born:
            sentence = self._peers.acquaintances.sentence(self.me.name, self.me.born, hello.knew)
            self._refuse(connection, Why.NAME, sentence)  # it is we who must not go on, not the caller
            self._peers.final(sentence)
            return
        try:
            stranger = await self._peers.acquaintances.remember(hello.name, hello.born)
        except OSError as error:
            connection.abort(f"{self.me.name} cannot write down whom it met: {error}")
            self._murmur.say(f"{self.me.name} cannot write down that it met {hello.name!r:.60}: {error}")
            return
        if stranger:
            self._refuse(connection, Why.WIPED, stranger)
            return
        before = self._guests.pop(hello.name, None)
        if before is not None:
            before.connection.close("a newer connection of the same member")
        if not self._admit(connection, hello):
            return
        self._peers.introduced(hello.name, hello.place)
        guest = Guest(hello, connection)
        self._guests[hello.name] = guest
        connection.on_frame = lambda _, body: self._said(guest, body)
        connection.on_lost = lambda _, why: self._gone(guest)

    async def _twin(self, hello: Hello, connection: Connection) -> str:
        """A sentence, where another process answers under that name."""
        where = f"{hello.place or '?'} (calling from {connection.place})"
        if hello.name == self.me.name:
            return (
                f"two members are named {hello.name!r}: this one at {self.me.place} and one at {where}. Each "
                "member has a name and a data folder of its own; start the second under a new name."
            )
        inside = self._guests.get(hello.name)
        if inside is None or inside.hello.incarnation == hello.incarnation or inside.connection.closed:
            return ""
        inside.answered.clear()
        inside.connection.send(pack(Ping()))
        try:
            await asyncio.wait_for(inside.answered.wait(), ANSWER_S)
        except TimeoutError:
            return ""
        if inside.connection.closed:
            return ""
        return (
            f"two members are named {hello.name!r}: one at {inside.hello.place or '?'} (calling from "
            f"{inside.connection.place}) and one at {where}. The first goes on. Each member has a name and a "
            "data folder of its own; start the second under a new name, on an empty folder."
        )

    def _said(self, guest: Guest, body: bytes) -> None:
        remark = read_remark(body)
        if isinstance(remark, Letter):
            if remark.cluster != self.me.cluster:
                raise FormatRefused(
                    f"found a message of cluster {remark.cluster[:40]!r}; here is {self.me.cluster!r}"
                )
            self._peers.counts.received += 1
            self._heard(guest.hello.name, remark.message)
        else:
            guest.answered.set()

    def _gone(self, guest: Guest) -> None:
        guest.answered.set()
        if self._guests.get(guest.hello.name) is guest:
            del self._guests[guest.hello.name]


def _too_early(connection: Connection, body: bytes) -> None:
    raise FormatRefused("found a frame before the greeting was answered")


def _not_served(connection: Connection, body: bytes) -> None:
    connection.close("clients are not served here")
