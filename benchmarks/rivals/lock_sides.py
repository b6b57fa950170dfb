"""What is asked of every lock: taken and released alone, then handed over in a crowd.

A side is a function from a URL to a maker of locks. Sides that block their thread get a thread for each
waiter, sides that await a task.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from contextlib import contextmanager as contextmanager
from dataclasses import dataclass

import atoll
from atoll.blocks.lock import Lock

Turns = list[tuple[float, float]]
AsyncMaker = Callable[
    [str], AbstractAsyncContextManager[Callable[[str], AbstractAsyncContextManager[object]]]
]
Maker = Callable[[str], AbstractContextManager[Callable[[str], AbstractContextManager[object]]]]


@dataclass(frozen=True)
class Side:
    """`opened(url)` gives a client; the client gives locks by name. `weaker`: what it does not promise."""

    name: str
    opened: AsyncMaker | None = None
    blocking: Maker | None = None
    weaker: str = ""
    needs: str = ""
    """The module it is made with, which may not be installed."""

    def there(self) -> bool:
        """Whether it can be measured here."""
        return not self.needs or importlib.util.find_spec(self.needs) is not None

    def alone_ms(self, url: str, times: int, warm: int = 5) -> list[float]:
        """Milliseconds of each taking and release, nobody else there."""
        if self.opened is not None:
            return asyncio.run(self._alone(url, times, warm))
        assert self.blocking is not None
        took = []
        with self.blocking(url) as lock_of:
            for count in range(warm + times):
                began = time.perf_counter()
                with lock_of("alone"):
                    pass
                if count >= warm:
                    took.append((time.perf_counter() - began) * 1000)
        return took

    async def _alone(self, url: str, times: int, warm: int) -> list[float]:
        assert self.opened is not None
        took = []
        async with self.opened(url) as lock_of:
            for count in range(warm + times):
                began = time.perf_counter()
                async with lock_of("alone"):
                    pass
                if count >= warm:
                    took.append((time.perf_counter() - began) * 1000)
        return took

    def crowd(self, url: str, waiters: int, turns: int) -> Turns:
        """When each holder entered and left; a client for each waiter, as processes would have."""
        if self.opened is not None:
            return asyncio.run(self._tasks(url, waiters, turns))
        assert self.blocking is not None
        entered: Turns = []
        failed: list[BaseException] = []

        def one() -> None:
            try:
                assert self.blocking is not None
                with self.blocking(url) as lock_of:
                    gate.wait()
                    for _ in range(turns):
                        with lock_of("crowd"):
                            begin = time.monotonic()
                            entered.append((begin, time.monotonic()))
            except BaseException as error:
                failed.append(error)
                gate.abort()

        gate = threading.Barrier(waiters, timeout=60)
        threads = [threading.Thread(target=one) for _ in range(waiters)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
        return entered

    async def _tasks(self, url: str, waiters: int, turns: int) -> Turns:
        entered: Turns = []
        ready = asyncio.Barrier(waiters)

        async def one() -> None:
            assert self.opened is not None
            async with self.opened(url) as lock_of:
                async with lock_of("warm"):
                    pass
                await ready.wait()
                for _ in range(turns):
                    async with lock_of("crowd"):
                        begin = time.monotonic()
                        await asyncio.sleep(0)
                        entered.append((begin, time.monotonic()))

        async with asyncio.TaskGroup() as group:
            for _ in range(waiters):
                group.create_task(one())
        return entered


@asynccontextmanager
async def atoll_locks(url: str) -> AsyncIterator[Callable[[str], AbstractAsyncContextManager[object]]]:
    """Ours: fair, with a token, lost when its lease is over."""
    async with atoll.store(url) as store:
        yield lambda name: Lock(store, f"bench/{name}")


ATOLL = Side("Atoll", opened=atoll_locks)


def threads_of(make: Callable[[str], Iterator[object]]) -> Maker:
    """For a side whose client blocks."""
    return contextmanager(make)  # type: ignore[arg-type]
