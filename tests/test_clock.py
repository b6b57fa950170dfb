"""A3: deadlines that travel, a lease clock that neither jumps nor stops, chance that a fork does not copy."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time

import pytest

import atoll
from atoll import ConfigurationError, clock


class Stopped:
    """A clock that stands still wherever it was put."""

    boot_id = "boot-2"
    chance = random.Random(1)

    def __init__(self, now: float) -> None:
        self.now = now

    def lease_now(self) -> float:
        return self.now

    def wall_now(self) -> float:
        return self.now

    def loop_now(self) -> float:
        return self.now


def test_a_call_inside_a_deadline_has_what_is_left_of_it() -> None:
    with clock.use(stopped := Stopped(100.0)), atoll.deadline(3):
        assert clock.remaining_s(10) == 3
        stopped.now += 2
        assert clock.remaining_s(10) == 1
        assert clock.remaining_s(0.5) == 0.5
        assert clock.call_deadline(10) == 103


def test_without_a_deadline_a_call_has_its_ceiling() -> None:
    with clock.use(Stopped(0.0)):
        assert clock.remaining_s(10) == 10


def test_the_nearest_deadline_is_in_force() -> None:
    with clock.use(Stopped(0.0)), atoll.deadline(1), atoll.deadline(5):
        assert clock.remaining_s(10) == 1
        with atoll.deadline(0.5):
            assert clock.remaining_s(10) == 0.5
        assert clock.remaining_s(10) == 1


async def test_a_deadline_travels_into_tasks_and_not_to_strangers() -> None:
    async def left() -> float:
        return clock.remaining_s(100)

    stranger = asyncio.create_task(asyncio.sleep(0, result=None))
    with atoll.deadline(5):
        child = asyncio.create_task(left())
    assert await child <= 5
    await stranger
    assert await left() == 100


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_deadline_in_the_past_is_refused_with_a_sentence(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="greater than 0"), atoll.deadline(seconds):
        pass


async def test_a_call_that_meets_the_deadline_says_whether_it_was_sent() -> None:
    slow = atoll.store("memory://?latency_s=5")
    began = time.monotonic()
    with pytest.raises((atoll.NotSent, atoll.OutcomeUnknown)), atoll.deadline(0.2):
        await slow.transact(atoll.put("k", b"v"))
    assert time.monotonic() - began < 2


def test_the_lease_clock_counts_from_boot_and_names_it() -> None:
    assert clock.boot_id() and clock.boot_id() == clock.boot_id()
    first = clock.lease_now()
    assert 0 < first <= clock.lease_now()


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="CLOCK_BOOTTIME is Linux's")
def test_the_lease_clock_is_boottime_so_suspend_counts() -> None:
    assert abs(clock.lease_now() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1


def test_two_processes_of_one_boot_agree_on_it() -> None:
    code = "from atoll import clock; print(clock.boot_id(), clock.lease_now())"
    boot, now = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert boot == clock.boot_id() and float(now) <= clock.lease_now()


def test_a_lease_of_another_boot_is_over(tmp_path: object) -> None:
    """Written under one boot id, looked at under another: the key is gone although its time is not."""

    async def hold() -> None:
        store = atoll.store(f"sqlite:///{tmp_path}/s.db")
        assert store.leasing is not None
        lease, _ = await store.leasing.grant(0.3)
        await store.transact(atoll.put("mine", b"1", lease=lease))
        await store.close()

    async def look() -> bool:
        store = atoll.store(f"sqlite:///{tmp_path}/s.db")
        entry, _ = await store.get("mine")
        await store.close()
        return entry is not None

    asyncio.run(hold())
    with clock.use(AnotherBoot()):
        assert asyncio.run(look()) is False


class AnotherBoot(clock.RealClock):
    """This machine after a reboot: its lease clock starts at zero, long after by the wall clock."""

    @property
    def boot_id(self) -> str:
        return "another"

    def lease_now(self) -> float:
        return 0.01

    def wall_now(self) -> float:
        return time.time() + 3600


def test_a_forked_child_rolls_other_dice() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, clock.unique_id().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 100).decode() != clock.unique_id()
    os.close(reading), os.close(writing)


def test_unique_ids_are_128_bits_and_differ() -> None:
    ids = {clock.unique_id() for _ in range(1000)}
    assert len(ids) == 1000 and all(len(i) == 32 and int(i, 16) >= 0 for i in ids)
