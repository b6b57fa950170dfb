"""The manifest, atoll.toml: what an app consists of, read and checked before anything is started.

A guest list checked at the door, not at the table: every fault is found at once, each with its line,
what stands there and what was expected, and no process is started while there is one.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll.algorithms.restart_budget import RestartLimits
from atoll.errors import ConfigurationError
from atoll.up.manifest_reader import Fault, Reader, fill_in

NAME = "atoll.toml"
SERVICE_NAME = r"[a-z][a-z0-9-]{0,39}"


class ManifestFaults(ConfigurationError):
    """The manifest is not right. `faults` has all of them, in the order of their lines."""

    def __init__(self, path: Path, faults: list[Fault]) -> None:
        self.path = path
        self.faults = sorted(faults, key=lambda fault: fault.line)
        many = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = [f"{path.name}:{fault.line}: {fault.text}" for fault in self.faults]
        super().__init__("\n  ".join([f"{path} has {many}; nothing was started.", *lines]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A command, how many of it, and what it needs. Times in seconds."""

    name: str
    command: tuple[str, ...]
    instances: int = 1
    ready: str | None = None
    live: str | None = None
    once: bool = False
    after: tuple[str, ...] = ()
    start_grace_s: float = 30.0
    stop_grace_s: float = 10.0
    restarts: RestartLimits = field(default_factory=RestartLimits)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    port: int | None = None
    routed: bool = False
    line: int = 0

    @property
    def listens(self) -> bool:
        """Whether its instances are given a port that must accept before they count as ready."""
        asked = any("$PORT" in word for word in self.command)
        return bool(self.port or self.ready or self.live or self.routed or asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The door for requests from outside. `routes`: path prefix -> service; port 0: a free one."""

    port: int
    routes: Mapping[str, str]
    host: str = "127.0.0.1"
    wait_ready_s: float = 5.0
    deadline_s: float = 30.0
    body_bytes_max: int = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A checked manifest. `folder` is where its relative paths begin."""

    path: Path
    name: str
    urls: Mapping[str, str] = field(repr=False)
    databases: Mapping[str, str] = field(repr=False)
    services: tuple[Service, ...]
    gateway: Gateway | None
    admin_port: int

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def state_folder(self) -> Path:
        """Where locks, logs and the socket of a running `up` lie."""
        return self.folder / ".atoll"

    def environment(self) -> dict[str, str]:
        """ATOLL_<NAME> for each URL; relative sqlite paths begin at the manifest's folder."""
        named = {**self.urls, **self.databases}
        return {variable(name): absolute(url, self.folder) for name, url in named.items()}


def variable(name: str) -> str:
    """The environment variable a URL's name travels in."""
    return f"ATOLL_{name.upper().replace('-', '_')}"


def absolute(url: str, folder: Path) -> str:
    """A relative sqlite path made absolute, seen from `folder`; other URLs as they are."""
    scheme, separator, rest = url.partition(":///")
    if not separator or not scheme.endswith("sqlite") or rest.startswith("/"):
        return url
    path, mark, options = rest.partition("?")
    return f"{scheme}:///{(folder / path).resolve()}{mark}{options}" if path else url


def find(where: str | os.PathLike[str]) -> Path:
    """The manifest meant by a folder or a file."""
    path = Path(where)
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise ConfigurationError(f"found no {path}; expected a manifest there. Name the folder that has one.")
    return path.resolve()


def load(where: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> Manifest:
    """Read and check a manifest; ManifestFaults has every fault."""
    path = find(where)
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ManifestFaults(path, [Fault.of_toml(text, str(error))]) from None
    filled, faults, used = fill_in(raw, os.environ if environ is None else environ, text)
    reader = Reader(text, filled, faults)
    manifest = _read(path, reader, filled)
    if reader.faults:
        raise ManifestFaults(path, [fault.masked(used) for fault in reader.faults])
    return manifest


def _read(path: Path, reader: Reader, raw: dict[str, Any]) -> Manifest:
    reader.only("", raw, ("app", "urls", "databases", "services", "gateway", "admin"))
    app = reader.table("app")
    reader.only("app", app, ("name",))
    gateway = _gateway(reader)
    routed = frozenset(gateway.routes.values()) if gateway else frozenset()
    services = tuple(
        _service(reader, name, routed)
        for name, table in reader.table("services").items()
        if reader.is_table(f"services.{name}", table)
    )
    if not reader.table("services"):
        reader.fault("services", "", "no services", "at least one [services.NAME] with a command")
    _check_names(reader, services, gateway)
    admin = reader.table("admin")
    reader.only("admin", admin, ("port",))
    return Manifest(
        path=path,
        name=reader.text("app", "name", pattern=SERVICE_NAME) or path.parent.name,
        urls=reader.texts("urls"),
        databases=reader.texts("databases"),
        services=services,
        gateway=gateway,
        admin_port=reader.whole("admin", "port", 0, 0, 65535),
    )


def _service(reader: Reader, name: str, routed: frozenset[str]) -> Service:
    where = f"services.{name}"
    table = reader.table(where)
    known = "command instances ready live run after start_grace_s stop_grace_s restarts env port".split()
    reader.only(where, table, known)
    reader.named(where, name, SERVICE_NAME)
    run = reader.text(where, "run", one_of=("always", "once")) or "always"
    once, instances = run == "once", reader.whole(where, "instances", 1, 1, 200)
    if once and instances > 1:
        reader.fault(where, "instances", f"instances = {instances} with run = once", "one instance")
    if instances > 1 and "port" in table:
        reader.fault(where, "port", f"a fixed port for {instances} instances", "one instance, or no port")
    return Service(
        name=name,
        command=reader.words(where, "command"),
        instances=instances,
        ready=reader.text(where, "ready", pattern=r"/\S*"),
        live=reader.text(where, "live", pattern=r"/\S*"),
        once=once,
        after=reader.list(where, "after"),
        start_grace_s=reader.seconds(where, "start_grace_s", 30.0),
        stop_grace_s=reader.seconds(where, "stop_grace_s", 10.0),
        restarts=_restarts(reader, where, once),
        env=reader.texts(f"{where}.env"),
        port=reader.whole(where, "port", 0, 1, 65535) or None,
        routed=name in routed,
        line=reader.line(where, "command"),
    )


def _restarts(reader: Reader, where: str, once: bool) -> RestartLimits:
    table = reader.table(f"{where}.restarts")
    reader.only(f"{where}.restarts", table, ("most", "within_s", "wait_s_max"))
    most = reader.whole(f"{where}.restarts", "most", 0 if once else 5, 0, 1_000_000)
    within_s = reader.seconds(f"{where}.restarts", "within_s", 60.0)
    longest_s = reader.seconds(f"{where}.restarts", "wait_s_max", 10.0)
    return RestartLimits(most=most, within_s=within_s, longest_s=longest_s)


def _gateway(reader: Reader) -> Gateway | None:
    table = reader.table("gateway")
    if not table:
        return None
    known = ("port", "host", "routes", "wait_ready_s", "deadline_s", "body_bytes_max")
    reader.only("gateway", table, known)
    if "port" not in table:
        reader.fault("gateway", "", "no port", "port = 8000, or 0 for a free one")
    routes = reader.texts("gateway.routes")
    if not routes:
        reader.fault("gateway", "routes", "no routes", 'routes = { "/" = "a service" }')
    for prefix in routes:
        if not prefix.startswith("/"):
            reader.fault("gateway.routes", prefix, repr(prefix), "a path that begins with /")
    return Gateway(
        port=reader.whole("gateway", "port", 0, 0, 65535),
        routes=routes,
        host=reader.text("gateway", "host") or "127.0.0.1",
        wait_ready_s=reader.seconds("gateway", "wait_ready_s", 5.0),
        deadline_s=reader.seconds("gateway", "deadline_s", 30.0),
        body_bytes_max=reader.whole("gateway", "body_bytes_max", 10 * 1024 * 1024, 1, 2**40),
    )


def _check_names(reader: Reader, services: tuple[Service, ...], gateway: Gateway | None) -> None:
    by_name = {service.name: service for service in services}
    known = ", ".join(sorted(by_name)) or "no services"
    for service in services:
        for other in service.after:
            if other not in by_name:
                reader.fault(f"services.{service.name}", "after", repr(other), f"one of: {known}")
    for prefix, target in (gateway.routes if gateway else {}).items():
        if target not in by_name:
            reader.fault("gateway.routes", prefix, f"the service {target!r}", f"one of: {known}")
        elif by_name[target].once:
            reader.fault("gateway.routes", prefix, f"{target!r}, which runs once", "a service that stays")
    circle = _circle(by_name)
    if circle:
        found = " after ".join(circle)
        reader.fault(
            f"services.{circle[0]}", "after", f"a circle: {found}", "an order in which each can start"
        )


def _circle(by_name: Mapping[str, Service]) -> list[str]:
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done or name not in by_name:
            return []
        for other in by_name[name].after:
            if found := walk(other, [*path, name]):
                return found
        done.add(name)
        return []

    for name in by_name:
        if found := walk(name, []):
            return found
    return []
