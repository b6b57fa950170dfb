"""Faults: break a port on purpose, at a named point, from its URL or from a test.

A fire drill. The alarm goes off at a place and a moment written down beforehand, everybody behaves as
if it burned, and afterwards the list says which alarms really rang.

    faulty+sqlite:///orders.db?fault_kill=after-prepare,before-finish-commit:3&fault_once_dir=/tmp/hits

Each `fault_<action>` takes one or more points, separated by commas; an option may be repeated.

    point   = [moment "-"] verb ["~" prefix] [":" nth ["+"]] ["@" probability]
    moment  = before | after         kill and delay need one; the other actions have their own.
                                     after: it succeeded, and the caller has not heard of it
    prefix  : only calls about a key, queue or id that begins with it
    nth     : only the nth such call in this process; "3+" from the third on
    actions = kill          SIGKILL to the own process
              reply_lost    it is done, then OutcomeUnknown
              request_lost  it is not done, and OutcomeUnknown
              not_sent      it is not done, and NotSent says so
              half_open     it vanishes: OutcomeUnknown only after fault_ceiling_s, or at the deadline
              duplicated    it is done twice; the first answer counts
              delay         fault_delay_s passes before or after it

`fault_once_dir` makes each point fire once over all processes that share the folder: a point leaves a
file there, forced to disk before it fires, and `hits` lists them. `fault_seed` names the dice.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar, cast
from urllib.parse import quote, unquote, unquote_plus

from atoll import clock, urls
from atoll.errors import ConfigurationError, NotSent, OutcomeUnknown
from atoll.verify.doorway import Call, Doorway, DoorwayStore
from atoll.verify.doorway_database import DoorwayDatabase
from atoll.verify.doorway_messages import DoorwayBroker, DoorwayTier

T = TypeVar("T")
PortT = TypeVar("PortT")

ACTIONS = ("kill", "reply_lost", "request_lost", "not_sent", "half_open", "duplicated", "delay")
_TIMED = ("kill", "delay")

VERBS: dict[str, str] = {
    "store": "open epoch get range put_if delete_if transact observe changes now grant keep_alive revoke "
    "remaining bump freeze frozen examine",
    "broker": "open put take acknowledge give_back bury extend depths dead revive",
    "tier": "open get_many fill invalidate_many increment",
    "database": "open transaction commit begin prepare abort finish-commit finish-abort in_doubt joined-put "
    "joined-once joined-fence staged forget waiting queues",
}
# What these answer is alive, so it can be neither lost nor made twice.
_LIVE = {"transaction", "begin", "observe", "changes"}

_POINT = re.compile(
    r"(?:(?P<moment>before|after)-)?(?P<verb>[a-z_-]+)(?:~(?P<prefix>[^:@,]+))?"
    r"(?::(?P<nth>[0-9]+)(?P<on>\+)?)?(?:@(?P<probability>[0-9.]+))?"
)


@dataclass(slots=True, kw_only=True)
class Point:
    """One alarm: what happens, where, when, and how often it was passed here."""

    action: str
    verb: str
    moment: str = ""
    prefix: str = ""
    nth: int = 0
    on: bool = False
    probability: float = 1.0
    passed: int = field(default=0, compare=False)

    def __str__(self) -> str:
        moment = f"{self.moment}-" if self.moment else ""
        nth = f":{self.nth}{'+' if self.on else ''}" if self.nth else ""
        chance = f"@{self.probability:g}" if self.probability < 1 else ""
        return f"{self.action}={moment}{self.verb}{f'~{self.prefix}' if self.prefix else ''}{nth}{chance}"

    def rings(self, call: Call, dice: Random) -> bool:
        """Whether this call sets it off."""
        if call.verb != self.verb:
            return False
        if self.prefix and not any(s.startswith(self.prefix) for s in call.subjects):
            return False
        self.passed += 1
        if self.nth and (self.passed < self.nth or (self.passed > self.nth and not self.on)):
            return False
        return self.probability >= 1 or dice.random() < self.probability


class FaultDoor:
    """A Doorway with alarms. Times in seconds."""

    def __init__(
        self,
        points: Sequence[Point],
        *,
        once_dir: Path | None = None,
        dice: Random | None = None,
        delay_s: float = 0.1,
        ceiling_s: float = 5.0,
    ) -> None:
        self.points = list(points)
        self.fired: dict[str, int] = {}
        """How often each point fired in this process."""
        self._once_dir = once_dir
        self._dice = dice or clock.chance()
        self._delay_s = delay_s
        self._ceiling_s = ceiling_s

    def __repr__(self) -> str:
        return f"faults {' '.join(str(p) for p in self.points) or 'none'}"

    async def call(self, call: Call, send: Callable[[], Awaitable[T]]) -> T:
        ringing = [p for p in self.points if p.rings(call, self._dice)]
        for point in [p for p in ringing if p.moment == "before"]:
            await self._happen(point, call)
        around = next((p for p in ringing if not p.moment and self._fires(p, call)), None)
        answer = await (send() if around is None else self._break(around, call, send))
        for point in [p for p in ringing if p.moment == "after"]:
            await self._happen(point, call)
        return answer

    async def _happen(self, point: Point, call: Call) -> None:
        if not self._fires(point, call):
            return
        if point.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(self._delay_s)

    async def _break(self, point: Point, call: Call, send: Callable[[], Awaitable[T]]) -> T:
        if point.action == "not_sent":
            raise NotSent(f"{call} was not sent, by the fault point {point}. Nothing happened; ask again.")
        if point.action == "duplicated":
            answer = await send()
            try:
                await send()
            except Exception:  # the second copy's answer goes to nobody, its error too
                pass
            return answer
        if point.action == "reply_lost":
            await send()
        elif point.action == "half_open":
            await asyncio.sleep(max(0.0, clock.remaining_s(self._ceiling_s)))
        raise OutcomeUnknown(
            f"no answer to {call}, by the fault point {point}; it may have happened. Ask again.", id=call.id
        )

    async def stream(self, call: Call, start: Callable[[T | None], AsyncIterator[T]]) -> AsyncIterator[T]:
        for point in [p for p in self.points if p.rings(call, self._dice)]:
            if point.moment == "before":
                await self._happen(point, call)
            elif self._fires(point, call):
                raise NotSent(f"{call} was not begun, by the fault point {point}. Observe again.")
        async for item in start(None):
            yield item

    def _fires(self, point: Point, call: Call) -> bool:
        """Whether it goes off now; with `once_dir`, whether nobody was first."""
        name = str(point)
        if self._once_dir is not None and not _mark(self._once_dir, name, call):
            return False
        self.fired[name] = self.fired.get(name, 0) + 1
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A point that fired: as it was written, in which process, and on what."""

    point: str
    pid: int
    instance: str
    at: float
    call: str


