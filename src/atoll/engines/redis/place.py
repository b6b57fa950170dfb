"""Place: what a URL or a client object names: one server, a name that sentinels know, or a cluster.

Three ways to give an address: a door number, "whoever is mayor, ask the neighbours", and "the office that
handles this letter". The road is found anew each time the mayor changes; the address stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from atoll.engines.redis.options import RedisOptions
from atoll.errors import ConfigurationError
from atoll.ports.address import Address

PORT, SENTINEL_PORT = 6379, 26379
_KEPT = (
    "db username password credential_provider client_name socket_keepalive socket_keepalive_options path "
    "ssl_keyfile ssl_certfile ssl_cert_reqs ssl_ca_certs ssl_ca_data ssl_ca_path ssl_check_hostname "
    "ssl_min_version ssl_ciphers ssl_password"
).split()
_EXPECTED = "redis.asyncio.Redis(...), RedisCluster(...), or Sentinel(...).master_for(...)"


class Kind(Enum):
    """How the server that takes writes is found."""

    ALONE = "alone"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """`hosts`: the server, the sentinels, or some nodes of the cluster. `login`: for each connection."""

    kind: Kind
    hosts: tuple[tuple[str, int], ...]
    master: str = ""
    tls: bool = False
    login: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sentinel_login: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sentinel_tls: bool = False


def of_address(address: Address, options: RedisOptions) -> Place:
    """`redis://host:6379/0`, `redis+sentinel://s1,s2/main/0`, `redis+cluster://h1,h2`."""
    scheme, _, way = address.scheme.partition("+")
    kind = Kind(way) if way else Kind.ALONE
    tls = scheme in ("rediss", "valkeys")
    port = SENTINEL_PORT if kind is Kind.SENTINEL else PORT
    hosts = tuple((host, number or port) for host, number in address.hosts) or (("127.0.0.1", port),)
    if kind is Kind.ALONE and len(hosts) > 1:
        raise ConfigurationError(
            f"found {len(hosts)} servers in {address}; expected one. For a name that sentinels know write "
            "redis+sentinel://host,host/NAME, for a cluster redis+cluster://host,host."
        )
    path = [part for part in address.path.split("/") if part]
    master = ""
    if kind is Kind.SENTINEL:
        if not path:
            raise ConfigurationError(f"found {address}; expected the master's name: .../NAME or .../NAME/0.")
        master = path.pop(0)
    if not tls and (options.ca or options.cert):
        raise ConfigurationError(f"found ca= or cert= in {address}, which is not TLS; write {scheme}s://.")
    login: dict[str, Any] = {"username": address.user, "password": address.password}
    login["db"] = _database(address, path, kind)
    if tls:
        login |= {"ssl_ca_certs": options.ca, "ssl_certfile": options.cert, "ssl_keyfile": options.key}
    return Place(
        kind=kind,
        hosts=hosts,
        master=master,
        tls=tls,
        login={name: value for name, value in login.items() if value},
    )


def _database(address: Address, path: list[str], kind: Kind) -> int:
    if not path:
        return 0
    if len(path) > 1 or not path[0].isdigit():
        raise ConfigurationError(
            f"found /{'/'.join(path)} in {address}; expected the database's number, as /0."
        )
    if kind is Kind.CLUSTER and path[0] != "0":
        raise ConfigurationError(f"found database {path[0]} in {address}; a cluster has database 0 only.")
    return int(path[0])


def of_client(client: Any) -> Place:
    """What a redis-py client object is connected to; its settings are read, its connections left alone."""
    if hasattr(client, "startup_nodes") or hasattr(client, "nodes_manager"):
        nodes = getattr(client, "startup_nodes", None) or client.nodes_manager.startup_nodes.values()
        kwargs = getattr(client, "connection_kwargs", None) or client.nodes_manager.connection_kwargs
        hosts = tuple((str(node.host), int(node.port)) for node in nodes)
        return Place(kind=Kind.CLUSTER, hosts=hosts, tls=_is_tls(kwargs, None), login=_kept(kwargs))
    pool = getattr(client, "connection_pool", None)
    kwargs = getattr(pool, "connection_kwargs", None)
    if pool is None or kwargs is None:
        raise ConfigurationError(f"found {type(client).__name__} as client; expected {_EXPECTED}.")
    tls = _is_tls(kwargs, getattr(pool, "connection_class", None))
    manager = getattr(pool, "sentinel_manager", None)
    if manager is not None:
        if not getattr(pool, "is_master", True):
            raise ConfigurationError(f"found a client of replicas; expected {_EXPECTED}.")
        asked = [one.connection_pool for one in manager.sentinels]
        return Place(
            kind=Kind.SENTINEL,
            hosts=tuple((str(p.connection_kwargs["host"]), int(p.connection_kwargs["port"])) for p in asked),
            master=str(pool.service_name),
            tls=tls,
            login=_kept(kwargs),
            sentinel_login=_kept(asked[0].connection_kwargs) if asked else {},
            sentinel_tls=bool(asked) and _is_tls(asked[0].connection_kwargs, asked[0].connection_class),
        )
    host, port = str(kwargs.get("host", "localhost")), int(kwargs.get("port", PORT))
    return Place(kind=Kind.ALONE, hosts=((host, port),), tls=tls, login=_kept(kwargs))


def _kept(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: kwargs[name] for name in _KEPT if kwargs.get(name) is not None}


def _is_tls(kwargs: Mapping[str, Any], made: type | None) -> bool:
    return bool(kwargs.get("ssl")) or (made is not None and "SSL" in made.__name__)


def describe(place: Place) -> str:
    """The place as a URL, for one that was given as a client object."""
    scheme = ("rediss" if place.tls else "redis") + (
        "" if place.kind is Kind.ALONE else f"+{place.kind.value}"
    )
    hosts = ",".join(f"{host}:{port}" for host, port in place.hosts)
    if "path" in place.login:
        hosts = str(place.login["path"])
    path = [place.master] if place.master else []
    path += [str(place.login["db"])] if place.login.get("db") else []
    return f"{scheme}://{'/'.join([hosts, *path])}"
