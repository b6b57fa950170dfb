"""Testing: your own tests in virtual time, with processes that freeze and networks that fail.

A flight simulator for the code you fly. Storms cost nothing, an hour passes in a blink, and when you
crash you are told the number of the storm, so that you can fly through the very same one again.

    @simulated(seeds=200)
    async def test_a_frozen_worker_bills_nobody(world: World) -> None:
        with pytest.raises(LockLost):
            async with Lock(world.store(), "order/1"):
                await world.freeze(seconds=20)

Nothing here imports pytest: the decorated test is a plain function that anything can call.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from atoll import urls
from atoll.clock import Clock
from atoll.errors import ConfigurationError
from atoll.ports.broker import Broker
from atoll.ports.store import Store
from atoll.ports.tier import Tier
from atoll.verify import virtual_time
from atoll.verify.conformance import NotTested, Violation
from atoll.verify.conformance_cases import Check, conformance
from atoll.verify.faults_in_process import (
    Duplicated,
    HalfOpen,
    ReplyLost,
    RequestLost,
    cancel_at_every_await,
    through,
)
from atoll.verify.virtual_accidents import START_S, Forbidden
from atoll.verify.virtual_network import Cut, Link, Weather
from atoll.verify.virtual_time import Deadlock, Endless, Killed, NotDeterministic, Simulation

__all__ = [
    "Check",
    "Cut",
    "Deadlock",
    "Duplicated",
    "Endless",
    "Forbidden",
    "HalfOpen",
    "Killed",
    "NotDeterministic",
    "NotTested",
    "Process",
    "ReplyLost",
    "RequestLost",
    "Violation",
    "Weather",
    "World",
    "cancel_at_every_await",
    "conformance",
    "simulated",
    "through",
]

P = ParamSpec("P")
T = TypeVar("T")


class Process:
    """A process of a World: run something in it, freeze it, kill it, cut its network."""

    def __init__(self, world: World, process: virtual_time.Process) -> None:
        self._world = world
        self._process = process
        self._answers: list[asyncio.Future[Any]] = []

    def __repr__(self) -> str:
        return f"<Process {self.name}>"

    @property
    def name(self) -> str:
        return self._process.name

    def run(self, body: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Start `body` in this process. The future is its answer; Killed if the process is killed.

        Cancelling the future cancels the body. An error that nobody awaits fails the test at its end.
        """
        if self._process.dead:
            body.close()
            raise Killed(f"the process {self.name} was killed; it runs nothing any more.")
        loop = asyncio.get_running_loop()
        task = loop.create_task(body, context=self._world._simulation.context(self._process))
        answer: asyncio.Future[T] = loop.create_future()
        self._answers.append(answer)
        task.add_done_callback(
            functools.partial(_hand_over, answer), context=self._world._simulation.context()
        )
        answer.add_done_callback(functools.partial(_hand_back, task))
        return answer

    def freeze(self, seconds: float = float("inf")) -> None:
        """As SIGSTOP: nothing of it runs while time and its leases go on; later it goes on unaware."""
        self._world._count("frozen")
        self._world._simulation.freeze(self._process, seconds)

    def thaw(self) -> None:
        """As SIGCONT."""
        self._world._simulation.thaw(self._process)

    def kill(self) -> None:
        """As SIGKILL: no `finally` of it runs; its leases end in their time."""
        self._world._count("killed")
        self._world._simulation.kill(self._process)
        self.cut(Cut.BOTH)
        for link in self._world._links_of(self._process):
            link.hang_up()
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(Killed(f"the process {self.name} was killed."))

    def cut(self, how: Cut = Cut.BOTH) -> None:
        """Cut it off from every store, broker and tier of the world, until `heal`."""
        self._world._cuts[self._process] = how
        for link in self._world._links_of(self._process):
            link.break_off(how)

    def heal(self) -> None:
        self._world._cuts.pop(self._process, None)
        for link in self._world._links_of(self._process):
            link.heal()

    def _unnoticed(self) -> BaseException | None:
        """An error of a body run here that nobody has awaited."""
        for answer in self._answers:
            if answer.done() and not answer.cancelled() and answer._log_traceback:
                error = answer.exception()
                if error is not None and not isinstance(error, Killed):
                    return error
        return None