def _mark(folder: Path, name: str, call: Call) -> bool:
    """Leave the file of that name, forced to disk; False if it is there already."""
    path = folder / quote(name, safe="=+-_.")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        instance = os.environ.get("ATOLL_INSTANCE", "")
        file.write(f"{os.getpid()}\n{instance}\n{clock.wall_now()!r}\n{call}\n")
        file.flush()
        os.fsync(file.fileno())
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
    return True


def hits(folder: str | Path) -> list[Hit]:
    """The points that fired, by the files they left, in the order they fired."""
    found = []
    for path in Path(folder).iterdir():
        pid, instance, at, call = (*path.read_text(encoding="utf-8").split("\n"), "", "", "", "")[:4]
        found.append(
            Hit(
                point=unquote(path.name),
                pid=int(pid or 0),
                instance=instance,
                at=float(at or 0),
                call=call,
            )
        )
    return sorted(found, key=lambda hit: hit.at)


def points_of(url: str) -> list[str]:
    """The names of all points a `faulty+` URL asks for: what `hits` should list in the end."""
    _, points, _ = _take_apart(None, url)
    return [str(point) for point in points]


def wrap(door: str, url: str, extra: dict[str, Any]) -> Any:
    """What `faulty+...` opens: the inner URL's engine behind a FaultDoor."""
    inner, points, settings = _take_apart(door, url)
    faults = FaultDoor(points, **settings)
    if door == "store":
        return DoorwayStore(urls.store(inner), faults)
    if door == "broker":
        return DoorwayBroker(urls.broker(inner), faults)
    if door == "tier":
        return DoorwayTier(urls.tier(inner), faults)
    return DoorwayDatabase(urls.database(inner, **extra), faults)


