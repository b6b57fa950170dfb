"""Connection: one NATS connection, and what its client's errors mean here.

No responder means that nobody took the letter. A timeout means that somebody may have.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nats import errors as client_errors
from nats.aio.client import Client
from nats.js.errors import APIError, ServiceUnavailableError

from atoll.engines.parts.call import left_s
from atoll.errors import (
    AtollError,
    ConfigurationError,
    DiskFull,
    LimitReached,
    NotSent,
    OutcomeUnknown,
    ReadOnly,
)
from atoll.ports.address import Address

_FULL = (10023, 10028, 10047, 10077)
_TOO_LARGE = 10054


async def connect(address: Address, options: Any) -> Client:
    """A connection to any of the URL's servers; it finds another one by itself when it breaks."""
    left = left_s("opening", options.ceiling_s)
    scheme = "tls" if options.tls else "nats"
    hosts = address.hosts or ((address.host, address.port),)
    refused: list[Exception] = []

    async def note(error: Exception) -> None:
        refused.append(error)

    client = Client()
    try:
        async with asyncio.timeout(left):
            await client.connect(
                [f"{scheme}://{host}:{port or 4222}" for host, port in hosts],
                user=address.user,
                password=address.password,
                connect_timeout=max(1, round(min(left, 2))),
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                error_cb=note,
                name="atoll",
            )
    except (client_errors.Error, OSError, TimeoutError) as error:
        raise of(_reason(error, refused), "opening", str(address), sent=False) from error
    client.options[
        "max_reconnect_attempts"
    ] = -1  # once it was there, it is looked for until the handle closes
    return client


def _reason(error: Exception, refused: list[Exception]) -> Exception:
    """What a server said is a better reason than that there is none left to try."""
    said = [one for one in refused if "authoriz" in str(one).lower()]
    return said[0] if said else error


@asynccontextmanager
async def translate(what: str, url: str) -> AsyncIterator[None]:
    """Client errors inside come out in our three families."""
    try:
        yield
    except AtollError:
        raise
    except (client_errors.Error, APIError, OSError) as error:
        raise of(error, what, url, sent=True) from error


def of(error: Exception, what: str, url: str, *, sent: bool) -> AtollError:
    """What `error` means for `what`."""
    said = str(error) or type(error).__name__
    if "authorization" in said.lower() or "authentication" in said.lower():
        return ConfigurationError(
            f"{url} refused the user or the password ({said}). Correct them in the URL, or take them "
            "from the environment."
        )
    if isinstance(error, ServiceUnavailableError | client_errors.NoRespondersError) and not _full(error):
        return NotSent(
            f"{what}: nobody at {url} answers for JetStream ({said}). Nothing happened. It has no leader "
            "just now, or the server was started without -js."
        )
    if isinstance(error, client_errors.MaxPayloadError):
        return LimitReached(f"{what}: {url} takes smaller messages only ({said}). Keep the value elsewhere.")
    if isinstance(error, APIError):
        return _of_api(error, what, url)
    if not sent or isinstance(error, client_errors.ConnectionClosedError):
        return NotSent(f"no NATS server answers at {url} ({said}). Start it, or correct the address.")
    return OutcomeUnknown(
        f"{what} was sent to {url} and no answer came ({said}). It may have happened: read before you ask "
        "again."
    )


def _full(error: Exception) -> bool:
    return isinstance(error, APIError) and error.err_code in _FULL


def _of_api(error: APIError, what: str, url: str) -> AtollError:
    if error.err_code in _FULL:
        return DiskFull(
            f"{what}: JetStream at {url} has no room left ({error.description}). Raise its limits."
        )
    if error.err_code == _TOO_LARGE:
        return LimitReached(f"{what}: {url} takes smaller values only ({error.description}).")
    if error.code == 503:
        return NotSent(f"{what}: JetStream at {url} is not ready ({error.description}). Ask again.")
    if "seal" in (error.description or ""):
        return ReadOnly(f"{what}: the bucket at {url} is sealed. Name another one.")
    return ConfigurationError(
        f"{what}: JetStream at {url} refused it: {error.description} ({error.err_code})."
    )
