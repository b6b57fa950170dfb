"""History: who asked what, when, and what was answered.

A notary at the door who writes down each visitor twice: going in, and coming out with an answer. Whoever
never came out may or may not have done what he came for. The lines are Jepsen's operation maps (index,
time, process, type, f, value) and the revision of the answer, one JSON object a line, so that any judge
can read them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from atoll import clock
from atoll.errors import FormatRefused
from atoll.ports import broker, register, store

FORMAT = 1
CALLS_MAX = 2_000_000


class Type(Enum):
    """How a call ended. INFO: it may have happened, or may happen yet."""

    INVOKE = "invoke"
    OK = "ok"
    FAIL = "fail"
    INFO = "info"


class Transaction(NamedTuple):
    """What `transact` was asked; `put_if` and `delete_if` are written down as the same."""

    then: tuple[store.Operation, ...]
    compare: tuple[store.Compare, ...] = ()
    guard: tuple[str, int] | None = None
    request_id: str | None = None


class Span(NamedTuple):
    """What `range` was asked."""

    prefix: str
    start: str | None
    end: str | None
    limit: int


class Stream(NamedTuple):
    """One observation or one following of the changes. `after`: the revision it resumed from."""

    id: str
    prefix: str
    after: int = 0


class Taking(NamedTuple):
    """What `take` was asked."""

    queue: str
    most: int
    lease_s: float


class Settling(NamedTuple):
    """What `acknowledge`, `give_back`, `bury` or `extend` was asked."""

    queue: str
    receipts: tuple[str, ...]
    argument: float | str | None = None
    counted: bool = True


class Holding(NamedTuple):
    """A lock or a term that somebody came to hold."""

    name: str
    epoch: int
    revision: int


@dataclass(slots=True)
class Call:
    """One operation from its asking to its answer. `began` and `ended` are places in the history's order.

    `ended` is None and `type` INFO while no answer came. Times are seconds of the lease clock.
    """

    process: str
    f: str
    asked: Any
    began: int
    began_at: float
    type: Type = Type.INFO
    ended: int | None = None
    ended_at: float = float("inf")
    answer: Any = None
    revision: int | None = None
    error: str = ""

    def __str__(self) -> str:
        answer = self.error or ("no answer" if self.ended is None else str(self.answer))
        revision = "" if self.revision is None else f" at revision {self.revision}"
        return f"{self.process}: {self.f} {self.asked} -> {self.type.value}{revision} {answer}"


class History:
    """Calls in the order they began. Bounded: when it is full it says so, and no checker calls it whole.

    With `path` every line reaches the kernel before the call goes on, so a kill -9 leaves the askings of
    all that was in flight.
    """

    def __init__(self, *, calls_max: int = CALLS_MAX, path: Path | None = None) -> None:
        self.calls: list[Call] = []
        self.calls_max = calls_max
        self.truncated = False
        self._next = 0
        self._file: int | None = None
        self._numbers: dict[int, int] = {}
        if path is not None:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._write({"atoll-history": FORMAT})

    def __len__(self) -> int:
        return len(self.calls)

    @property
    def full(self) -> bool:
        """Whether the bound is reached; a workload stops then."""
        return len(self.calls) >= self.calls_max

    def begin(self, process: str, f: str, asked: Any) -> Call:
        """Somebody goes in."""
        call = Call(process, f, asked, self._place(), clock.lease_now())
        if self.full:
            self.truncated = True
            return call
        self.calls.append(call)
        if self._file is not None:
            self._numbers[id(call)] = len(self.calls)
            self._write(self._line(call, call.began, call.began_at, Type.INVOKE, asked))
        return call

    def end(
        self, call: Call, type: Type, answer: Any = None, *, revision: int | None = None, error: str = ""
    ) -> None:
        """Somebody comes out. INFO is written too, so that a reader sees when it was given up."""
        call.ended_at, call.ended, call.type = clock.lease_now(), self._place(), type
        call.answer, call.revision, call.error = answer, revision, error
        if self._file is not None and id(call) in self._numbers:
            self._write(self._line(call, call.ended, call.ended_at, type, answer))
            del self._numbers[id(call)]

    def note(self, process: str, f: str, asked: Any, answer: Any, *, revision: int | None = None) -> Call:
        """Something that came unasked: an item of a stream, a lock that was acquired."""
        call = self.begin(process, f, asked)
        self.end(call, Type.OK, answer, revision=revision)
        return call

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def lines(self) -> Iterator[str]:
        """The history as JSON lines, in order."""
        yield json.dumps({"atoll-history": FORMAT})
        rows: list[tuple[int, dict[str, Any]]] = []
        for number, call in enumerate(self.calls, 1):
            self._numbers[id(call)] = number
            rows.append((call.began, self._line(call, call.began, call.began_at, Type.INVOKE, call.asked)))
            if call.ended is not None:
                rows.append((call.ended, self._line(call, call.ended, call.ended_at, call.type, call.answer)))
        self._numbers.clear()
        for _, row in sorted(rows, key=lambda pair: pair[0]):
            yield json.dumps(row)

    def _place(self) -> int:
        self._next += 1
        return self._next

    def _line(self, call: Call, index: int, at: float, type: Type, value: Any) -> dict[str, Any]:
        row = {
            "index": index,
            "time": at,
            "process": call.process,
            "type": type.value,
            "f": call.f,
            "value": plain(value),
            "call": self._numbers[id(call)],
        }
        if type is not Type.INVOKE:
            row["revision"] = call.revision
            if call.error:
                row["error"] = call.error
        return row

    def _write(self, row: dict[str, Any]) -> None:
        assert self._file is not None
        os.write(self._file, json.dumps(row).encode() + b"\n")


def load(paths: Iterable[Path], *, calls_max: int = CALLS_MAX) -> History:
    """One history from the files of several processes of one host, put in order by the lease clock.

    A torn last line is what a kill leaves and is passed over. Equal times count as concurrent.
    """
    rows: list[tuple[float, bool, int, dict[str, Any]]] = []
    for number, path in enumerate(paths):
        with open(path, encoding="utf-8") as file:
            head = json.loads(file.readline() or "{}")
            if head.get("atoll-history") != FORMAT:
                raise FormatRefused(
                    f"{path} begins with {head}; expected a history of format {FORMAT}. "
                    "Give a file that this release wrote."
                )
            for text in file:
                if text.endswith("\n"):
                    row = json.loads(text)
                    rows.append((row["time"], row["type"] != "invoke", number, row))
    rows.sort(key=lambda item: item[:2])
    history = History(calls_max=calls_max)
    open_calls: dict[tuple[int, int], Call] = {}
    for at, _, number, row in rows:
        _add(history, open_calls, (number, row["call"]), at, row)
    return history


def _add(
    history: History,
    open_calls: dict[tuple[int, int], Call],
    name: tuple[int, int],
    at: float,
    row: dict[str, Any],
) -> None:
    place = history._place()
    if row["type"] == "invoke":
        if history.full:
            history.truncated = True
            return
        call = open_calls[name] = Call(row["process"], row["f"], native(row["value"]), place, at)
        history.calls.append(call)
    elif (ended := open_calls.pop(name, None)) is not None:
        ended.ended, ended.ended_at, ended.type = place, at, Type(row["type"])
        ended.answer, ended.revision = native(row["value"]), row.get("revision")
        ended.error = row.get("error", "")


_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        *(register.Entry, register.Got, register.Applied, register.Unmet, register.Observation),
        *(store.Put, store.Delete, store.Compare, store.Field, store.Ranged, store.Granted),
        *(store.Bookmark, store.Change, broker.Accepted, broker.Settled),
        *(Transaction, Span, Stream, Taking, Settling, Holding),
    )
}


def plain(value: Any) -> Any:
    """A value as JSON's own kinds; what JSON lacks becomes an object with one name in it."""
    name = type(value).__name__
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, Enum):
        return {name: value.value}
    if name in _KINDS:
        parts = [getattr(value, f.name) for f in fields(value)] if is_dataclass(value) else list(value)
        return {name: [plain(part) for part in parts]}
    if isinstance(value, dict):
        return {"map": {key: plain(part) for key, part in value.items()}}
    return [plain(part) for part in value]


def native(value: Any) -> Any:
    """The inverse of `plain`; lists come back as tuples."""
    if isinstance(value, list):
        return tuple(native(part) for part in value)
    if not isinstance(value, dict):
        return value
    ((name, inner),) = value.items()
    if name == "bytes":
        return inner.encode("latin-1")
    if name == "map":
        return {key: native(part) for key, part in inner.items()}
    kind = _KINDS[name]
    return kind(inner) if issubclass(kind, Enum) else kind(*(native(part) for part in inner))
