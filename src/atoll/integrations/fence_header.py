"""Fence header: a lock's token on its way to the service that writes.

A cloakroom ticket. Whoever holds the lock writes the number on the order; the shop that gets the order shows
it to its own book, and the book alone knows whether a later number has been there. The ticket proves nothing
by itself: anybody can write a number on paper, so take it only from services you trust.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, unquote

from atoll.blocks.ownership import Keys
from atoll.errors import ConfigurationError, Refused
from atoll.ports.joined import joined_on
from atoll.ports.store import Token

NAME = "Atoll-Fence"
BYTES_MAX = 4096
NUMBER_MAX = (1 << 63) - 1
_FORM = re.compile(r"(?P<kind>[a-z_]+)/(?P<name>[!-~]+) (?P<epoch>[0-9]{1,19}):(?P<revision>[0-9]{1,19})")


class Holding(Protocol):
    """A held lock or a term."""

    @property
    def resource(self) -> str: ...
    @property
    def token(self) -> Token: ...
    def check(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Handed:
    """A token that came with a request: whose it is, and how new. Nobody has compared it yet."""

    resource: str
    token: Token

    async def fence(self, tx: object, *, resource: str | None = None) -> None:
        """Let the database of this open transaction compare it; the transaction's first statement.

        `resource`: what the token must be for, as in `lock/order/81`; a token for something else is Refused.
        Refused too when a newer holder was here.
        """
        if resource is not None and resource != self.resource:
            raise Refused(
                f"found a token for {self.resource}, expected one for {resource}. Nothing was written: "
                "whoever sent it holds another lock than the one this needs."
            )
        await joined_on(tx).fence(tx, self.resource, self.token)

    @property
    def owner_key(self) -> str:
        """So that it goes where a `guard` is asked for, on the store where the lock is held."""
        kind, _, name = self.resource.partition("/")
        return Keys.of(kind, name).owner

    def check(self) -> None:
        """Nothing: the holder's clock is elsewhere, and only the place that is written to can compare."""


current: ContextVar[Handed | None] = ContextVar("atoll_fence_header", default=None)


def handed() -> Handed | None:
    """The token that came with the request being answered, None where none came."""
    return current.get()


def headers(held: Holding) -> dict[str, str]:
    """The header for a request made under a held lock: `client.post(url, headers=headers(held))`.

    Raises LockLost or LeaderLost where the lease is over already.
    """
    held.check()
    return {NAME: written(held.resource, held.token)}


def written(resource: str, token: Token) -> str:
    """`lock/order%2F81 3:48211`."""
    kind, _, name = resource.partition("/")
    return f"{kind}/{quote(name, safe='')} {token}"


def parsed(text: str) -> Handed:
    """What `written` wrote; ConfigurationError with what was found and what was expected."""
    found = _FORM.fullmatch(text) if len(text) <= BYTES_MAX else None
    if found is not None:
        token = Token(int(found["epoch"]), int(found["revision"]))
        name = unquote(found["name"])
        if max(token) <= NUMBER_MAX and quote(name, safe="") == found["name"]:
            return Handed(f"{found['kind']}/{name}", token)
    raise ConfigurationError(
        f"found {NAME}: {text[:60]!r}; expected what a held lock writes, as in lock/order%2F81 3:48211. Send "
        "headers(held) as it is, once."
    )