def through(port: PortT, door: Doorway) -> PortT:
    """Any store, broker, tier or database, with `door` before it."""
    thing: Any = port
    if hasattr(thing, "transact"):
        return cast(PortT, DoorwayStore(thing, door))
    if hasattr(thing, "acknowledge"):
        return cast(PortT, DoorwayBroker(thing, door))
    if hasattr(thing, "invalidate_many"):
        return cast(PortT, DoorwayTier(thing, door))
    if hasattr(thing, "joined"):
        return cast(PortT, DoorwayDatabase(thing, door))
    raise ConfigurationError(f"found {port!r}; expected a store, a broker, a tier or a database.")


def _take_apart(door: str | None, url: str) -> tuple[str, list[Point], dict[str, Any]]:
    """The inner URL, the points, and the FaultDoor's settings."""
    place, _, query = url.removeprefix(urls.FAULTY).partition("?")
    kept, points, settings = [], [], dict[str, Any]()
    for part in filter(None, query.split("&")):
        name, _, raw = part.partition("=")
        if not name.startswith("fault_"):
            kept.append(part)
            continue
        action, text = name.removeprefix("fault_"), unquote_plus(raw)
        if action in ACTIONS:
            points += [_point(door, action, one.strip()) for one in text.split(",")]
        else:
            settings.update(_setting(name, text))
    return place + ("?" + "&".join(kept) if kept else ""), points, settings


def _point(door: str | None, action: str, text: str) -> Point:
    found = _POINT.fullmatch(text)
    known = VERBS[door].split() if door else [v for verbs in VERBS.values() for v in verbs.split()]
    shape = "before-prepare, transact~transaction/ or after-put:3@0.5"
    if found is None:
        raise ConfigurationError(f"found fault_{action}={text}; expected a point such as {shape}.")
    verb, moment = found["verb"], found["moment"] or ""
    if verb not in known:
        raise ConfigurationError(
            f"found fault_{action}={text}; a {door or 'port'} has no verb {verb!r}. "
            f"It has {', '.join(known)}."
        )
    if (action in _TIMED) != bool(moment):
        wish = f"before-{verb} or after-{verb}" if action in _TIMED else f"{verb}, which has its own moment"
        raise ConfigurationError(f"found fault_{action}={text}; expected {wish}.")
    if verb in _LIVE and action not in ("kill", "delay", "not_sent"):
        raise ConfigurationError(
            f"found fault_{action}={text}; what {verb} answers is alive and cannot be lost or made twice. "
            "Use kill, delay or not_sent there."
        )
    return Point(
        action=action,
        verb=verb,
        moment=moment,
        prefix=found["prefix"] or "",
        nth=int(found["nth"] or 0),
        on=bool(found["on"]),
        probability=float(found["probability"] or 1),
    )


def _setting(name: str, text: str) -> dict[str, Any]:
    try:
        match name:
            case "fault_once_dir":
                folder = Path(text)
                folder.mkdir(parents=True, exist_ok=True)
                return {"once_dir": folder}
            case "fault_seed":
                return {"dice": Random(text)}
            case "fault_delay_s":
                return {"delay_s": float(text)}
            case "fault_ceiling_s":
                return {"ceiling_s": float(text)}
    except ValueError:
        raise ConfigurationError(f"found {name}={text}; expected a number of seconds.") from None
    options = [f"fault_{action}" for action in ACTIONS]
    options += ["fault_once_dir", "fault_seed", "fault_delay_s", "fault_ceiling_s"]
    raise ConfigurationError(f"found the option {name}; faulty+ URLs know {', '.join(options)}.")
