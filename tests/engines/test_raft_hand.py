"""4.4: a member's hands: order kept, whoever works; slow work left to the thread; a failure told once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from raft_crowd import until

from atoll.engines.raft.barriers import Barriers
from atoll.engines.raft.hand import QUICK_S, Hand


class Work:
    """What is served, by which thread, and what the loop was told."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.threads: dict[int, str] = {}
        self.failed: list[BaseException] = []
        self.takes_s: dict[int, float] = {}
        self.served = threading.Event()

    def serve(self, items: Sequence[int]) -> Callable[[], None]:
        for item in items:
            if item < 0:
                raise OSError("the disk is broken")
            time.sleep(self.takes_s.get(item, 0.0))
            self.threads[item] = threading.current_thread().name
        self.served.set()
        return lambda: self.told.extend(items)

    async def heard(self, count: int) -> list[int]:
        async def look() -> list[int]:
            assert len(self.told) >= count
            return self.told

        return list(await until(look))


class LateTeller(Hand[int]):
    """A hand that is held up between its work and telling of it."""

    def _tell(self, job: Any, count: int = 0) -> None:
        time.sleep(0.1)
        super()._tell(job, count)


@pytest.mark.parametrize("kind", [Hand, LateTeller])
async def test_what_is_served_in_the_loop_never_overtakes_what_was_put_before(kind: Any) -> None:
    work = Work()
    hand = kind("test", work.serve, work.failed.append)
    for n in range(0, 10, 2):
        work.served.clear()
        hand.put(n)
        work.served.wait(10)  # the work is done, and the loop, which stands here, was not told of it
        hand.put(n + 1, here=True)
        assert await work.heard(n + 2) == list(range(n + 2))
    hand.stop()


async def test_an_idle_hand_is_not_woken_for_little_and_a_slow_one_is() -> None:
    work = Work()
    hand = Hand("test", work.serve, work.failed.append)
    mine = threading.current_thread().name
    hand.put(1, here=True)
    await work.heard(1)
    assert work.threads[1] == mine
    work.takes_s[2] = QUICK_S * 2
    hand.put(2, here=True)  # it turns out to be slow
    await work.heard(2)
    hand.put(3, here=True)
    await work.heard(3)
    assert work.threads[3] == "raft test"
    hand.stop()


@pytest.mark.parametrize("here", [True, False])
async def test_a_failure_is_told_once_and_nothing_is_done_after_it(here: bool) -> None:
    work = Work()
    hand = Hand("test", work.serve, work.failed.append)
    hand.put(-1, here=here)

    async def failed() -> None:
        assert work.failed

    await until(failed)
    hand.put(1, here=True)
    with pytest.raises(OSError, match="the disk is broken"):
        await hand.aside(lambda: None)
    assert len(work.failed) == 1 and not work.told
    hand.stop()


async def test_a_state_that_is_told_of_late_does_not_go_back() -> None:
    asked: list[int] = []
    barriers = Barriers(asked.append, lambda index: None, 0, 10.0)
    reads = barriers.wait()
    await asyncio.sleep(0)
    barriers.advance(7)
    barriers.advance(5)
    barriers.ready(asked[0], 6)
    await asyncio.wait_for(reads, 10)
    assert barriers.applied == 7
    barriers.ended("over")
