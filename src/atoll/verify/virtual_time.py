"""Virtual time: an event loop in which an hour of waiting takes no time and a seed names the whole run.

A chess clock in the hand of a referee who never sleeps: while a player thinks, no time passes; when
all of them wait, the hand jumps to the next appointment. Every choice that the world would make by
accident (which process runs next) is made by dice with a known seed, so a game can be played again.

Tasks belong to a *process* by their context. A frozen process keeps what is due to it until it thaws;
a killed one never runs again, not even its `finally`, as after kill -9. Within one process the order
is asyncio's own; only between processes it is drawn by lot.

Source: FoundationDB's simulation (Zhou et al., SIGMOD 2021, section 4), on asyncio.
Departure: there are no sockets in here; the network is `virtual_network`, between ports.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import hashlib
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

from atoll import clock as _clock
from atoll.verify.virtual_accidents import START_S, WALL_AHEAD_S, Forbidden, no_accidents, sentence

T = TypeVar("T")

LEASE_AHEAD_S = 50_000.0  # the three clocks differ on purpose: mixing them up shows
TRACE_LINES_MAX = 200_000
COLLECT_EVERY = 50_000  # steps; Python's own moments to collect garbage are no part of the seed


class Deadlock(AssertionError):
    """Everybody waits and nothing is due: no time that passes can help."""


class Endless(AssertionError):
    """The run passed its bound of virtual seconds or of steps."""


class NotDeterministic(AssertionError):
    """The same seed gave two histories."""


class Killed(Exception):
    """The process that was to answer has been killed."""


class Process:
    """What can be frozen and killed as one. Made by `Simulation.process`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen_until: float | None = None
        self.queue: deque[Any] = deque()

    def __repr__(self) -> str:
        return f"<Process {self.name}>"


_process: ContextVar[Process | None] = ContextVar("atoll_process", default=None)


