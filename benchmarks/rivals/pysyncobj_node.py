"""A member of a PySyncObj cluster, with the load in its own process, as its users run it.

Words on standard input, a line of JSON for each on standard output. `load WRITERS SECONDS`: so many puts
under way at once by callbacks, for so long. Its defaults stand: no journal, so nothing is ever forced.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any


def load(node: Any, writers: int, seconds: float) -> dict[str, float]:
    """Puts with `writers` under way at once: how many a second, and how long each waited."""
    took: list[float] = []
    over = threading.Event()
    began = time.perf_counter()
    left = writers

    def begin(place: int) -> None:
        sent = time.perf_counter()

        def answered(result: object, error: int) -> None:
            nonlocal left
            now = time.perf_counter()
            if error == 0:
                took.append(now - sent)
            if now - began < seconds:
                begin(place)
                return
            left -= 1
            if left == 0:
                over.set()

        node.put(f"k{place}", "x" * 100, callback=answered)

    for place in range(writers):
        begin(place)
    over.wait(seconds + 30)
    elapsed = time.perf_counter() - began
    took.sort()
    return {"rate": len(took) / elapsed, "p50_ms": took[len(took) // 2] * 1000 if took else float("nan")}


def main(me: str, others: list[str]) -> None:
    """Serve words until standard input ends."""
    from pysyncobj import SyncObj, replicated

    class Book(SyncObj):  # type: ignore[misc]
        """A dictionary on every member."""

        def __init__(self) -> None:
            self.book: dict[str, str] = {}
            super().__init__(me, others)

        @replicated  # type: ignore[untyped-decorator]
        def put(self, key: str, value: str) -> None:
            self.book[key] = value

    node = Book()
    for line in sys.stdin:
        match line.split():
            case ["ready"]:
                print(json.dumps(bool(node.isReady())), flush=True)
            case ["leads"]:
                print(json.dumps(str(node._getLeader()) == me), flush=True)
            case ["load", writers, seconds]:
                print(json.dumps(load(node, int(writers), float(seconds))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
