"""Post: datagrams and streams between members, on one port of each kind.

A letter box and a door. Through the box come postcards, a few a second; who has more to say knocks, says it,
is answered, and goes. Neither box nor door is believed: what is not sealed as it should be is thrown away and
counted.

Promise: nothing that comes in costs more than its bounds in bytes, time and open streams; what is not of the
group reaches nobody, and is said once, not for each.
What can break it: a flood that fills the machine's own receive buffers: then datagrams are lost, as they may
be.
Proved by: tests/blocks/test_members.py, tests/blocks/test_members_encrypted.py
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache

from atoll import clock
from atoll.blocks.envelope import OVERHEAD, Envelopes, Unread
from atoll.errors import ConfigurationError, NotReady

log = logging.getLogger("atoll.members")

PACKET, LETTER = b"packet", b"letter"
STREAMS_MAX = 32
BUFFER_BYTES = 1 << 20
PORT_TRIES = 20
LOOKUP_S = 10.0


@dataclass(slots=True)
class Traffic:
    """What came and went, counted since the member opened. `unread`: what was thrown away, and why."""

    packets_sent: int = 0
    packets_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    letters: int = 0
    streams_refused: int = 0
    not_sent: int = 0
    unread: dict[str, int] = field(default_factory=dict)


@lru_cache(maxsize=20_000)
def place(address: str) -> tuple[str, int] | None:
    """Host and port of "10.0.0.7:7946" or "[::1]:7946"; None for what is not one. Names are taken too."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        return None
    return host, int(port)


