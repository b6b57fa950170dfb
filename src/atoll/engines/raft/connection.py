"""A connection: one TCP or TLS stream that carries frames, in both directions, within bounds.

A pneumatic post between two offices. Capsules longer than the tube's bend are sent back at the counter, and
nobody keeps stuffing capsules into a tube whose other end has stopped emptying it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from typing import cast

from atoll import clock
from atoll.engines.raft.frames import (
    FRAME_BYTES_MAX,
    Hello,
    Refusal,
    Splitter,
    Welcome,
    Why,
    pack,
    read_answer,
)
from atoll.errors import FormatRefused, NotSent

log = logging.getLogger("atoll.raft")
SAID_MOST, SAID_WITHIN_S = 5, 60.0


class TurnedAway(NotSent):
    """The other side answered the greeting with a refusal; `why` says of what kind."""

    def __init__(self, message: str, why: int) -> None:
        super().__init__(message)
        self.why = why


class Murmur:
    """A log for what strangers can cause: a few lines a minute, then one with how many were left out."""

    def __init__(self) -> None:
        self._since = 0.0
        self._said = 0
        self._left_out = 0

    def say(self, sentence: str) -> None:
        """One line, or a count."""
        now = clock.lease_now()
        if now - self._since > SAID_WITHIN_S:
            if self._left_out:
                log.warning("%d more lines of that kind were left out", self._left_out)
            self._since, self._said, self._left_out = now, 0, 0
        if self._said >= SAID_MOST:
            self._left_out += 1
            return
        self._said += 1
        log.warning("%s", sentence)


class Connection(asyncio.Protocol):
    """Frames in, frames out. `on_frame` gets each body; what it raises as FormatRefused closes the stream.

    It begins with the bound of a greeting; `admit` widens it. `on_lost` is called once, with what ended it.
    """

    def __init__(
        self,
        on_frame: Callable[[Connection, bytes], None],
        on_lost: Callable[[Connection, str], None],
        murmur: Murmur | None = None,
    ) -> None:
        self.on_frame = on_frame
        self.on_lost = on_lost
        self.place = "?"
        """The other end, as host:port."""
        self.room: Callable[[], None] | None = None
        """Called when the other side has emptied what was waiting for it."""
        self.writable = True
        """False while more waits for the other side than the transport likes; send less, or nothing."""
        self._murmur = murmur or Murmur()
        self._splitter = Splitter()
        self._transport: asyncio.Transport | None = None
        self._why = ""

    def admit(self, bytes_max: int = FRAME_BYTES_MAX) -> None:
        """The greeting is over; frames up to `bytes_max` may come."""
        self._splitter.bytes_max = bytes_max

    def send(self, frame: bytes) -> None:
        """Hand one or more packed frames to the stream; nothing happens once it is closed."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    @property
    def waiting(self) -> int:
        """Bytes that the other side has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    @property
    def closed(self) -> bool:
        """Whether nothing more goes through."""
        return self._transport is None or self._transport.is_closing()

    def pause_reading(self) -> None:
        """Take no more frames for now; the sender feels it."""
        if not self.closed and self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take frames again."""
        if not self.closed and self._transport is not None and not self._transport.is_reading():
            self._transport.resume_reading()

    def close(self, why: str = "") -> None:
        """Close when what was sent has left."""
        self._why = self._why or why
        if self._transport is not None:
            self._transport.close()

    def abort(self, why: str = "") -> None:
        """Close at once."""
        self._why = self._why or why
        if self._transport is not None:
            self._transport.abort()

    def certificate_names(self) -> set[str] | None:
        """The names that the other side's certificate proves; None on a stream without TLS."""
        found = self._transport.get_extra_info("peercert") if self._transport is not None else None
        if found is None:
            return None
        names = {str(value) for kind, value in found.get("subjectAltName", ()) if kind == "DNS"}
        return names | {str(v) for part in found.get("subject", ()) for k, v in part if k == "commonName"}

    # -- what asyncio calls --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # so is uvloop's, which inherits from nothing
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple) and len(peer) > 1:
            self.place = f"{peer[0]}:{peer[1]}"
        if self._why:  # given up while the handshake went on
            self.abort()

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._splitter.feed(data):
                if self.closed:
                    return
                self.on_frame(self, body)
        except FormatRefused as refusal:
            self._murmur.say(f"closed the connection from {self.place}: {refusal}")
            self.abort(str(refusal))
        except Exception as error:  # a fault of ours must not be a page of log for each who finds it
            log.debug("a frame from %s failed", self.place, exc_info=True)
            self._murmur.say(
                f"closed the connection from {self.place}: its frame failed here, {error!r:.300}"
            )
            self.abort(repr(error))

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        if self.room is not None:
            self.room()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        why = self._why or (str(error) if error else "closed by the other side")
        self.on_lost(self, why)


async def dial(
    place: str,
    hello: Hello,
    on_frame: Callable[[Connection, bytes], None],
    on_lost: Callable[[Connection, str], None],
    *,
    tls: ssl.SSLContext | None = None,
    within_s: float = 3.0,
) -> tuple[Connection, Welcome]:
    """Connect to `place` (host:port) and greet; answers the connection and how it was welcomed.

    `on_frame` gets what comes after the greeting. Raises TurnedAway with the other side's sentence, NotSent
    where nobody answers within `within_s` or what answers is no member of a Raft cluster of ours.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Welcome | Refusal] = loop.create_future()
    greeting = _Greeting(answer, on_frame, on_lost)
    host, _, port = place.rpartition(":")
    connection = Connection(greeting.frame, greeting.lost)
    name = (hello.to or host.strip("[]")) if tls is not None else None
    try:
        async with asyncio.timeout(within_s):
            await loop.create_connection(
                lambda: connection, host.strip("[]"), int(port), ssl=tls, server_hostname=name
            )
            connection.send(pack(hello))
            said = await answer
    except BaseException as error:
        answer.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            answer.exception()
        connection.abort("not welcomed")
        if isinstance(
            error, OSError | TimeoutError | FormatRefused | ssl.SSLError | ValueError | OverflowError
        ):
            raise NotSent(f"{place} did not welcome {hello.name or 'us'}: {_plain(error)}") from None
        raise
    if isinstance(said, Refusal):
        connection.close("turned away")
        raise TurnedAway(said.sentence, said.why)
    names = connection.certificate_names()
    wrong = names is not None and said.name not in names
    if wrong or (hello.to and said.name != hello.to):
        connection.close("not the one we dialled")
        raise TurnedAway(
            f"at {place} answers {said.name!r}, expected {hello.to or said.name!r}"
            + (f" with a certificate for that name; its certificate names {sorted(names or ())}" * wrong)
            + ". Mend the address or the certificate.",
            Why.NAME,
        )
    return connection, said


def _plain(error: BaseException) -> str:
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)


class _Greeting:
    """Hears the first answer, then steps aside."""

    def __init__(
        self,
        answer: asyncio.Future[Welcome | Refusal],
        on_frame: Callable[[Connection, bytes], None],
        on_lost: Callable[[Connection, str], None],
    ) -> None:
        self._answer = answer
        self._on_frame = on_frame
        self._on_lost = on_lost

    def frame(self, connection: Connection, body: bytes) -> None:
        said = read_answer(body)
        connection.on_frame = self._on_frame
        if isinstance(said, Welcome):
            connection.admit()
            connection.on_lost = self._on_lost
        if not self._answer.done():
            self._answer.set_result(said)

    def lost(self, connection: Connection, why: str) -> None:
        if not self._answer.done():
            self._answer.set_exception(FormatRefused(f"the connection ended: {why}"))
