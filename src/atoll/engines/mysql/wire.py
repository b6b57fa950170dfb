"""Wire: one connection, and several statements in one round trip.

A telephone with a knife beside it. You read your whole list out at once and hear the answers one by one; at
the first no the other end stops listening to the list. If the answers do not come in time you cut the line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from atoll.engines.mysql import answers

if TYPE_CHECKING:
    from asyncmy.connection import Connection

Row = tuple[Any, ...]
"""Columns as the server writes them: bytes, or None."""
ROLLBACK_S = 2.0


class Stopped(Exception):
    """The server, or the line, failed at statement `at` of a list; those before it were answered."""

    def __init__(self, at: int, error: BaseException) -> None:
        super().__init__(f"statement {at}: {error}")
        self.at, self.error = at, error


class Wire:
    """A connection of asyncmy whose answers are left as bytes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._busy = False

    @property
    def quiet(self) -> bool:
        """Whether it is in step and nothing came unasked: a server that hung up has said so already."""
        connection: Any = self._connection
        return not self._busy and connection.connected and not connection._stream_broken

    async def ask(self, statements: Sequence[str]) -> list[Sequence[Row]]:
        """The rows of each statement. Raises Stopped; the transaction it stood in is rolled back then."""
        self._busy = True
        found: list[Sequence[Row]] = []
        try:
            found = await self._asked(statements, found)
        except Exception as error:
            if answers.is_answer(error):
                with suppress(Exception):
                    async with asyncio.timeout(ROLLBACK_S):
                        await self._asked(("ROLLBACK",), [])
                    self._busy = False
            raise Stopped(len(found), error) from error
        self._busy = False
        return found

    async def _asked(self, statements: Sequence[str], found: list[Sequence[Row]]) -> list[Sequence[Row]]:
        connection: Any = self._connection
        await connection.query(";".join(statements).encode())
        while True:
            result = connection._result
            found.append(result.rows or ())
            if not result.has_next:
                return found
            await connection.next_result()

    def cut(self) -> None:
        """Break it off: whoever waits for its answer gets an error at once."""
        self._busy = True
        transport = getattr(self._connection, "_transport", None)
        if transport is not None:
            transport.abort()

    async def close(self) -> None:
        """Say goodbye if it is in step, else break off."""
        if not self.quiet:
            self.cut()
            return
        with suppress(Exception):
            async with asyncio.timeout(1.0):
                await self._connection.ensure_closed()