def _hand_back(task: asyncio.Task[Any], answer: asyncio.Future[Any]) -> None:
    """Who gives up the answer gives up the body."""
    if answer.cancelled():
        task.cancel()


def _hand_over(answer: asyncio.Future[Any], task: asyncio.Task[Any]) -> None:
    if task.cancelled():
        answer.cancel()
    elif (error := task.exception()) is not None:
        if not answer.done():
            answer.set_exception(error)
    elif not answer.done():
        answer.set_result(task.result())


class World:
    """One simulated world: a clock, processes, and the servers they share.

    The test's own body runs in the process `main`. A store, broker or tier is reached over the link
    of the process that asks for it, so it can be cut off from each alone.
    """

    def __init__(self, simulation: Simulation, weather: Weather | None = None) -> None:
        self.weather = weather or Weather()
        """What new links do to calls; set it before the first `store()` of a process."""
        self._simulation = simulation
        self._servers: dict[tuple[str, str], Any] = {}
        self._links: dict[tuple[virtual_time.Process, str, str], tuple[Link, Any]] = {}
        self._processes: dict[str, Process] = {}
        self._cuts: dict[virtual_time.Process, Cut] = {}
        self._counts: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<World seed={self.seed}>"

    @property
    def seed(self) -> int:
        return self._simulation.seed

    @property
    def clock(self) -> Clock:
        """The world's clock, which `atoll.clock` reads here."""
        return self._simulation.clock

    @property
    def trace_hash(self) -> str:
        """One hash over everything that happened so far: equal for equal runs."""
        return self._simulation.trace.hash

    def store(self, name: str = "state", *, knobs: str = "") -> Store:
        """The world's store of that name, over this process's link.

        `knobs` weaken it, as options of `memory://`: "observe=coalesced&expiry_late_s=2". The first
        mention of a name decides.
        """
        return self._reach(
            "store", name, lambda: urls.store(f"memory://?{knobs}"), lambda link, inner: link.store(inner)
        )

    def broker(self, name: str = "queue", *, knobs: str = "") -> Broker:
        """The world's broker of that name, over this process's link. `knobs` as for a store."""
        return self._reach(
            "broker", name, lambda: urls.broker(f"memory://?{knobs}"), lambda link, inner: link.broker(inner)
        )

    def tier(self, name: str = "cache", *, knobs: str = "") -> Tier:
        """The world's tier of that name, over this process's link. `knobs` as for a store."""
        return self._reach(
            "tier", name, lambda: urls.tier(f"memory://?{knobs}"), lambda link, inner: link.tier(inner)
        )

    def process(self, name: str) -> Process:
        """The process of that name; `world.process("b").run(body())` runs something in it."""
        if name not in self._processes:
            self._processes[name] = Process(self, self._simulation.process(name))
        return self._processes[name]

    @property
    def here(self) -> Process:
        """The process this line runs in."""
        return self.process(self._simulation.here().name)

    async def freeze(self, name: str | None = None, *, seconds: float) -> None:
        """Freeze a process, by default the calling one, for `seconds`: SIGSTOP, then SIGCONT."""
        process = self.here if name is None else self.process(name)
        process.freeze(seconds)
        await asyncio.sleep(0)

    def kill(self, name: str) -> None:
        """kill -9: nothing of that process runs ever again."""
        self.process(name).kill()

    def cut(self, name: str, how: Cut = Cut.BOTH) -> None:
        """Cut a process off from every server of the world."""
        self.process(name).cut(how)

    def heal(self, name: str) -> None:
        """Undo `cut`."""
        self.process(name).heal()

    def hardships(self) -> dict[str, int]:
        """How often each hardship really bit: of the weather and cuts over all links, freezes and kills."""
        total = dict(self._counts)
        for link, _ in self._links.values():
            for what, count in link.counts.items():
                total[what] = total.get(what, 0) + count
        return total

    def _reach(self, kind: str, name: str, make: Callable[[], T], wrap: Callable[[Link, T], T]) -> T:
        client = self._simulation.here()
        found = self._links.get((client, kind, name))
        if found is not None:
            return cast(T, found[1])
        if (kind, name) not in self._servers:
            self._servers[kind, name] = self._simulation.context().run(make)
        link = Link(self._simulation, client, name, self.weather)
        if client in self._cuts:
            link.break_off(self._cuts[client])
        handle = wrap(link, self._servers[kind, name])
        self._links[client, kind, name] = (link, handle)
        return handle

    def _count(self, hardship: str) -> None:
        self._counts[hardship] = self._counts.get(hardship, 0) + 1

    def _links_of(self, process: virtual_time.Process) -> list[Link]:
        return [link for (client, _, _), (link, _) in self._links.items() if client is process]

    def _fail_for_the_unnoticed(self) -> None:
        for process in self._processes.values():
            if (error := process._unnoticed()) is not None:
                error.add_note(f"raised in the process {process.name}; nobody awaited it")
                raise error


