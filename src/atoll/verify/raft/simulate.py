"""Simulate: one seed, one cluster, one outcome; many seeds on many processors."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from atoll.algorithms.raft.machine import Raft
from atoll.verify.raft.cluster import Cluster, Parts
from atoll.verify.raft.counts import Counts
from atoll.verify.raft.history import Violation
from atoll.verify.raft.profile import Profile, profile_of
from atoll.verify.raft.register import Register
from atoll.verify.raft.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one seed gave. `violation`: the rule that broke and what was seen, None where all held."""

    seed: int
    violation: str | None
    counts: Counts
    trace_hash: str
    at_s: float
    """Virtual seconds at the end."""


def simulate(
    seed: int,
    *,
    profile: Profile | None = None,
    machine: Callable[..., Any] = Raft,
    runtime: Callable[..., Any] = Runtime,
    state: Any = Register,
    trace: TextIO | None = None,
) -> Outcome:
    """Play one seed. An exception of the machine's, an assertion of its own too, is a violation."""
    parts = Parts(machine, runtime, state)
    cluster = Cluster(seed, profile or profile_of(seed), parts, trace)
    violation = None
    try:
        cluster.run()
    except Violation as broken:
        violation = str(broken)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        violation = (
            f"an exception: {type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
        )
    if violation is not None:
        cluster.note(f"violation: {violation}")
        cluster.finish()
    return Outcome(seed, violation, cluster.counts, cluster.trace_hash, cluster.now)


def simulated(seeds: Iterable[int], jobs: int = 1) -> Iterator[Outcome]:
    """The outcomes of these seeds, in their order, on `jobs` processes."""
    if jobs <= 1:
        yield from map(_one, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, _leave_interrupts_to_the_parent) as pool:
        yield from pool.imap(_one, seeds)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _one(seed: int) -> Outcome:
    enabled = gc.isenabled()
    gc.disable()  # a run makes little that is cyclic; what it made is collected at its end
    try:
        return simulate(seed)
    finally:
        if enabled:
            gc.enable()
        gc.collect()
