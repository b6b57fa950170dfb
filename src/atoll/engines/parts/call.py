"""Call: one question to a server, answered by its deadline or not known.

A registered letter. Until the clerk has taken it you may simply keep it; from then on, no answer means
that you do not know, however long you wait and whoever tells you to stop waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from atoll import clock
from atoll.errors import NotSent, OutcomeUnknown

T = TypeVar("T")


def left_s(what: str, ceiling_s: float) -> float:
    """Seconds this call may take: the deadline in force, at most the ceiling. NotSent when none are left."""
    left = clock.remaining_s(ceiling_s)
    if left <= 0:
        raise NotSent(f"the deadline passed before {what} was sent. Nothing happened; ask with more time.")
    return left


async def answered(
    what: str, url: str, ceiling_s: float, send: Callable[[float], Awaitable[T]], *, id: str | None = None
) -> T:
    """What `send(left_s)` answers, within the deadline in force and at most `ceiling_s`.

    OutcomeUnknown with `id` when no answer came in time. `send` translates its client's own errors, and
    hands the seconds left on to the server where the protocol can carry them.
    """
    left = left_s(what, ceiling_s)
    limit = asyncio.timeout(left)
    try:
        async with limit:
            return await send(left)
    except TimeoutError:
        if not limit.expired():
            raise
        raise unknown(what, url, left, id) from None


def unknown(what: str, url: str, waited_s: float, id: str | None = None) -> OutcomeUnknown:
    """The sentence for a call without an answer."""
    return OutcomeUnknown(
        f"{what} was sent to {url} and {waited_s:.3g} s passed without an answer. It may have happened, or "
        "may happen yet: read before you ask again.",
        id=id,
    )
