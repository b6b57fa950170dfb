"""What the app's stores, brokers and databases say: queues, locks, transactions in doubt.

A watchman who looks through the windows and touches nothing. What he cannot see he calls "not asked",
with the reason; he never says "fine" of a dark room.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from atoll import clock, urls
from atoll.errors import AtollError
from atoll.up.manifest import Manifest, absolute

KEPT_S, LOOK_S = 1.0, 3.0
ROWS_MAX, LOCKS_MAX = 200, 200


@dataclass(slots=True)
class Panel:
    """One view. `asked`: somebody answered; `why`: why nobody was asked; `said`: of the dark parts."""

    asked: bool = False
    why: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        why = "; ".join(self.said) or ("" if self.asked else self.why)
        return {"asked": self.asked, "why": why, "rows": self.rows[:ROWS_MAX]}

    def not_there_yet(self, name: str, url: str) -> bool:
        """Whether the file was not made so far, which is an answer: nothing waits in it."""
        parts = urlsplit(url)
        if parts.scheme != "sqlite" or Path(unquote(parts.path[1:])).exists():
            return False
        self.said.append(f"{name}: not there yet")
        return True


class Panels:
    """Looked at when asked, at most once a second."""

    def __init__(self, manifest: Manifest) -> None:
        folder = manifest.folder
        self._urls = {name: asking(absolute(url, folder)) for name, url in manifest.urls.items()}
        self._databases = {name: asking(absolute(url, folder)) for name, url in manifest.databases.items()}
        self._handles: dict[tuple[str, str], Any] = {}
        self._looked = float("-inf")
        self._panels: dict[str, dict[str, Any]] = {}
        self._looking = asyncio.Lock()

    async def look(self) -> dict[str, dict[str, Any]]:
        """`transactions`, `queues`, `locks`: what they show now."""
        async with self._looking:
            if clock.loop_now() - self._looked > KEPT_S:
                names = ("transactions", "queues", "locks")
                views = (self._in_doubt, self._depths, self._holders)
                found = await asyncio.gather(*map(_bounded, views))
                self._panels = {name: panel.plain() for name, panel in zip(names, found, strict=True)}
                self._looked = clock.loop_now()
        return self._panels

    def places(self) -> list[dict[str, str]]:
        """The manifest's URLs, as far as they may be shown."""
        named = {**self._urls, **self._databases}
        return [{"name": name, "scheme": urlsplit(url).scheme} for name, url in named.items()]

    async def close(self) -> None:
        for handle in self._handles.values():
            try:
                async with asyncio.timeout(LOOK_S):
                    await handle.close()
            except (AtollError, OSError, TimeoutError):
                continue
        self._handles.clear()

    def _handle(self, door: str, name: str, url: str) -> Any:
        key = (door, name)
        if key not in self._handles:
            self._handles[key] = getattr(urls, door)(url)
        return self._handles[key]

    async def _depths(self) -> Panel:
        panel = Panel(why="no URL of the manifest is a broker")
        for name, url in self._urls.items():
            if not _may_be(name, "broker", len(self._urls)):
                continue
            with _Asking(panel, name):
                if panel.not_there_yet(name, url):
                    continue
                inspecting = self._handle("broker", name, url).inspecting
                if inspecting is not None:
                    panel.rows += [{"broker": name, **asdict(d)} for d in await inspecting.depths()]
        return panel

    async def _holders(self) -> Panel:
        panel = Panel(why="no URL of the manifest is a store")
        for name, url in self._urls.items():
            if not _may_be(name, "state", len(self._urls)):
                continue
            with _Asking(panel, name):
                if panel.not_there_yet(name, url):
                    continue
                holders = importlib.import_module("atoll.blocks.lock").holders
                store = self._handle("store", name, url)
                for kind, word in (("election", "leader"), ("lock", "lock")):
                    found = await holders(store, kind)
                    panel.rows += [{"store": name, "kind": word, **_plain(holder)} for holder in found]
        return panel

    async def _in_doubt(self) -> Panel:
        panel = Panel(why="the manifest names no databases")
        now = clock.wall_now()
        for name, url in self._databases.items():
            with _Asking(panel, name):
                if panel.not_there_yet(name, url):
                    continue
                participant = self._handle("database", name, url).participant
                if participant is None:
                    continue
                for branch in await participant.in_doubt(""):
                    age = max(0.0, now - branch.prepared_at)
                    locks = branch.locks[:LOCKS_MAX]
                    panel.rows.append(
                        {"id": branch.id, "database": name, "age_s": round(age, 1), "locks": locks}
                    )
        panel.rows.sort(key=lambda row: -row["age_s"])
        return panel


class _Asking:
    """Around one question: an error becomes the panel's reason, not the page's end."""

    def __init__(self, panel: Panel, name: str) -> None:
        self._panel, self._name = panel, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None:
            self._panel.asked = True
            return True
        if isinstance(error, AtollError | OSError | ImportError | AttributeError):
            self._panel.said.append(f"{self._name}: {error}")
            return True
        return False


async def _bounded(look: Callable[[], Awaitable[Panel]]) -> Panel:
    try:
        async with asyncio.timeout(LOOK_S):
            return await look()
    except TimeoutError:
        return Panel(why=f"no answer within {LOOK_S:g} s")


def asking(url: str) -> str:
    """The URL for one who only looks: he breaks nothing, and makes no file and no table by asking."""
    plain = unfaulted(url)
    if urlsplit(plain).scheme != "sqlite":
        return plain
    place, _, options = plain.partition("?")
    kept = [option for option in options.split("&") if option and not option.startswith("create=")]
    return f"{place}?{'&'.join([*kept, 'create=false'])}"


def _may_be(name: str, wanted: str, many: int) -> bool:
    """Names say what a URL is for; a manifest with one URL uses it for everything."""
    others = {"broker": ("queue", "message"), "state": ("store", "lock")}[wanted]
    return many == 1 or wanted in name or any(word in name for word in others)


def _plain(value: Any) -> dict[str, Any]:
    if is_dataclass(value) and not isinstance(value, type):
        pairs = {f: getattr(value, f) for f in value.__dataclass_fields__}
    elif hasattr(value, "_asdict"):
        pairs = value._asdict()
    else:
        pairs = {f: getattr(value, f) for f in getattr(value, "__struct_fields__", ())}
    return {key: v if isinstance(v, str | int | float | bool | None) else str(v) for key, v in pairs.items()}


def unfaulted(url: str) -> str:
    """The URL without what a fault wrapper would break: the watchman breaks nothing himself."""
    if not url.startswith("faulty+"):
        return url
    place, _, options = url.removeprefix("faulty+").partition("?")
    kept = "&".join(option for option in options.split("&") if option and not option.startswith("fault_"))
    return f"{place}?{kept}" if kept else place
