"""Notice: the list of what an operator has broken, on the wall where every holder passes.

The porter writes a line: "room 81, taken away at nine, by Ann, the guest is gone". Guests read the wall each
time they pay the rent, so none stays longer than what is paid.

Promise: a line is kept until `NOTICES_MAX` newer ones stand below it; numbers only rise.
What can break it: somebody who removes the lines by hand.
Proved by: tests/blocks/test_lock_break.py
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import msgspec

from atoll.ports.store import Store

log = logging.getLogger("atoll.lock")

NOTICES = "broken/"
NOTICES_MAX = 1000
"""Breaks that are remembered; the oldest goes first."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One break, for holders to heed and for people to read. Times: `at` wall clock, Unix seconds.

    `key`, `revision`: what was taken away, and of which life. `owner`: whom from. `now`: the lease was not
    waited out. `free_in_s`: how long after `at` the next one may have it.
    """

    kind: str
    name: str
    key: str
    revision: int
    owner: str
    by: str
    reason: str
    at: float
    now: bool
    free_in_s: float
    nonce: str
    format: int = 1

    def __str__(self) -> str:
        return f"it was broken by {self.by}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True, slots=True)
class Posted:
    """A notice and its number."""

    number: int
    notice: Notice


def notice_key(number: int) -> str:
    """Where the notice of that number stands; keys are in the order of numbers."""
    return f"{NOTICES}{number:012d}"


async def notices(store: Store, after: int = 0) -> list[Posted]:
    """Every notice with a number above `after`, oldest first. One read while there are none."""
    found: list[Posted] = []
    while True:
        page = await store.range(start=notice_key(after + 1), end=NOTICES[:-1] + "0", limit=NOTICES_MAX)
        for entry in page.entries:
            digits = entry.key.removeprefix(NOTICES)
            after = int(digits) if digits.isdecimal() else after
            try:
                found.append(Posted(after, msgspec.json.decode(entry.value, type=Notice)))
            except msgspec.DecodeError as error:
                log.warning("%s: the notice %s cannot be read: %s", store, entry.key, error)
        if not page.more:
            return found
