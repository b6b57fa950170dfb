"""The socket by which the command `atoll` talks to a running `up`: .atoll/up.sock, for its owner only.

A speaking tube between two rooms of one house: a question goes down, lines come up until the last one.
Each line is JSON. Nobody outside the house can reach it, unlike a port.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from atoll.errors import ConfigurationError, NotSent, OutcomeUnknown

SOCKET, CARD = "up.sock", "up.json"
LINE_BYTES_MAX = 4 * 1024 * 1024
PATH_BYTES_MAX = 100  # the kernel takes 107

Say = Callable[[dict[str, Any]], Awaitable[None]]
Answer = Callable[[dict[str, Any], Say], Awaitable[None]]


class Control:
    """The end of the tube at `up`."""

    def __init__(self, folder: Path, answer: Answer) -> None:
        self._folder = folder
        self._answer = answer
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen; a socket left by a dead `up` is removed. The caller holds the folder's lock."""
        (self._folder / SOCKET).unlink(missing_ok=True)
        with _address(self._folder) as address:
            sock = socket.socket(socket.AF_UNIX)
            before = os.umask(0o177)
            try:
                sock.bind(address)
            finally:
                os.umask(before)
        self._server = await asyncio.start_unix_server(self._serve, sock=sock)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        (self._folder / SOCKET).unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(value: dict[str, Any]) -> None:
            writer.write(json.dumps(value).encode() + b"\n")
            await writer.drain()

        try:
            question = json.loads(await reader.readline())
            if not isinstance(question, dict):
                raise ValueError
            await self._answer(question, say)
        except (ValueError, asyncio.LimitOverrunError):
            with contextlib.suppress(OSError):
                await say({"error": "found a line that is no question; expected a JSON object"})
        except OSError:
            pass  # whoever asked has left
        finally:
            writer.close()


async def ask(folder: Path, question: dict[str, Any], timeout_s: float) -> AsyncIterator[dict[str, Any]]:
    """The lines that answer, in their order. NotSent when nobody is there."""
    try:
        with _address(folder) as address:
            reader, writer = await asyncio.open_unix_connection(address, limit=LINE_BYTES_MAX)
    except OSError:
        raise NotSent(f"found no running `atoll up` in {folder.parent}. Start it there: atoll up") from None
    try:
        async with asyncio.timeout(timeout_s):
            writer.write(json.dumps(question).encode() + b"\n")
            while line := await reader.readline():
                value: dict[str, Any] = json.loads(line)
                if "error" in value:
                    raise ConfigurationError(str(value["error"]))
                yield value
                if value.get("end"):
                    return
    except TimeoutError:
        raise OutcomeUnknown(f"`atoll up` did not answer within {timeout_s:g} s; see: atoll status") from None
    finally:
        writer.close()
    raise OutcomeUnknown("`atoll up` ended while it was answering; see whether it runs: atoll status")


@contextlib.contextmanager
def _address(folder: Path) -> Iterator[str]:
    """The socket's path, by way of an open folder when it is longer than a socket's address may be."""
    path = str(folder / SOCKET)
    if len(os.fsencode(path)) <= PATH_BYTES_MAX or sys.platform != "linux":
        yield path
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{opened}/{SOCKET}"
    finally:
        os.close(opened)
