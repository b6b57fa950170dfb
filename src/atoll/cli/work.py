"""`atoll work MODULE[:queue]`: runs the workers, relays and elections that a module declares.

One line for a Deployment: SIGTERM drains, `--processes` starts that many, `--health-port` answers probes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from atoll.blocks.outbox import Outbox
from atoll.blocks.queue import Queue
from atoll.blocks.work import work
from atoll.cli.main import NO, YES
from atoll.cli.numbers import seconds, whole
from atoll.cli.work_processes import HealthPort, follow_parent, run_processes
from atoll.errors import ConfigurationError


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the verb."""
    parser.add_argument(
        "module", metavar="MODULE[:queue]", help="import path, and one queue by its name if only that"
    )
    parser.add_argument(
        "--processes", type=whole(1), default=1, metavar="N", help="how many processes (default 1)"
    )
    parser.add_argument(
        "--health-port", type=whole(0, 65535), metavar="P", help="answers /live and /ready on this port"
    )
    parser.add_argument("--health-host", default="127.0.0.1", metavar="H", help="address of the health port")
    parser.add_argument(
        "--drain-s", type=seconds, default=20.0, metavar="S", help="how long bodies may finish (20)"
    )
    parser.add_argument("--follow", type=int, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Work until SIGTERM or Ctrl-C; answers 0 when everything was drained."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    jobs = Jobs.of(options.module)  # also before starting children: a wrong name is said once
    if options.processes > 1:
        return asyncio.run(run_processes(options))
    return asyncio.run(run_here(jobs, options))


class Jobs:
    """What a module declares: queues with workers, outboxes, transactions, elections that lead."""

    def __init__(self, queues: list[Queue[Any]], others: dict[str, Any]) -> None:
        self.queues = queues
        self.others = others

    @classmethod
    def of(cls, words: str) -> Jobs:
        """Import MODULE and gather its jobs, or those of one queue."""
        name, _, only = words.partition(":")
        sys.path.insert(0, os.getcwd())
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and (name == error.name or name.startswith(f"{error.name}.")):
                raise ConfigurationError(
                    f"there is no module {name} in {os.getcwd()} or on the path."
                ) from None
            raise
        things = list(vars(module).values())
        queues = {id(t): t for t in things if isinstance(t, Queue) and t.workers}
        if only:
            chosen = [q for q in queues.values() if q.name == only]
            if not chosen:
                known = ", ".join(sorted(q.name for q in queues.values())) or "none with a worker"
                raise ConfigurationError(
                    f"{name} declares no queue {only} with a worker; it declares {known}."
                )
            return cls(chosen, {})
        others = {f"relay of {t.database.name}": t.relay for t in things if isinstance(t, Outbox)}
        others |= {
            f"{type(t).__name__.lower()} {n}": t.recover for n, t in vars(module).items() if has(t, "recover")
        }
        others |= {f"election {n}": t.lead_registered for n, t in vars(module).items() if leads(t)}
        if not queues and not others:
            raise ConfigurationError(
                f"{name} declares nothing to run: no queue with a worker, no outbox, no transactions, "
                "no election with a leading function. Decorate a worker, or name the module that does."
            )
        return cls(list(queues.values()), others)

    def describe(self) -> str:
        """One line for the log."""
        workers = [f"{q.name}: {w.name} x{w.concurrency}" for q in self.queues for w in q.workers]
        return "; ".join([*workers, *self.others])


def has(thing: Any, verb: str) -> bool:
    return (
        not isinstance(thing, type)
        and type(thing).__module__ == "atoll.blocks.transaction"
        and hasattr(thing, verb)
    )


def leads(thing: Any) -> bool:
    return type(thing).__module__ == "atoll.blocks.election" and bool(getattr(thing, "leading", None))


async def run_here(jobs: Jobs, options: argparse.Namespace) -> int:
    """Everything in this process, until told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.follow is not None:
        follow_parent(options.follow, stop)
    async with contextlib.AsyncExitStack() as stack:
        if options.health_port is not None:
            await stack.enter_async_context(HealthPort(options.health_host, options.health_port, stop))
        logging.getLogger("atoll.work").info("working on %s", jobs.describe())
        return await until_stopped(jobs, stop, options.drain_s)


async def until_stopped(jobs: Jobs, stop: asyncio.Event, drain_s: float) -> int:
    """Run all jobs; the first that breaks stops the others and makes the answer no."""
    tasks = [asyncio.create_task(coroutine, name=name) for name, coroutine in started(jobs, stop, drain_s)]
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([*tasks, waiting], return_when=asyncio.FIRST_COMPLETED)
    failed = [t for t in tasks if t.done() and not t.cancelled() and t.exception()]
    for task in failed:
        logging.getLogger("atoll.work").error("%s broke", task.get_name(), exc_info=task.exception())
    stop.set()
    for task in tasks[1:] if jobs.queues else tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=drain_s + 15.0)
    waiting.cancel()
    logging.getLogger("atoll.work").info("drained")
    return NO if failed else YES


def started(jobs: Jobs, stop: asyncio.Event, drain_s: float) -> list[tuple[str, Coroutine[Any, Any, Any]]]:
    """The coroutines to run; the queues' comes first, for it drains and is not cancelled."""
    queues = [("queues", work(jobs.queues, stop=stop, drain_s=drain_s))] if jobs.queues else []
    return queues + [(name, job()) for name, job in jobs.others.items()]
