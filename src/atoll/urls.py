"""URL -> engine: one literal table, nothing imported before it is asked for.

Four doors, because a type checker cannot read a string: `store`, `broker`, `tier`, `database`. Each
also takes an engine object made by hand; the URL is the short form of its constructor, never the only
form. What comes back is inert: it connects at its first use.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from atoll.errors import ConfigurationError, MissingExtra
from atoll.ports.address import Address

if TYPE_CHECKING:
    from atoll.ports.broker import Broker
    from atoll.ports.joined import Database
    from atoll.ports.register import Register
    from atoll.ports.store import Store
    from atoll.ports.tier import Tier

# scheme -> door -> "module:class" with `from_address(Address)`. `extra` is the pip extra it needs.
ENGINES: dict[str, dict[str, str]] = {
    "memory": {
        "store": "atoll.engines.memory:MemoryStore",
        "broker": "atoll.engines.memory:MemoryBroker",
        "tier": "atoll.engines.memory:MemoryTier",
    },
    "sqlite": {
        "store": "atoll.engines.sqlite:SqliteStore",
        "broker": "atoll.engines.sqlite:SqliteBroker",
        "tier": "atoll.engines.sqlite:SqliteTier",
        "database": "atoll.engines.sqlite:SqliteDatabase",
    },
    "postgresql": {
        "store": "atoll.engines.postgresql:PostgresStore",
        "database": "atoll.engines.postgresql:PostgresDatabase",
    },
    "etcd": {"store": "atoll.engines.etcd:EtcdStore"},
    "etcds": {"store": "atoll.engines.etcd:EtcdStore"},
    "zookeeper": {"store": "atoll.engines.zookeeper:ZookeeperStore"},
    "raft": {"store": "atoll.engines.raft:RaftStore"},
    "mysql": {"store": "atoll.engines.mysql:MysqlStore"},
    "mariadb": {"store": "atoll.engines.mysql:MysqlStore"},
    "nats": {"register": "atoll.engines.nats:NatsRegister"},
    "consul": {"register": "atoll.engines.consul:ConsulRegister"},
    **{
        scheme: {"store": "atoll.engines.redis:RedisStore"}
        for scheme in "redis rediss redis+sentinel rediss+sentinel redis+cluster rediss+cluster".split()
    },
    **{
        scheme: {"store": "atoll.engines.redis:RedisStore"}
        for scheme in "valkey valkeys valkey+sentinel valkeys+sentinel valkey+cluster valkeys+cluster".split()
    },
}

# What the user's own objects are, by the module that defines their type.
OBJECTS: dict[str, str] = {
    "sqlalchemy": "atoll.engines.sqlalchemy:SqlAlchemyDatabase",
    "psycopg_pool": "atoll.engines.postgresql:PostgresDatabase",
    "asyncpg": "atoll.engines.postgresql:PostgresDatabase",
}

# What an object must have to pass a door as it is.
_VERBS = {"store": "transact", "register": "put_if", "broker": "acknowledge", "tier": "invalidate_many"}

DOORS = ("store", "register", "broker", "tier", "database")
STRANGERS = "atoll.engines"
"""The entry-point group in which other packages offer engines."""
FAULTY = "faulty+"
CASPAXOS = "caspaxos+"
_CASPAXOS = "atoll.engines.caspaxos:"
_FAULTS = "atoll.verify.faults"
_FORMERLY = "atoll.engines.formerly:FormerlyStore"
_PLANNED = {scheme: "0.2" for scheme in ("amqp amqps kafka pulsar activemq memcached mongodb").split()}


def store(url: str | Store, *, formerly: str | Store | None = None) -> Store:
    """Where coordination lives: locks, leaders, decisions. `sqlite:///state.db`, `memory://`.

    `formerly`: where it lived before, and lives until `atoll store move` was run; locks are taken in both.
    """
    if formerly is None:
        return cast("Store", _open("store", url))
    return cast("Store", _load(_FORMERLY)(_open("store", url), _open("store", formerly)))


def register(url: str | Register) -> Register:
    """Where single keys are compared and set: every store, and what keeps one key at a time (`nats://`).

    `caspaxos+redis://a,b,c` is a register kept by a majority of the places named, which know nothing of each
    other; files are named as in `caspaxos+sqlite:////disk1/a.db,/disk2/a.db,/disk3/a.db`.
    """
    if isinstance(url, str) and url.startswith(CASPAXOS):
        return _caspaxos(url)
    if isinstance(url, str) and not url.startswith(FAULTY):
        scheme = parse(url).scheme
        doors = ENGINES.get(scheme) or strangers(scheme)
        return cast("Register", _open("register" if "register" in doors else "store", url))
    return cast("Register", _open("register", url))


def broker(url: str | Broker) -> Broker:
    """Where messages wait. `sqlite:///queue.db`, `memory://`."""
    return cast("Broker", _open("broker", url))


def tier(url: str | Tier) -> Tier:
    """Where copies are kept and may be forgotten. `memory://?bytes_max=64MB`, `sqlite:///cache.db`."""
    return cast("Tier", _open("tier", url))


def database(engine: Any, *, name: str | None = None) -> Database:
    """A database of yours: `sqlite:///shop.db`, `postgresql://me@host/shop`, or the engine or pool you have.

    A SQLAlchemy engine (sqlite3, aiosqlite, asyncpg, psycopg), a pool of psycopg_pool or of asyncpg.
    `name` names it in errors and reports, and among the databases of one transaction; by default the
    file's or database's own name.
    """
    if isinstance(engine, str):
        return cast("Database", _open("database", engine, name=name))
    package = type(engine).__module__.partition(".")[0]
    if package in OBJECTS:
        return cast("Database", _load(OBJECTS[package])(engine, name=name))
    if hasattr(engine, "joined") and hasattr(engine, "begin"):
        return cast("Database", engine)
    raise ConfigurationError(
        f"found {type(engine).__module__}.{type(engine).__qualname__}; atoll.database() takes a URL "
        "(sqlite:///shop.db), a SQLAlchemy engine, or a pool of psycopg_pool or asyncpg. Hand it what your "
        "sessions or connections are made from."
    )


def parse(url: str) -> Address:
    """A URL taken apart. Percent-escapes are undone in user, password and path."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ConfigurationError(
            f"found {url!r}, which has no scheme; expected something like sqlite:///state.db or memory://."
        )
    try:
        place, *others = _places(rest)
        parts = urlsplit(f"x://{place}")
        port = parts.port
        further = tuple((other.hostname or "", other.port) for other in map(urlsplit, others))
    except ValueError as error:
        raise ConfigurationError(
            f"the URL with scheme {scheme} cannot be read: {error}. A file is "
            "named as in sqlite:///state.db, a server as in scheme://user:password@host:5432/path."
        ) from None
    return Address(
        scheme=scheme,
        host=parts.hostname or "",
        port=port,
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        path=unquote(parts.path[1:]),
        options=dict(parse_qsl(parts.query, keep_blank_values=True)),
        others=further,
    )


