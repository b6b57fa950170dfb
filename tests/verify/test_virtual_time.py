"""A6: virtual time: an hour takes no time, a seed names the run, and nothing accidental gets in."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
import threading
import time

import pytest

from atoll import clock
from atoll.verify.virtual_accidents import Forbidden
from atoll.verify.virtual_time import Deadlock, Endless, Simulation, run

HISTORY = """
import asyncio
from atoll import clock
from atoll.verify.virtual_time import Simulation

async def worker(name, board):
    for _ in range(20):
        await asyncio.sleep(clock.chance().expovariate(1.0))
        board.append(name)

async def main():
    board, names = [], {"lea", "noa", "ida", "uma", "eva"}
    async with asyncio.TaskGroup() as group:
        for name in sorted(names):
            group.create_task(worker(name, board))
    return board

simulation = Simulation(SEED)
print(simulation.run(main)[:40], simulation.trace.hash)
"""


def history(seed: int, hash_seed: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", HISTORY.replace("SEED", str(seed))],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_the_same_seed_gives_the_same_history_under_every_hash_seed() -> None:
    assert history(7, "0") == history(7, "1") == history(7, "random")


def test_another_seed_gives_another_history() -> None:
    assert history(7, "0") != history(8, "0")


def test_a_day_of_waiting_takes_no_time() -> None:
    async def day() -> float:
        before = clock.lease_now()
        for _ in range(23):
            await asyncio.sleep(3600)
        return clock.lease_now() - before

    assert run(day) == 23 * 3600


def test_the_three_clocks_count_the_same_time_from_different_zeros() -> None:
    async def read() -> list[float]:
        before = (clock.lease_now(), clock.wall_now(), clock.loop_now(), time.time(), time.monotonic())
        await asyncio.sleep(5)
        after = (clock.lease_now(), clock.wall_now(), clock.loop_now(), time.time(), time.monotonic())
        assert len({round(t) for t in after[:3]}) == 3
        return [b - a for a, b in zip(before, after, strict=True)]

    assert run(read) == pytest.approx([5.0] * 5)


def test_timeouts_and_deadlines_are_kept_in_virtual_time() -> None:
    async def impatient() -> float:
        with clock.deadline(30):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout_at(clock.call_deadline(60)):
                    await asyncio.Event().wait()
        return clock.loop_now()

    assert run(impatient) == pytest.approx(1030)


def test_everybody_waiting_for_nothing_is_a_deadlock_that_names_them() -> None:
    async def stuck() -> None:
        one = asyncio.create_task(asyncio.Event().wait(), name="the-waiter")
        await one

    with pytest.raises(Deadlock, match=r"main at test_virtual_time.py:\d+\n  the-waiter at"):
        run(stuck)


def test_a_run_without_end_is_stopped_at_its_bound_of_time_and_of_steps() -> None:
    async def idle() -> None:
        while True:
            await asyncio.sleep(60)

    async def busy() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Endless, match="virtual seconds"):
        Simulation(0, until_s=3600).run(idle)
    with pytest.raises(Endless, match="steps"):
        Simulation(0, steps_max=1000).run(busy)


@pytest.mark.parametrize("what", ["executor", "to_thread", "sleep", "thread", "socket", "process", "signal"])
def test_what_a_seed_cannot_repeat_is_forbidden_with_a_sentence(what: str) -> None:
    async def accident() -> None:
        loop = asyncio.get_running_loop()
        match what:
            case "executor":
                await loop.run_in_executor(None, print)
            case "to_thread":
                await asyncio.to_thread(print)
            case "sleep":
                time.sleep(0.001)
            case "thread":
                threading.Thread(target=print).start()
            case "socket":
                with socket.socket() as sock:
                    await loop.sock_connect(sock, ("127.0.0.1", 9))
            case "process":
                await asyncio.create_subprocess_exec("true")
            case "signal":
                loop.add_signal_handler(15, print)

    with pytest.raises(Forbidden, match="a seed cannot repeat it"):
        run(accident)


def test_time_and_threads_are_the_machines_own_again_after_a_run() -> None:
    async def nothing() -> None: ...

    before = (time.time, time.monotonic, time.sleep, threading.Thread.start, random.getstate())
    run(nothing)
    assert before == (time.time, time.monotonic, time.sleep, threading.Thread.start, random.getstate())


def test_the_random_module_is_seeded_inside_and_untouched_outside() -> None:
    async def throw() -> float:
        return random.random()

    state = random.getstate()
    assert run(throw, seed=3) == run(throw, seed=3) != run(throw, seed=4)
    assert random.getstate() == state


def test_between_processes_the_order_is_drawn_and_within_one_it_is_asyncios() -> None:
    def orders(seed: int) -> str:
        simulation, board = Simulation(seed), list[str]()

        async def note(letter: str) -> None:
            board.append(letter)

        async def main() -> None:
            tasks = []
            for name in ("ab", "xy"):
                for letter in name:
                    context = simulation.context(simulation.process(name))
                    tasks.append(asyncio.get_running_loop().create_task(note(letter), context=context))
            await asyncio.gather(*tasks)

        simulation.run(main)
        return "".join(board)

    seen = {orders(seed) for seed in range(60)}
    assert all(order.index("a") < order.index("b") and order.index("x") < order.index("y") for order in seen)
    assert len(seen) == 6


def test_a_frozen_process_does_nothing_until_it_thaws_and_then_everything_that_was_due() -> None:
    simulation, board = Simulation(1), list[tuple[str, float]]()

    async def tick(name: str) -> None:
        for _ in range(5):
            await asyncio.sleep(1)
            board.append((name, clock.loop_now() - 1000))

    async def main() -> None:
        b = simulation.process("b")
        task = asyncio.get_running_loop().create_task(tick("b"), context=simulation.context(b))
        await asyncio.sleep(1.5)
        simulation.freeze(b, 10)
        await tick("main")
        await task

    simulation.run(main)
    assert [at for name, at in board if name == "main"] == pytest.approx([2.5, 3.5, 4.5, 5.5, 6.5])
    assert [at for name, at in board if name == "b"] == pytest.approx([1.0, 11.5, 12.5, 13.5, 14.5])


def test_a_killed_process_runs_nothing_more_not_even_its_finally() -> None:
    simulation, board = Simulation(1), list[str]()

    async def victim() -> None:
        try:
            await asyncio.sleep(1)
            board.append("went on")
        finally:
            board.append("cleaned up")

    async def main() -> list[str]:
        process = simulation.process("victim")
        asyncio.get_running_loop().create_task(victim(), context=simulation.context(process))
        await asyncio.sleep(0.5)
        simulation.kill(process)
        await asyncio.sleep(100)
        return [*board]

    assert simulation.run(main) == []


def test_an_error_in_a_callback_fails_the_run() -> None:
    async def body() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    with pytest.raises(ZeroDivisionError):
        run(body)


def test_what_still_runs_at_the_end_is_cancelled_and_cleans_up() -> None:
    board = list[str]()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            board.append("cleaned up")

    async def body() -> None:
        body.task = asyncio.create_task(forever())  # type: ignore[attr-defined]
        await asyncio.sleep(1)

    run(body)
    assert board == ["cleaned up"]


def test_a_task_that_refuses_to_end_does_not_hang_the_run() -> None:
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    async def body() -> str:
        body.task = asyncio.create_task(stubborn())  # type: ignore[attr-defined]
        await asyncio.sleep(1)
        return "done"

    assert run(body) == "done"


def test_a_cancelled_group_of_tasks_ends_in_the_same_order_for_the_same_seed() -> None:
    """asyncio keeps a group in a set, and cancels it in the set's order."""

    async def body() -> list[int]:
        ended: list[int] = []

        async def member(n: int) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append(n)

        async def group() -> None:
            async with asyncio.TaskGroup() as tasks:
                for n in range(40):
                    tasks.create_task(member(n))

        running = asyncio.create_task(group())
        await asyncio.sleep(1)
        running.cancel()
        await asyncio.wait([running])
        return ended

    runs, ballast = [], []
    for n in range(4):
        runs.append(run(body, seed=1))
        ballast.append([object() for _ in range(997 * n)])  # other addresses next time
    assert runs[0] == runs[1] == runs[2] == runs[3] and sorted(runs[0]) == list(range(40))
