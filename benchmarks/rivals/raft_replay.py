"""A member's log of so many entries: written, opened, applied from the first; each in a process of its own.

python -m benchmarks.rivals.raft_replay FOLDER ENTRIES write | open | replay
"""

from __future__ import annotations

import json
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

from atoll import put
from atoll.algorithms.raft.events import Write
from atoll.algorithms.raft.messages import Entry, Kind, Membership
from atoll.engines.raft import command
from atoll.engines.raft.folder import DataFolder, Identity

BATCH = 1000
KEYS = 10_000


def entries(first: int, count: int) -> tuple[Entry, ...]:
    """Puts of 100 bytes, one command an entry, on KEYS keys in turn."""
    return tuple(
        Entry(
            1,
            index,
            Kind.COMMAND,
            command.stamp(
                command.pack([command.transact([put(f"k{index % KEYS}", b"x" * 100)], (), None, None)]), 1.0
            ),
        )
        for index in range(first, first + count)
    )


def memory_mb() -> float:
    """What this process has in memory now, in megabytes; on Linux (elsewhere the most it ever had)."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(place: Path, count: int, step: str) -> dict[str, float]:
    """One step, timed without the start of Python."""
    before, began = memory_mb(), time.perf_counter()
    folder = DataFolder(place / "a")
    if step == "write":
        folder.establish(Identity("bench", "a", Membership(("a",)), "born"))
    folder.load()
    if step == "write":
        for seq, first in enumerate(range(1, count + 1, BATCH), 1):
            folder.log.append([Write(seq, 1, "a", entries(first, min(BATCH, count + 1 - first)))])
            folder.log.sync()
    if step == "replay":
        while folder.applied < count:
            folder.apply(folder.log.entries(folder.applied + 1, count + 1, 1 << 20))
    assert step != "open" or folder.log.last == count
    seconds, memory = time.perf_counter() - began, memory_mb() - before
    folder.close()
    disk = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    return {"seconds": seconds, "memory_mb": memory, "disk_mb": disk / 1e6}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