class Trace:
    """The history of a run, as lines and as one hash over all of them."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.lines: list[str] = []
        self.closed = False  # clearing up after the run is no part of it, and its order is Python's own

    def note(self, line: str) -> None:
        if self.closed:
            return
        self._hash.update(line.encode(errors="backslashreplace") + b"\n")
        if len(self.lines) < TRACE_LINES_MAX:
            self.lines.append(line)

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()


class NumberedTask(asyncio.Task[Any]):
    """A task whose place in a set is its number, not its address: asyncio cancels a group in set order."""

    def __init__(self, coro: Any, *, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop that jumps to the next appointment. Stands on private parts of asyncio's, marked."""

    # asyncio private: filled by call_soon and call_at of the base class.
    _ready: deque[Any]
    _scheduled: list[Any]
    _stopping: bool

    def __init__(self, seed: int, *, until_s: float, steps_max: int) -> None:
        super().__init__()
        self.outside = Process("outside")
        self.processes = [self.outside]
        self.trace = Trace()
        self.steps = 0
        self.failures: list[BaseException] = []
        self._now = START_S
        self._until, self._until_s, self._steps_max = START_S + until_s, until_s, steps_max
        self._order = random.Random(f"{seed}/order")
        self._named = 0
        self.set_exception_handler(self._note_failure)
        self.set_task_factory(self._numbered)

    def time(self) -> float:
        return self._now

    def create_task(self, coro: Any, **options: Any) -> Any:
        """As asyncio's; a task without a name gets one that the seed repeats."""
        self._named += 1
        if not options.get("name"):
            owner = (options.get("context") or contextvars.copy_context()).get(_process) or self.outside
            options["name"] = f"{owner.name}/{getattr(coro, '__qualname__', 'task')}/{self._named}"
        return super().create_task(coro, **options)

    def _numbered(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return NumberedTask(coro, number=self._named, loop=loop, **options)

    def _run_once(self) -> None:  # asyncio private: run_forever calls it until stopped
        self._sort()
        while not (able := [p for p in self.processes if p.queue and self._runs(p)]):
            if self._stopping:
                return
            self._jump()
            self._sort()
        process = able[0] if len(able) == 1 else self._order.choice(able)
        handle = process.queue.popleft()
        if handle._cancelled:
            return
        self.steps += 1
        if self.steps > self._steps_max:
            raise Endless(f"the run took more than {self._steps_max} steps. {self.waiting()}")
        if self.steps % COLLECT_EVERY == 0:
            gc.collect()
        self.trace.note(f"{self._now:.9f} {process.name} {_label(handle)}")
        handle._run()

    def _sort(self) -> None:
        """What is due goes to the queue of the process it belongs to."""
        while self._scheduled and self._scheduled[0]._when <= self._now:
            handle = heapq.heappop(self._scheduled)
            handle._scheduled = False
            self._ready.append(handle)
        while self._ready:
            handle = self._ready.popleft()
            (handle._context.get(_process) or self.outside).queue.append(handle)

    def _runs(self, process: Process) -> bool:
        frozen = process.frozen_until
        return not process.dead and (frozen is None or frozen <= self._now)

    def _jump(self) -> None:
        """Time goes to the next thing that can happen to somebody alive."""
        while self._scheduled and self._is_moot(self._scheduled[0]):
            heapq.heappop(self._scheduled)._scheduled = False
        due = [self._scheduled[0]._when] if self._scheduled else []
        due += [p.frozen_until for p in self.processes if p.queue and p.frozen_until and not p.dead]
        later = min(due, default=float("inf"))
        if later == float("inf"):
            raise Deadlock(f"everybody waits and nothing is due. {self.waiting()}")
        if later > self._until:
            raise Endless(f"the run is not over after {self._until_s:g} virtual seconds. {self.waiting()}")
        self._now = max(self._now, later)

    def _is_moot(self, handle: Any) -> bool:
        owner = handle._context.get(_process)
        return bool(handle._cancelled or (owner is not None and owner.dead))

    def waiting(self) -> str:
        """Who waits, and where, as a sentence."""
        states = {p.name: "killed" if p.dead else "frozen" for p in self.processes if not self._runs(p)}
        found = []
        for task in asyncio.all_tasks(self):
            state = states.get(task.get_name().partition("/")[0])
            found.append(f"{task.get_name()} at {_where(task)}" + (f" ({state})" if state else ""))
        found.sort()
        more = f"\n  and {len(found) - 20} more" if len(found) > 20 else ""
        return "Waiting:\n  " + "\n  ".join(found[:20]) + more if found else "No task waits."

    def _note_failure(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if "handle" in context and isinstance(error, Exception):
            self.failures.append(error)  # a callback that raised; a task's own error is its awaiter's

    def call_soon_threadsafe(  # type: ignore[override]  # asyncio's own has no name for its arguments' types
        self, callback: Any, *args: Any, context: Any = None
    ) -> Any:
        if asyncio._get_running_loop() is not self and self.is_running():
            raise Forbidden(sentence("a call from another thread"))
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        raise Forbidden(sentence("a thread (run_in_executor, to_thread)"))


def _refuse(name: str) -> Any:
    def refuse(self: VirtualLoop, *args: Any, **kwargs: Any) -> Any:
        raise Forbidden(sentence(f"the outside world (loop.{name})"))

    return refuse


for _name in (
    "add_reader add_writer sock_accept sock_connect sock_recv sock_recv_into sock_sendall create_connection "
    "create_server create_datagram_endpoint create_unix_connection create_unix_server subprocess_exec "
    "subprocess_shell add_signal_handler connect_read_pipe connect_write_pipe getaddrinfo getnameinfo"
).split():
    setattr(VirtualLoop, _name, _refuse(_name))


def _label(handle: Any) -> str:
    callback = handle._callback
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return str(owner.get_name())
    return str(getattr(callback, "__qualname__", type(callback).__qualname__))


def _where(task: asyncio.Task[Any]) -> str:
    """The innermost line of the task that is not asyncio's."""
    inner: Any = task.get_coro()
    frames = []
    while inner is not None:
        frame = getattr(inner, "cr_frame", None) or getattr(inner, "ag_frame", None)
        if frame is not None:
            frames.append(f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}")
        inner = getattr(inner, "cr_await", None) or getattr(inner, "ag_await", None)
    ours = [f for f in frames if not f.startswith(("locks.py", "tasks.py", "queues.py", "timeouts.py"))]
    return (ours or frames or ["?"])[-1]


class VirtualClock:
    """`atoll.clock` in a simulation: all three clocks count the loop's time from different zeros."""

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self._loop = loop
        self.boot_id = f"virtual-{seed}"
        self.chance = random.Random(f"{seed}/chance")

    def lease_now(self) -> float:
        return self._loop.time() + LEASE_AHEAD_S

    def wall_now(self) -> float:
        return self._loop.time() + WALL_AHEAD_S

    def loop_now(self) -> float:
        return self._loop.time()


class Simulation:
    """One run: a loop, a clock, processes and dice, all from one seed."""

    def __init__(self, seed: int = 0, *, until_s: float = 86_400.0, steps_max: int = 5_000_000) -> None:
        self.seed = seed
        self.loop = VirtualLoop(seed, until_s=until_s, steps_max=steps_max)
        self.clock = VirtualClock(self.loop, seed)
        self.main = self.process("main")
        self.over = False
        """The body has ended; what still runs is being cancelled."""

    @property
    def trace(self) -> Trace:
        return self.loop.trace

    def dice(self, name: str) -> random.Random:
        """A source of chance of its own, so that one part's throws do not move another's."""
        return random.Random(f"{self.seed}/{name}")

    def process(self, name: str) -> Process:
        """The process of that name, made at its first mention."""
        for process in self.loop.processes:
            if process.name == name:
                return process
        self.loop.processes.append(Process(name))
        return self.loop.processes[-1]

    def here(self) -> Process:
        """The process this line runs in."""
        return _process.get() or self.loop.outside

    def context(self, process: Process | None = None) -> contextvars.Context:
        """A fresh context in `process` (None: outside of all) that keeps the virtual clock and no more."""
        context = contextvars.Context()
        context.run(_clock._current.set, self.clock)
        context.run(_process.set, process)
        return context

    def freeze(self, process: Process, seconds: float) -> None:
        """Nothing of it runs for `seconds`; everything due to it meanwhile runs afterwards."""
        process.frozen_until = self.loop.time() + seconds

    def thaw(self, process: Process) -> None:
        process.frozen_until = None

    def kill(self, process: Process) -> None:
        """Nothing of it ever runs again."""
        process.dead = True

    def run(self, body: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `body` as the process `main` to its end, then stop whatever is left. Once only."""
        loop = self.loop
        context = contextvars.copy_context()
        context.run(_clock._current.set, self.clock)
        context.run(_process.set, self.main)
        with no_accidents(loop, self.seed):
            try:
                task = context.run(loop.create_task, body(), name="main")
                answer: T = loop.run_until_complete(task)
                if loop.failures:
                    raise loop.failures[0]
                return answer
            finally:
                self._stop_the_rest()

    def _stop_the_rest(self) -> None:
        self.over = self.trace.closed = True
        loop = self.loop
        loop._steps_max = loop.steps + 200_000
        loop._until = float("inf")
        for process in loop.processes:
            process.dead, process.frozen_until = False, None
        left = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
        for task in left:
            task.cancel()
        try:
            loop.run_until_complete(_settle(left, loop))
        except (Deadlock, Endless):
            pass  # a task that refuses to be cancelled; the run itself was judged before
        finally:
            for task in asyncio.all_tasks(loop):
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio private
            loop.close()


async def _settle(tasks: list[asyncio.Task[Any]], loop: VirtualLoop) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
    await loop.shutdown_asyncgens()


def run(body: Callable[[], Coroutine[Any, Any, T]], seed: int = 0) -> T:
    """Run `body` in virtual time; the same seed gives the same run."""
    return Simulation(seed).run(body)
