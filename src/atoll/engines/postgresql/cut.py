"""Cut: a line to the server that is broken off when the time is over.

A polite "never mind" has to be heard by somebody, and a server that stands still hears nothing; so a client
that asks to cancel waits for seconds more. A pair of scissors needs nobody's consent: the transaction was
not committed, and the server will find its end of the line loose.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from atoll.errors import AtollError, NotApplied


def cut(connection: Any) -> None:
    """Break off a connection of psycopg or asyncpg; whoever waits for its answer gets an error at once."""
    with suppress(Exception):
        if hasattr(connection, "terminate"):
            connection.terminate()
            return
        with socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


@contextmanager
def cut_after(connection: Any, seconds: float, where: str) -> Iterator[None]:
    """Inside, the connection lives so long and no longer; then NotApplied, for nothing was committed."""
    late = False

    def snip() -> None:
        nonlocal late
        late = True
        cut(connection)

    timer = asyncio.get_running_loop().call_later(max(0.0, seconds), snip)
    try:
        yield
    except Exception as error:
        if not late or isinstance(error, AtollError):
            raise
        raise unanswered(where, seconds) from error
    finally:
        timer.cancel()


def unanswered(where: str, seconds: float) -> AtollError:
    """The sentence for a statement whose transaction was cut off."""
    return NotApplied(
        f"{where} has not answered for {seconds:.3g} s and the connection was cut off; nothing of this "
        "transaction is committed. Roll it back; if the server stands still, see to it first."
    )
