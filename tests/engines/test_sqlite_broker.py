"""The queue in a file: what a kill -9, a reboot, a duplicate and a second process do to it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest

import atoll
from atoll import clock
from atoll.engines.sqlite.broker import BrokerOptions, SqliteBroker
from atoll.errors import ConfigurationError, FormatRefused, LimitReached
from atoll.ports.broker import Accepted, Depth, Message, Settled

PROCESS = Path(__file__).with_name("broker_process.py")


def message(id: str, delay_s: float = 0.0) -> Message:
    return Message(id=id, body=id.encode(), delay_s=delay_s)


@asynccontextmanager
async def process(verb: str, *words: object) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(PROCESS), verb, *map(str, words), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def line(child: asyncio.subprocess.Process) -> str:
    assert child.stdout is not None
    return (await asyncio.wait_for(child.stdout.readline(), 30)).decode().strip()


async def depth(broker: SqliteBroker, queue: str = "work") -> Depth:
    assert broker.inspecting is not None
    return next(d for d in await broker.inspecting.depths() if d.queue == queue)


async def test_a_worker_killed_between_take_and_acknowledge_costs_its_lease_and_counts(
    tmp_path: Path,
) -> None:
    path = tmp_path / "queue.db"
    async with SqliteBroker(path) as broker:
        await broker.put("work", [message("m")])
        for attempt in (1, 2):
            async with process("hold", path, 0.5) as child:
                assert await line(child) == f"took m {attempt}"
                child.send_signal(signal.SIGKILL)
                assert await child.wait() == -signal.SIGKILL
        (taken,) = await broker.take("work", 1, lease_s=30, wait_s=20)
        assert (taken.message.body, taken.attempt) == (b"m", 3)
        assert await broker.acknowledge("work", [taken.receipt]) == [Settled.ACKED]


async def test_a_taker_here_is_woken_by_a_put_of_another_process_and_by_its_killed_workers_lease(
    tmp_path: Path,
) -> None:
    path = tmp_path / "queue.db"
    async with SqliteBroker(path) as broker:
        await broker.put("work", [message("m")])
        async with process("hold", path, 1.0) as child:
            assert await line(child) == "took m 1"
            waiting = asyncio.create_task(broker.take("work", 1, lease_s=30, wait_s=30))
            child.kill()
            await child.wait()
            (taken,) = await waiting
        assert taken.attempt == 2


async def test_three_processes_do_every_message_once(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with SqliteBroker(path) as broker:
        await broker.put("work", [message(str(n)) for n in range(300)])
        async with process("drain", path, 1) as one, process("drain", path, 1) as two:
            done: Counter[str] = Counter()
            while taken := await broker.take("work", 5, lease_s=30, wait_s=0.5):
                ends = await broker.acknowledge("work", [t.receipt for t in taken])
                assert set(ends) == {Settled.ACKED}
                done.update(t.message.id for t in taken)
            for child in (one, two):
                out, _ = await asyncio.wait_for(child.communicate(), 60)
                for text in out.decode().splitlines():
                    id, end = text.split()
                    assert end == "acked"
                    done[id] += 1
        assert done == Counter(str(n) for n in range(300))


async def test_a_late_acknowledgement_is_refused_and_remembered(tmp_path: Path) -> None:
    async with SqliteBroker(tmp_path / "queue.db") as broker:
        await broker.put("work", [message("m")])
        (late,) = await broker.take("work", 1, lease_s=0.05)
        (second,) = await broker.take("work", 1, lease_s=30, wait_s=20)
        assert await broker.acknowledge("work", [late.receipt]) == [Settled.LATE]
        assert await broker.acknowledge("work", [second.receipt]) == [Settled.ACKED]
        assert await broker.acknowledge("work", [late.receipt, second.receipt]) == [
            Settled.LATE,
            Settled.ACKED,
        ]
    async with SqliteBroker(tmp_path / "queue.db") as again:  # also by another process, later
        assert await again.acknowledge("work", [second.receipt]) == [Settled.ACKED]
        assert await again.acknowledge("other", [second.receipt]) == [Settled.UNKNOWN]
        assert await again.acknowledge("work", ["9.9.made-up", "1.1.made-up"]) == [
            Settled.UNKNOWN,
            Settled.LATE,
        ]


async def test_the_oldest_comes_first_and_a_delayed_one_at_its_time(tmp_path: Path) -> None:
    async with SqliteBroker(tmp_path / "queue.db") as broker:
        await broker.put("work", [message("delayed", 0.1), message("1"), message("2")])
        (first,) = await broker.take("work", 1, lease_s=0.05)
        assert first.message.id == "1"
        due = clock.lease_now() + 0.2
        while clock.lease_now() < due:
            await asyncio.sleep(0.01)
        await broker.put("work", [message("3")])
        taken = await broker.take("work", 10, lease_s=30)
        assert [t.message.id for t in taken] == ["1", "2", "delayed", "3"]


async def test_many_takers_share_what_comes_and_none_is_forgotten(tmp_path: Path) -> None:
    async with SqliteBroker(tmp_path / "queue.db") as broker:
        takers = [asyncio.create_task(broker.take("work", 1, lease_s=30, wait_s=30)) for _ in range(40)]
        await asyncio.sleep(0.05)
        for start in range(0, 40, 8):
            await broker.put("work", [message(str(n)) for n in range(start, start + 8)])
        taken = await asyncio.gather(*takers)
        assert sorted(t[0].message.id for t in taken) == sorted(str(n) for n in range(40))


async def test_a_taker_cancelled_in_line_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    async with SqliteBroker(tmp_path / "queue.db") as broker:
        takers = [asyncio.create_task(broker.take("work", 1, lease_s=30, wait_s=30)) for _ in range(4)]
        await asyncio.sleep(0.05)
        for taker in takers[:3]:
            taker.cancel()
        await asyncio.wait(takers[:3])
        await broker.put("work", [message("m")])
        async with asyncio.timeout(20):
            assert [t.message.id for t in await takers[3]] == ["m"]


async def test_what_a_cancelled_take_had_written_comes_back_at_once_and_uncounted(tmp_path: Path) -> None:
    async with SqliteBroker(tmp_path / "queue.db") as broker:
        held = 0
        for number in range(40):
            await broker.put("work", [message(str(number))])
            taker = asyncio.create_task(broker.take("work", 1, lease_s=3600))
            await asyncio.sleep(number / 40 * 0.002)  # cancelled before, while and after it is written
            taker.cancel()
            try:
                (taken,) = await taker
            except asyncio.CancelledError:
                (taken,) = await broker.take("work", 1, lease_s=3600, wait_s=20)
                held += 1
            assert (taken.message.id, taken.attempt) == (str(number), 1)
            assert await broker.acknowledge("work", [taken.receipt]) == [Settled.ACKED]
        assert held > 0, "no take was cancelled, so nothing was tested"


@dataclass
class AnotherBoot(clock.RealClock):
    """The machine after a reboot: the lease clock begins anew, the boot has another name."""

    shift_s: float

    def __post_init__(self) -> None:
        super().__init__()

    @property
    def boot_id(self) -> str:
        return "another boot"

    def lease_now(self) -> float:
        return super().lease_now() - self.shift_s


async def test_after_a_reboot_leases_are_over_and_delays_go_on(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with SqliteBroker(path) as broker:
        await broker.put("work", [message("held"), message("waiting"), message("later", 3600.0)])
        (held,) = await broker.take("work", 1, lease_s=3600)
    with clock.use(AnotherBoot(shift_s=clock.lease_now() - 5)):
        async with SqliteBroker(path) as broker:
            taken = await broker.take("work", 10, lease_s=30)
            assert [(t.message.id, t.attempt) for t in taken] == [("held", 2), ("waiting", 1)]
            assert await broker.acknowledge("work", [held.receipt]) == [Settled.LATE]
            found = await depth(broker)
            assert (found.delayed, found.leased) == (1, 2)
            assert await broker.put("work", [message("waiting")]) == [Accepted.DUPLICATE]


async def test_what_is_settled_is_forgotten_after_the_window_so_the_file_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with SqliteBroker(path, options=BrokerOptions(dedupe_window_s=0.0)) as broker:
        for n in range(5):
            await broker.put("work", [message(f"{n}.{m}") for m in range(50)])
            taken = await broker.take("work", 50, lease_s=30)
            await broker.acknowledge("work", [t.receipt for t in taken])
        with clock.use(AnotherBoot(shift_s=-120.0)):  # the same machine, two minutes on
            await broker.put("work", [message("x") for _ in range(100)])
            await broker.put("work", [message("y")])
    connection = apsw.Connection(str(path))
    assert connection.execute("SELECT count(*) FROM atoll_message WHERE state = 2").get == 0
    connection.close()


async def test_a_file_that_is_full_enough_takes_no_more(tmp_path: Path) -> None:
    async with SqliteBroker(tmp_path / "queue.db", options=BrokerOptions(bytes_max=200_000)) as broker:
        with pytest.raises(LimitReached, match="bytes_max"):
            for n in range(100):
                await broker.put("work", [Message(id=str(n), body=b"x" * 10_000)])
        kept = (await depth(broker)).ready
        assert 0 < kept < 30
        (taken,) = await broker.take("work", 1, lease_s=30)
        assert await broker.acknowledge("work", [taken.receipt]) == [Settled.ACKED]


async def test_dead_letters_outlive_the_process_with_their_reason(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with SqliteBroker(path) as broker:
        await broker.put("work", [message("m")])
        (taken,) = await broker.take("work", 1, lease_s=30)
        assert await broker.bury("work", taken.receipt, "cannot be read") is Settled.ACKED
    async with SqliteBroker(path) as broker:
        assert broker.inspecting is not None
        (dead,) = await broker.inspecting.dead("work")
        assert (dead.message, dead.reason, dead.attempts) == (message("m"), "cannot be read", 1)
        assert (await depth(broker)).dead == 1


async def test_queue_and_store_and_rows_share_one_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/all.db"
    async with (
        atoll.store(url),
        atoll.broker(url) as broker,
        atoll.tier(url),
        atoll.database(url) as database,
    ):
        async with database.begin() as tx:
            await tx.execute("CREATE TABLE mine (a)")
        assert await broker.put("work", [message("m")]) == [Accepted.ACCEPTED]


async def test_a_future_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with SqliteBroker(path):
        pass
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE atoll_format SET number = 99 WHERE part = 'broker'")
    connection.close()
    with pytest.raises(FormatRefused, match="99"):
        await SqliteBroker(path).put("work", [message("m")])


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="dedupe_window_s"):
        atoll.broker("sqlite:///queue.db?dedup=3")
