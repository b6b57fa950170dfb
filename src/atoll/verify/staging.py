"""Staging: the servers that verify starts itself, with a proxy before each door, to be hurt as it likes.

A test track beside the road. The cars on it are our own, so the walls may be driven into; nobody else's
traffic comes by.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from atoll import urls
from atoll.errors import ConfigurationError, EpochUncertain, NotApplied, OutcomeUnknown
from atoll.verify import servers
from atoll.verify.proxy import Proxy, addresses, redirected
from atoll.verify.servers.cluster import Cluster

VOTING = ("etcd", "zookeeper", "nats", "consul", "raft")
"""Where members elect one of them, who has all that was acknowledged."""
CEILING_S = 2.0
"""The longest a client waits for one answer of a server that is being hurt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Which servers: `etcd:3`, `redis?appendfsync=everysec`, `postgresql:2`."""

    product: str
    nodes: int = 1
    settings: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def read(cls, text: str) -> Start:
        """Take the words of `--start` apart."""
        place, _, query = text.partition("?")
        product, colon, number = place.partition(":")
        if product not in servers.SERVERS:
            known = ", ".join(servers.SERVERS)
            raise ConfigurationError(f"found --start {text}; expected one of {known}, as in etcd:3.")
        if colon and not (number.isdecimal() and 1 <= int(number) <= 9):
            raise ConfigurationError(f"found --start {text}; expected 1 to 9 nodes, as in {product}:3.")
        settings = tuple((name, _plain(raw)) for name, raw in parse_qsl(query, keep_blank_values=True))
        return cls(product=product, nodes=int(number) if colon else 1, settings=settings)

    def __str__(self) -> str:
        query = "&".join(f"{name}={_text(value)}" for name, value in self.settings)
        return f"{self.product}{f':{self.nodes}' if self.nodes > 1 else ''}{'?' + query if query else ''}"


def _plain(raw: str) -> Any:
    if raw.lower() in ("true", "false"):
        return raw.lower() == "true"
    return int(raw) if raw.isdecimal() else raw


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(slots=True)
class Stage:
    """Running servers. `url` leads through the proxies, `straight` past them; `peers`: between members."""

    start: Start
    cluster: Cluster
    url: str
    straight: str
    folder: Path
    proxies: list[Proxy] = field(default_factory=list)
    peers: list[Proxy] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """What one kind of set-up knows of itself: its disk, its network, its clock file."""
    within: list[str] = field(default_factory=list)
    """What stands before the command of each worker."""


@asynccontextmanager
async def staged(start: Start, folder: Path, *, proxied: bool = True, **more: Any) -> AsyncIterator[Stage]:
    """Start them below `folder`; `more` settings go before those of `start`."""
    async with AsyncExitStack() as stack:
        peers: list[Proxy] = []

        async def between(member: int, address: str) -> str:
            host, port = address.rsplit(":", 1)
            peers.append(await stack.enter_async_context(Proxy(host, int(port))))
            return peers[-1].address

        settings = {**more, **dict(start.settings)}
        if start.nodes > 1 and start.product in ("etcd", "raft"):
            settings["between"] = between
        try:
            cluster = await servers.start(start.product, folder, nodes=start.nodes, **settings)
        except TypeError as error:
            raise ConfigurationError(f"found --start {start}: {error}.") from None
        await stack.enter_async_context(cluster)
        stage = Stage(start, cluster, patient(cluster.url), patient(cluster.url), folder, peers=peers)
        if proxied and not _told_by_servers(cluster.url):
            through: dict[tuple[str, int], str] = {}
            for host, port in addresses(cluster.url):
                proxy = await stack.enter_async_context(Proxy(host, port))
                stage.proxies.append(proxy)
                through[host, port] = proxy.address
            stage.url = redirected(stage.straight, through)
        yield stage


def _told_by_servers(url: str) -> bool:
    """Whether its clients ask the servers for each other's addresses, and so go round a proxy."""
    return url.partition("://")[0].endswith(("+sentinel", "+cluster"))


def patient(url: str) -> str:
    """The URL with a ceiling that suits servers that are hurt, where its engine knows that option."""
    longer = f"{url}{'&' if '?' in url else '?'}ceiling_s={CEILING_S:g}"
    try:
        urls.store(longer)
    except ConfigurationError:
        return url
    return longer


async def accept(stage: Stage, *, always: bool = False) -> bool:
    """Where the store says that the server may have gone back, accept it as it is, as an operator would.

    `atoll store bump`; answers whether it was needed, or done `always`.
    """
    for _ in range(25):
        try:
            async with urls.store(stage.url) as store:
                try:
                    await store.epoch()
                    if not always:
                        return False
                except EpochUncertain:
                    pass
                if store.moving is not None:
                    await store.moving.bump()
                return True
        except EpochUncertain:
            return await _bumped(stage)
        except (NotApplied, OutcomeUnknown):
            await asyncio.sleep(0.2)
    return False


async def _bumped(stage: Stage) -> bool:
    """A store that cannot even be opened before."""
    moving = urls.store(stage.url).moving
    if moving is not None:
        await moving.bump()
    return moving is not None


async def replaced(stage: Stage, number: int, within_s: float = 20.0) -> bool:
    """Whether somebody other than member `number` is found leading in time."""
    try:
        async with asyncio.timeout(within_s):
            return await stage.cluster.leader() != number
    except Exception:
        return False


async def leading(stage: Stage, within_s: float = 20.0) -> int:
    """The index of the member that leads; 0 where nobody can be found leading in time."""
    try:
        async with asyncio.timeout(within_s):
            return await stage.cluster.leader()
    except Exception:
        return 0
