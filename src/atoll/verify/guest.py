"""Guest: how verify behaves on a server that is somebody's: knocks, stays in one room, leaves nothing behind.

A guest who brings his own plate. Everything he puts down stands on one tray under a lease: should he drop
dead, the tray is cleared away by itself. He eats slowly, and never touches the house: what he breaks is his
own line to it.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from atoll import clock, urls
from atoll.errors import AtollError, ConfigurationError
from atoll.ports.examining import Finding
from atoll.verify import janitor
from atoll.verify.accidents import Fate
from atoll.verify.performance import sweep
from atoll.verify.proxy import Proxy, addresses, redirected
from atoll.verify.scenario import Hardship
from atoll.verify.staging import patient

if TYPE_CHECKING:
    from atoll.verify.run import Report, Wish

LEASE_S = 12.0
"""Of the lease that all keys stand under: this long after a kill -9 of verify they are gone at the latest."""
RATE = 600.0
BYTES_MAX = 64_000_000
PROCESSES = 3
HERE = ("memory", "sqlite")


@dataclass(slots=True)
class Visit:
    """One visit. `url`: what the workers are given; `lease`: what their keys stand under."""

    url: str
    base: str
    network: bool = False
    lease: str | None = None
    rate: float = 0.0
    bytes_max: int = 0
    fates: dict[Hardship, Fate] = field(default_factory=dict)

    def weather(self) -> dict[Hardship, Fate]:
        """What may happen to our own connections; nothing happens to the server."""
        return self.fates

    def prefix(self, name: str) -> str:
        """Where a workload's keys are."""
        return f"{self.base}{name}/"

    def bounds(self, name: str) -> dict[str, Any]:
        """What each worker process keeps to."""
        if self.lease is None and not self.network:
            return {}
        share = {"rate": self.rate / PROCESSES, "bytes_max": self.bytes_max // PROCESSES}
        return {"lease": self.lease, **(share if self.network else {})}


@asynccontextmanager
async def visit(
    wish: Wish, report: Report, said: Callable[[Sequence[Finding]], None] = lambda findings: None
) -> AsyncIterator[Visit]:
    """Knock, look round, take a lease; give everything back in the end."""
    scheme = urls.parse(wish.url.removeprefix(urls.FAULTY)).scheme
    base = f"atoll-verify/{wish.seed}-{clock.unique_id()[:8]}/"
    here = Visit(wish.url, base)
    if scheme in HERE or "store" not in urls.ENGINES.get(scheme, {}):
        yield here
        return
    urls.store(wish.url)
    knock(wish)
    here.network = True
    here.rate, here.bytes_max = wish.rate or RATE, wish.bytes_max or BYTES_MAX
    async with AsyncExitStack() as stack:
        store: Any = await stack.enter_async_context(urls.store(wish.url))
        await _look_round(store, report)
        said(report.preflight)
        if store.leasing is not None:
            here.lease = (await store.leasing.grant(LEASE_S)).lease
            keeper = asyncio.ensure_future(_keep(store, here.lease))
            stack.push_async_callback(_stop, keeper)
        await stack.enter_async_context(janitor.waiting(wish.url, base))
        stack.push_async_callback(_leave, store, here)
        await _through_proxies(stack, here, wish)
        yield here


def knock(wish: Wish) -> None:
    """Beyond loopback only with a word."""
    address = urls.parse(wish.url.removeprefix(urls.FAULTY))
    far = [host for host, _ in address.hosts if not _loopback(host)]
    if far and not wish.yes:
        raise ConfigurationError(
            f"{far[0]} is beyond this machine. verify would write some thousand small keys below "
            f"atoll-verify/..., under a lease of {LEASE_S:g} s, at most {wish.rate or RATE:g} calls a "
            "second, and remove them; it would neither stop nor change the server. "
            "Add --yes if that is welcome there."
        )


def _loopback(host: str) -> bool:
    if host in ("localhost", "") or host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


async def _look_round(store: Any, report: Report) -> None:
    claims = await store.open()
    names = (field for field in claims.__dataclass_fields__)
    report.facts["claims"] = {name: _word(getattr(claims, name)) for name in names}
    if store.examining is not None:
        report.preflight = list(await store.examining.examine())


def _word(value: Any) -> Any:
    return getattr(value, "value", value)


async def _keep(store: Any, lease: str) -> None:
    while True:
        await asyncio.sleep(LEASE_S / 5)
        with suppress(AtollError):
            await store.leasing.keep_alive(lease)


async def _stop(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _leave(store: Any, here: Visit) -> None:
    with suppress(AtollError):
        await sweep(store, here.base)
    if here.lease is not None:
        with suppress(AtollError):
            await store.leasing.revoke(here.lease)


async def _through_proxies(stack: AsyncExitStack, here: Visit, wish: Wish) -> None:
    """Our own line to the server, to be cut: where its hosts are plain numbers and it is not encrypted."""
    from atoll.verify.server_faults import lines_only

    if not wish.faults or wish.url.startswith(urls.FAULTY):
        return
    scheme = wish.url.partition("://")[0]
    found = addresses(wish.url)
    if (
        not found
        or "+" in scheme
        or scheme in ("rediss", "valkeys", "etcds")
        or "ssl" in wish.url.partition("?")[2]
    ):
        return
    through, proxies = {}, []
    for host, port in found:
        proxies.append(await stack.enter_async_context(Proxy(host, port)))
        through[host, port] = proxies[-1].address
    here.url = patient(redirected(wish.url, through))
    here.fates = lines_only(proxies)
