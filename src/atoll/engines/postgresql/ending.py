"""Ending: COMMIT or ROLLBACK, brought to its end also when the caller is cancelled, and never for ever.

A letter is either in the box or still in your hand, never half through the slot. Before it goes in, one last
look: PostgreSQL answers the COMMIT of a failed transaction by a ROLLBACK, and few clients tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from atoll import clock
from atoll.engines.postgresql.cut import cut
from atoll.engines.postgresql.joined import CEILING_S, GRACE_S
from atoll.engines.postgresql.sqlstate import code, lost, uncommitted
from atoll.errors import AtollError, Conflict, NotSent, OutcomeUnknown

ROLLBACK_S = 5.0
"""How long a ROLLBACK is waited for, before the connection is cut off, which is one too."""
Intact = Callable[[], Awaitable[None]]


@asynccontextmanager
async def ending(transaction: Any, connection: Any, where: str, intact: Intact) -> AsyncIterator[None]:
    """COMMIT after the body, ROLLBACK after an error in it. `intact` raises where COMMIT would do nothing."""
    try:
        yield
        if clock.remaining_s(CEILING_S) <= 0:
            raise NotSent(f"{where}: the deadline passed before COMMIT was sent. Nothing was written.")
        await _asked(intact, where)
    except BaseException:
        seconds = max(GRACE_S, clock.remaining_s(ROLLBACK_S))
        with contextlib.suppress(Exception):  # the connection is gone: so is the transaction
            await to_its_end(transaction.__aexit__(*sys.exc_info()), connection, seconds)
        raise
    left = max(GRACE_S, clock.remaining_s(CEILING_S))
    try:
        answered = await to_its_end(transaction.__aexit__(None, None, None), connection, left)
    except Exception as error:
        if (told := uncommitted(error, where)) is None:
            raise
        raise told from error
    if not answered:
        raise OutcomeUnknown(
            f"{where} has not answered COMMIT for {left:.3g} s: the transaction may have been committed. "
            "Read what it should have written before you do it again."
        )


async def _asked(intact: Intact, where: str) -> None:
    try:
        await intact()
    except AtollError:
        raise
    except Exception as error:
        if code(error) != "25P02" and not lost(error):
            raise
        raise failed(where) from error


async def to_its_end(work: Awaitable[Any], connection: Any, seconds: float) -> bool:
    """Await it also when cancelled meanwhile. False: not answered in time, and the connection was cut off."""
    task = asyncio.ensure_future(work)
    until = clock.loop_now() + seconds
    cancelled: asyncio.CancelledError | None = None
    while not task.done() and (left := until - clock.loop_now()) > 0:
        try:
            await asyncio.wait([task], timeout=left)
        except asyncio.CancelledError as error:
            cancelled = error
    if answered := task.done():
        if cancelled is None:
            task.result()
    else:
        cut(connection)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task], timeout=GRACE_S)
    if not task.done():
        task.add_done_callback(_heard)
    else:
        _heard(task)
    if cancelled is not None:
        raise cancelled
    return answered


def _heard(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


def failed(where: str) -> Conflict:
    """The sentence for a body that swallowed an error of a statement."""
    return Conflict(
        f"{where}: a statement of this transaction failed and the body went on, so PostgreSQL has given the "
        "transaction up. Nothing of it was written. Let the error out of the body, or use a savepoint."
    )