def _places(rest: str) -> tuple[str, ...]:
    """`user@a:1,b:2/path` as `user@a:1/path`, then `x://b:2` for each server named after the first."""
    end = min((n for n in map(rest.find, "/?#") if n >= 0), default=len(rest))
    login, at, hosts = rest[:end].rpartition("@")
    first, *others = hosts.split(",")
    if others and not all((first, *others)):
        raise ValueError("a server is missing beside a comma")
    return login + at + first + rest[end:], *(f"x://{other}" for other in others)


def _caspaxos(url: str) -> Register:
    """Each place opened by itself. Options that the register does not know go to all the places."""
    from urllib.parse import urlencode

    kind = _load(_CASPAXOS + "CasPaxosOptions")
    scheme, _, rest = url.removeprefix(CASPAXOS).partition("://")
    rest, _, query = rest.partition("?")
    mine = {field.name for field in dataclasses.fields(kind)}
    words = parse_qsl(query, keep_blank_values=True)
    theirs = urlencode([(name, value) for name, value in words if name not in mine])
    if rest.startswith("/"):
        places = [f"/{path}" for path in rest[1:].split(",")]
    else:
        end = rest.find("/") if "/" in rest else len(rest)
        login, at, hosts = rest[:end].rpartition("@")
        places = [login + at + host + rest[end:] for host in hosts.split(",")]
    options = Address(scheme=CASPAXOS + scheme, options={k: v for k, v in words if k in mine})
    return cast(
        "Register",
        _load(_CASPAXOS + "CasPaxosRegister")(
            [register(f"{scheme}://{place}{'?' + theirs if theirs else ''}") for place in places],
            options=options.parse_options(kind),
        ),
    )