Test = Callable[Concatenate[World, P], Awaitable[None]]


def simulated(seeds: int = 200, *, weather: Weather | None = None) -> Callable[[Test[P]], Callable[P, None]]:
    """Turn `async def test(world: World)` into a plain test that lives through `seeds` worlds.

    Each seed is a different order of processes and different delays, in virtual time. The first seed
    is run twice: two histories are NotDeterministic. A failing seed is named in the error and on
    stderr; ATOLL_SEED=17 replays only that one, ATOLL_SEEDS=20 runs fewer or more.
    """
    if callable(seeds):
        raise ConfigurationError("found @simulated without brackets; write @simulated(seeds=200).")

    def decorate(test: Test[P]) -> Callable[P, None]:
        names = list(inspect.signature(test).parameters)
        if not names:
            raise ConfigurationError(f"{test!r} takes no world; write async def test_...(world: World).")
        named = "world" if "world" in names else names[0]

        @functools.wraps(test)
        def run_seeds(*args: P.args, **kwargs: P.kwargs) -> None:
            async def in_world(world: World) -> None:
                await anything(*args, **{named: world}, **kwargs)

            anything: Any = test
            for at, seed in enumerate(_chosen(seeds)):
                simulation = _run_one(in_world, seed, weather, test.__qualname__)
                if at == 0:
                    again = _run_one(in_world, seed, weather, test.__qualname__)
                    _compare(simulation.trace, again.trace, seed)

        signature = inspect.signature(test)
        rest = [p for p in signature.parameters.values() if p.name != named]
        seen = signature.replace(parameters=rest, return_annotation=None)
        run_seeds.__signature__ = seen  # type: ignore[attr-defined]
        return run_seeds

    return decorate


def _chosen(seeds: int) -> list[int]:
    try:
        if "ATOLL_SEED" in os.environ:
            return [int(os.environ["ATOLL_SEED"])]
        return list(range(int(os.environ.get("ATOLL_SEEDS", seeds))))
    except ValueError as error:
        raise ConfigurationError(f"ATOLL_SEED and ATOLL_SEEDS are whole numbers: {error}.") from None


def _run_one(
    test: Callable[[World], Awaitable[None]], seed: int, weather: Weather | None, name: str
) -> Simulation:
    simulation = Simulation(seed)
    world = World(simulation, weather)

    async def body() -> None:
        await test(world)
        world._fail_for_the_unnoticed()

    try:
        simulation.run(body)
    except BaseException as error:
        after_s = simulation.loop.time() - START_S
        line = f"seed {seed}, after {after_s:.6g} virtual s. Again: ATOLL_SEED={seed} pytest -k {name}"
        error.add_note(line)
        print(f"{name}: {line}", file=sys.stderr)
        raise
    return simulation


def _compare(first: virtual_time.Trace, second: virtual_time.Trace, seed: int) -> None:
    if first.hash == second.hash:
        return
    differ = [pair for pair in zip(first.lines, second.lines, strict=False) if pair[0] != pair[1]]
    one, other = differ[0] if differ else ("(one ended earlier)", "(the other went on)")
    raise NotDeterministic(
        f"seed {seed} was run twice and gave two histories. They part at:\n"
        f"  first:  {one}\n  second: {other}\n"
        "Look for the order of a set, id(), os.urandom, uuid4, datetime.now, or state kept between runs."
    )
