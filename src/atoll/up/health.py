"""Asks one instance how it is: a GET, an answer between 200 and 299, or a port that accepts.

A knock on the door. Ready means "send me guests", live means "I am not dead"; a door that is shut for
a moment is no reason to tear the house down, so the two are asked apart.
"""

from __future__ import annotations

import asyncio
import contextlib

PROBE_S = 2.0


async def answers(port: int, path: str, timeout_s: float = PROBE_S) -> str | None:
    """None when GET `path` answered 2xx within the time, else what it did instead."""
    try:
        async with asyncio.timeout(timeout_s):
            status = await _status(port, path)
    except TimeoutError:
        return f"GET {path} on port {port}: no answer within {timeout_s:g} s"
    except OSError as error:
        return f"GET {path} on port {port}: {error.strerror or 'connection lost'}"
    if status is None:
        return f"GET {path} on port {port}: the answer is not HTTP"
    return None if 200 <= status <= 299 else f"GET {path} on port {port}: status {status}"


async def accepts(port: int, timeout_s: float = PROBE_S) -> str | None:
    """None when the port accepts a connection within the time."""
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except TimeoutError:
        return f"port {port} did not accept within {timeout_s:g} s"
    except OSError as error:
        return f"port {port}: {error.strerror or 'refused'}"
    await _close(writer)
    return None


async def _status(port: int, path: str) -> int | None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: atoll-up\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        await writer.drain()
        words = (await reader.readuntil(b"\n")).split()
        while await reader.read(65536):  # to the end, so that the service never writes into a closed door
            pass
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    finally:
        await _close(writer)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        return None
    return int(words[1])


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(PROBE_S):
            await writer.wait_closed()