def shown(host: str, port: int) -> str:
    """The address again."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@lru_cache(maxsize=20_000)
def literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that `host` is; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class Post(asyncio.DatagramProtocol):
    """Both sockets. `hear(address, packet)`: a datagram came; `answer(letter)`: somebody asks by stream.

    Either may say why it was not read.
    """

    def __init__(
        self,
        envelopes: Envelopes,
        hear: Callable[[str, bytes], Unread | None],
        answer: Callable[[bytes], bytes | Unread],
        *,
        packet_max: int,
        letter_max: int,
        stream_timeout_s: float,
    ) -> None:
        self.traffic = Traffic()
        self._envelopes, self._hear, self._answer = envelopes, hear, answer
        self._packet_max, self._letter_max = packet_max + OVERHEAD, letter_max + OVERHEAD
        self._stream_timeout_s = stream_timeout_s
        self._datagrams: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._streams: dict[asyncio.Task[None], bool] = {}
        """Whoever knocked, oldest first, and whether its letter has come."""
        self.named: set[str] = set()
        """Addresses that this member's user gave: their names alone are looked up."""
        self._said: set[Unread] = set()
        self._full = False

    async def open(self, host: str, port: int) -> int:
        """Listen; port 0 takes one that is free for both. NotReady where it is taken."""
        for attempt in range(PORT_TRIES):
            try:
                return await self._open(host, port)
            except OSError as error:
                await self.close()
                if port or attempt == PORT_TRIES - 1:
                    raise NotReady(
                        f"cannot listen on {shown(host, port)}: {error}. Is another member running there? "
                        f"Give another port, or 0 for any that is free."
                    ) from error
        raise AssertionError("unreachable")

    async def _open(self, host: str, port: int) -> int:
        loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._stream, host, port)
        port = int(self._server.sockets[0].getsockname()[1])
        self._datagrams, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, port))
        with suppress(OSError):
            self._datagrams.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES
            )
        return port

    async def close(self) -> None:
        """Stop listening; what is under way ends."""
        if self._datagrams is not None:
            self._datagrams.close()
        if self._server is not None:
            self._server.close()
        for stream in tuple(self._streams):
            stream.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)
        self._datagrams = self._server = None

    def turn(self) -> None:
        """The ring was changed: what was said once may be said again."""
        self._said.clear()

    # -- datagrams -------------------------------------------------------------------------------------

    def send(self, address: str, packet: bytes) -> None:
        """One datagram; it may be lost."""
        where = place(address)
        if self._datagrams is None or self._full or where is None or not self._may_go(where[0]):
            self.traffic.not_sent += 1
            return
        sealed = self._envelopes.seal(PACKET, packet)
        try:
            self._datagrams.sendto(sealed, where)
        except (OSError, ValueError):
            self.traffic.not_sent += 1
            return
        self.traffic.packets_sent += 1
        self.traffic.bytes_sent += len(sealed)

    def _may_go(self, host: str) -> bool:
        """Addresses come from others: never a name to be looked up, and unsealed never off this machine."""
        address = literal(host)
        return address is not None and (self._envelopes.sealing or address.is_loopback)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """From the loop."""
        self.traffic.packets_received += 1
        self.traffic.bytes_received += len(data)
        address = shown(addr[0], addr[1])
        if len(data) > self._packet_max:
            return self._throw_away(Unread.GARBAGE, address)
        opened = self._envelopes.open(PACKET, data)
        if isinstance(opened, Unread):
            self._throw_away(opened, address)
        elif (why := self._hear(address, opened)) is not None:
            self._throw_away(why, address)

    def pause_writing(self) -> None:
        """The machine takes no more datagrams just now: they are lost, and not kept."""
        self._full = True

    def resume_writing(self) -> None:
        """It does again."""
        self._full = False

    def error_received(self, exc: Exception) -> None:
        """Somebody's port is closed; the machine finds out by itself."""

    def _throw_away(self, why: Unread, address: str) -> None:
        counted = self.traffic.unread
        counted[why.value] = counted.get(why.value, 0) + 1
        if why in self._said or why not in _HINTS:
            return
        self._said.add(why)
        log.warning("what comes from %s is %s: %s. Said once, counted on", address, why.value, _HINTS[why])

    # -- streams ---------------------------------------------------------------------------------------

    async def ask(self, address: str, letter: bytes, timeout_s: float) -> bytes | None:
        """Knock, say `letter`, hear the answer; None where there was none in time."""
        where = place(address)
        if where is None or not self._may_ask(address, where[0]):
            return None
        writer = None
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(*where)
                if not self._may_go(writer.get_extra_info("peername")[0]):
                    return None
                await self._write(writer, letter)
                return await self._read(reader, address)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            return None
        finally:
            if writer is not None:
                writer.transport.abort()  # the answer is here, or never comes: nothing unsent is kept for it

    def _may_ask(self, address: str, host: str) -> bool:
        return address in self.named if literal(host) is None else self._may_go(host)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody knocks."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._streams) >= STREAMS_MAX and not self._make_room():
            writer.close()
            return
        self._streams[task] = False
        try:
            async with asyncio.timeout(self._stream_timeout_s):
                peer = writer.get_extra_info("peername") or ("", 0)
                address = shown(peer[0], peer[1])
                letter = await self._read(reader, address)
                self._streams[task] = True
                said = Unread.GARBAGE if letter is None else self._answer(letter)
                if isinstance(said, bytes):
                    await self._write(writer, said)
                    self.traffic.letters += 1
                elif letter is not None:
                    self._throw_away(said, address)
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # a stranger's connection; our own end cancels it too, and waits for it
        finally:
            self._streams.pop(task, None)
            writer.transport.abort()  # who does not read an answer in time has it kept no longer

    def _make_room(self) -> bool:
        """Send away who has stood there longest without a letter; False where each has brought one."""
        self.traffic.streams_refused += 1
        silent = next((stream for stream, heard in self._streams.items() if not heard), None)
        if silent is not None:
            del self._streams[silent]
            silent.cancel()
        return silent is not None

    async def _read(self, reader: asyncio.StreamReader, address: str) -> bytes | None:
        length = int.from_bytes(await reader.readexactly(4))
        if length > self._letter_max:
            self._throw_away(Unread.GARBAGE, address)
            return None
        opened = self._envelopes.open(LETTER, await reader.readexactly(length))
        if isinstance(opened, Unread):
            self._throw_away(opened, address)
            return None
        return opened

    async def _write(self, writer: asyncio.StreamWriter, letter: bytes) -> None:
        sealed = self._envelopes.seal(LETTER, letter)
        writer.write(len(sealed).to_bytes(4) + sealed)
        await writer.drain()


_HINTS = {
    Unread.UNSEALED: "this group has a secret; give it there too",
    Unread.OTHER_FORMAT: "its Atoll is older or newer; bring all to releases that read each other",
    Unread.WRONG_KEY: "give all members the same secret; a new one to all of them before any seals with it",
}


async def resolved(what: str, address: str) -> tuple[str, int]:
    """Host and port, the name looked up; ConfigurationError for what cannot be an address."""
    where = place(address)
    if where is None:
        raise ConfigurationError(f"found {what}={address!r}; expected host:port such as '10.0.0.7:7946'")
    host, port = where
    if literal(host) is None:
        try:
            async with asyncio.timeout(clock.remaining_s(LOOKUP_S)):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError) as error:
            raise ConfigurationError(
                f"found {what}={address!r}; its name is not known here: {error}"
            ) from error
        host = str(found[0][4][0])
    return host, port
