"""What the Raft machine itself costs: three of them in one process, without disk or network.

    python benchmarks/raft_machine.py

Prints commands a second and the time of a step for several sizes of batches. The log is in memory, so this is
the price of the rules alone; `benchmarks/consensus.py` measures whole members.
"""

from __future__ import annotations

import random
import sys
import time
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from atoll.algorithms.raft.events import (
    Apply,
    Command,
    Elapsed,
    Event,
    Proposed,
    Received,
    Send,
    Write,
    Written,
)
from atoll.algorithms.raft.machine import Raft
from atoll.algorithms.raft.memory_log import MemoryLog
from atoll.algorithms.raft.messages import Membership
from atoll.algorithms.raft.settings import Settings

NAMES = ("a", "b", "c")


class Three:
    """Three machines whose letters arrive and whose writes end at once."""

    def __init__(self) -> None:
        self.logs = {name: MemoryLog() for name in NAMES}
        self.rafts = {
            name: Raft(
                name, self.logs[name], bootstrap=Membership(NAMES), settings=Settings(),
                dice=random.Random(name), now=0.0,
            )
            for name in NAMES
        }  # fmt: skip
        self.now = self.rafts["a"].deadline
        self.steps = self.applied = 0
        self.run("a", Elapsed())

    def run(self, name: str, event: Event) -> None:
        waiting: deque[tuple[str, Event]] = deque([(name, event)])
        while waiting:
            name, event = waiting.popleft()
            self.steps += 1
            for effect in self.rafts[name].step(event, self.now):
                if isinstance(effect, Send):
                    waiting.append((effect.to, Received(name, effect.message)))
                elif isinstance(effect, Write):
                    self.logs[name].write(effect.entries)
                    waiting.append((name, Written(effect.seq)))
                elif isinstance(effect, Apply):
                    self.applied += len(effect.entries)


def main() -> None:
    three = Three()
    print(f"{'batch':>6} {'commands/s':>12} {'µs a step':>10} {'steps a batch':>14}")
    for batch, total in ((1, 20_000), (8, 80_000), (64, 300_000), (512, 500_000)):
        commands = tuple(Command(b"x" * 32, 1, n) for n in range(batch))
        steps, began = three.steps, time.perf_counter()
        for n in range(total // batch):
            three.run("a", Proposed(n, commands))
        took, steps = time.perf_counter() - began, three.steps - steps
        print(f"{batch:>6} {total / took:>12,.0f} {took / steps * 1e6:>10.1f} {steps * batch / total:>14.1f}")


if __name__ == "__main__":
    main()