def _open(door: str, url: Any, **extra: Any) -> Any:
    if not isinstance(url, str):
        if not hasattr(url, _VERBS[door]):
            raise ConfigurationError(
                f"found {url!r:.100}, which is no {door}; expected a URL such as sqlite:///{door}.db, or an "
                f"object of an engine, which has the verb {_VERBS[door]}."
            )
        return url
    if url.startswith(FAULTY):
        if os.environ.get("ATOLL_FAULTS") != "1":
            raise ConfigurationError(
                f"{FAULTY}... breaks things on purpose and is refused outside a test. "
                "Set ATOLL_FAULTS=1 in the environment of a process that may be killed, or drop the prefix."
            )
        return importlib.import_module(_FAULTS).wrap(door, url, extra)
    address = parse(url)
    return _load(_named(door, address.scheme)).from_address(address, **extra)


def _named(door: str, scheme: str) -> str:
    doors = ENGINES.get(scheme) or strangers(scheme)
    if scheme.startswith(CASPAXOS):
        raise ConfigurationError(
            f"{scheme}:// is no {door}; it is a register, one key at a time: atoll.urls.register(...)."
        )
    if not doors:
        if scheme in _PLANNED:
            raise ConfigurationError(
                f"{scheme}:// is on the page but not in this release. Use sqlite:// today; "
                "the code stays the same when the engine comes."
            )
        raise ConfigurationError(
            f"found the scheme {scheme}://; this release knows {', '.join(f'{s}://' for s in ENGINES)}, and "
            f"no installed package offers {scheme}:// (entry points of the group {STRANGERS})."
        )
    if door not in doors:
        raise ConfigurationError(
            f"{scheme}:// is no {door}; it is a {' and a '.join(doors)}. "
            f"A {door} can be {', '.join(f'{s}://' for s, d in ENGINES.items() if door in d)}."
        )
    return doors[door]


def strangers(scheme: str) -> dict[str, str]:
    """What installed packages offer for `scheme`: entry points of the group `atoll.engines`, door by door.

    An entry point is named `<scheme>.<door>`, as `acme.store`, and leads to a class with `from_address`. A
    scheme of ours is never looked up there, so no package can put itself in an engine's place.
    """
    from importlib.metadata import entry_points

    found: dict[str, str] = {}
    for point in entry_points(group=STRANGERS):
        theirs, _, door = point.name.rpartition(".")
        if theirs != scheme or door not in DOORS:
            continue
        if found.get(door, point.value) != point.value:
            raise ConfigurationError(
                f"found two packages that offer {point.name}: {found[door]} and {point.value}. Keep one."
            )
        found[door] = point.value
    return found


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "atoll" or not module.startswith("atoll."):
            raise
        extra = module.rpartition(".")[2]
        raise MissingExtra(
            f"{module} needs the package {missing!r}, which is not installed. "
            f'Type: pip install "atoll[{extra}]"'
        ) from error
