"""A6: atoll.testing: what a user's tests are given, and that it catches what it should."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from atoll import Lock, LockLost, clock
from atoll.errors import AtollError, ConfigurationError, NotApplied, OutcomeUnknown
from atoll.ports.register import Applied
from atoll.ports.store import Store, absent, delete, put
from atoll.testing import Cut, Deadlock, Forbidden, Killed, NotDeterministic, Weather, World, simulated

ROOT = Path(__file__).resolve().parents[1]


class SetIfAbsentLock:
    """The negative control: a key with a time to live, no token, no notice; what many write by hand."""

    def __init__(self, store: Store, name: str, ttl_s: float = 10) -> None:
        self._store, self._name, self._ttl_s = store, name, ttl_s

    async def __aenter__(self) -> None:
        assert self._store.leasing is not None
        while True:
            granted = await self._store.leasing.grant(self._ttl_s)
            written = put(self._name, b"mine", lease=granted.lease)
            if isinstance(await self._store.transact(written, compare=[absent(self._name)]), Applied):
                return
            await asyncio.sleep(0.5)

    async def __aexit__(self, *exc: object) -> None:
        await self._store.transact(delete(self._name))


Locking = Callable[[Store], AbstractAsyncContextManager[Any]]


async def counting(world: World, lock: Locking) -> None:
    """Two processes count under one lock; the first to hold it is frozen for longer than its lease."""
    done = 0

    async def work() -> None:
        nonlocal done
        store = world.store()
        for _ in range(3):
            with contextlib.suppress(NotApplied, LockLost):
                async with lock(store) as held:
                    entry = (await store.get("count")).entry
                    now = int(entry.value) if entry else 0
                    await asyncio.sleep(0.5)
                    await store.transact(put("count", str(now + 1).encode()), guard=held)
                    done += 1

    workers = [world.process(name).run(work()) for name in ("one", "other")]
    await asyncio.sleep(0.3)
    await world.freeze("one", seconds=18)
    await asyncio.sleep(20)
    await world.freeze("other", seconds=18)
    await asyncio.gather(*workers)
    entry = (await world.store().get("count")).entry
    assert entry is not None and int(entry.value) >= done, f"{done} said done"


@simulated(seeds=30)
async def test_a_lock_whose_token_guards_the_write_counts_right_when_its_holder_freezes(world: World) -> None:
    await counting(world, lambda store: Lock(store, "count"))
    assert world.hardships()["frozen"] == 2


@simulated(seeds=200)
async def test_a_frozen_worker_bills_nobody(world: World) -> None:
    with pytest.raises(LockLost):
        async with Lock(world.store(), "order/1"):
            await world.freeze(seconds=20)


def test_a_lock_without_a_token_is_caught_when_its_holder_freezes(capsys: pytest.CaptureFixture[str]) -> None:
    @simulated(seeds=20)
    async def naive(world: World) -> None:
        await counting(world, lambda store: SetIfAbsentLock(store, "count-lock"))

    with pytest.raises(AssertionError, match="said done") as raised:
        naive()
    assert "ATOLL_SEED=" in "".join(raised.value.__notes__)
    assert "ATOLL_SEED=" in capsys.readouterr().err


def test_a_recipe_that_takes_a_lost_reply_for_a_no_is_caught() -> None:
    async def add_once(store: Store) -> None:
        """Broken on purpose: unknown is taken for not done, and done again."""
        for _ in range(50):
            try:
                entry = (await store.get("count")).entry
                now = int(entry.value) if entry else 0
                await store.transact(put("count", str(now + 1).encode()))
                return
            except AtollError:
                continue

    @simulated(seeds=50, weather=Weather(reply_lost=0.2, ceiling_s=1))
    async def once(world: World) -> None:
        await add_once(world.store())
        world.weather = Weather()

        async def read() -> bytes:
            entry = (await world.store().get("count")).entry
            assert entry is not None
            return entry.value

        assert await world.process("reader").run(read()) == b"1"

    with pytest.raises(AssertionError, match="b'2'"):
        once()


@simulated(seeds=20, weather=Weather(reply_lost=0.2, request_lost=0.1, ceiling_s=1))
async def test_a_recipe_that_compares_survives_the_same_weather(world: World) -> None:
    store = world.store()
    for n in range(40):
        while True:
            try:
                await store.transact(put(f"n/{n}", b"1"), compare=[absent(f"n/{n}")])
                break
            except OutcomeUnknown:
                continue
    world.weather = Weather()

    async def total() -> int:
        return len((await world.store().range("n/")).entries)

    assert await world.process("reader").run(total()) == 40
    assert world.hardships().get("reply_lost", 0) + world.hardships().get("request_lost", 0) > 0


def test_every_seed_is_run_and_the_first_one_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[int]()
    for name in ("ATOLL_SEED", "ATOLL_SEEDS"):
        monkeypatch.delenv(name, raising=False)

    @simulated(seeds=5)
    async def note(world: World) -> None:
        seen.append(world.seed)

    note()
    assert seen == [0, 0, 1, 2, 3, 4]


def test_the_environment_chooses_one_seed_or_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[int]()

    @simulated(seeds=5)
    async def note(world: World) -> None:
        seen.append(world.seed)

    monkeypatch.setenv("ATOLL_SEEDS", "2")
    note()
    assert seen == [0, 0, 1]
    seen.clear()
    monkeypatch.setenv("ATOLL_SEED", "17")
    note()
    assert seen == [17, 17]
    monkeypatch.setenv("ATOLL_SEED", "x")
    with pytest.raises(ConfigurationError, match="whole numbers"):
        note()


def test_a_test_whose_history_depends_on_more_than_the_seed_is_found_out() -> None:
    @simulated(seeds=3)
    async def accidental(world: World) -> None:
        await world.store().transact(put("k", uuid.uuid4().bytes))

    with pytest.raises(NotDeterministic, match="two histories"):
        accidental()


def test_the_order_of_a_set_of_objects_is_found_out() -> None:
    kept = list[object]()

    class Thing:
        def __init__(self, name: int) -> None:
            self.name = name

    @simulated(seeds=1)
    async def accidental(world: World) -> None:
        kept.extend(object() for _ in range(len(kept) * 7 + 3))
        things = {Thing(n) for n in range(200)}
        kept.append(things)
        for thing in things:
            await world.store().transact(put("k", str(thing.name).encode()))

    with pytest.raises(NotDeterministic):
        accidental()


def test_a_thread_in_a_simulated_test_is_refused() -> None:
    @simulated(seeds=1)
    async def threaded(world: World) -> None:
        await asyncio.to_thread(print)

    with pytest.raises(Forbidden, match="thread"):
        threaded()


def test_the_world_is_hidden_from_the_signature_and_other_arguments_are_kept(tmp_path: Path) -> None:
    @simulated(seeds=1)
    async def with_a_fixture(world: World, tmp_path: Path) -> None:
        assert tmp_path.exists()

    assert list(inspect.signature(with_a_fixture).parameters) == ["tmp_path"]
    assert not inspect.iscoroutinefunction(with_a_fixture)
    with_a_fixture(tmp_path=tmp_path)


class TestInAClass:
    @simulated(seeds=2)
    async def test_a_method_can_be_simulated_too(self, world: World) -> None:
        assert isinstance(self, TestInAClass) and isinstance(world, World)


def test_brackets_that_were_forgotten_are_named() -> None:
    with pytest.raises(ConfigurationError, match="without brackets"):
        simulated(print)  # type: ignore[arg-type]

    async def no_world() -> None: ...

    with pytest.raises(ConfigurationError, match="takes no world"):
        simulated(seeds=1)(no_world)  # type: ignore[arg-type]


@simulated(seeds=30)
async def test_a_killed_process_leaves_its_keys_until_its_lease_ends(world: World) -> None:
    async def hold() -> None:
        store = world.store()
        assert store.leasing is not None
        granted = await store.leasing.grant(5)
        try:
            await store.transact(put("held", b"1", lease=granted.lease))
            await asyncio.sleep(3600)
        finally:
            await store.leasing.revoke(granted.lease)

    answer = world.process("holder").run(hold())
    await asyncio.sleep(1)
    world.kill("holder")
    await asyncio.sleep(1)
    assert (await world.store().get("held")).entry is not None
    await asyncio.sleep(6)
    assert (await world.store().get("held")).entry is None
    with pytest.raises(Killed):
        await answer
    with pytest.raises(Killed):
        world.process("holder").run(hold())


@simulated(seeds=10)
async def test_a_process_can_be_cut_off_alone_and_healed(world: World) -> None:
    async def write() -> None:
        await world.store().transact(put("k", b"1"))

    world.cut("far", Cut.REFUSED)
    with pytest.raises(NotApplied):
        await world.process("far").run(write())
    await world.store().transact(put("near", b"1"))
    world.heal("far")
    await world.process("far").run(write())
    assert (await world.store().get("k")).entry is not None


@simulated(seeds=10)
async def test_the_calling_process_freezes_while_time_goes_on(world: World) -> None:
    ticks = list[float]()

    async def tick() -> None:
        while True:
            await asyncio.sleep(1)
            ticks.append(clock.loop_now())

    world.process("other").run(tick())
    before = world.clock.lease_now()
    await world.freeze(seconds=20)
    assert world.clock.lease_now() - before == pytest.approx(20)
    assert len(ticks) in (19, 20)
    assert world.hardships() == {"frozen": 1}


def test_an_error_in_a_process_that_nobody_awaits_fails_the_test() -> None:
    @simulated(seeds=1)
    async def careless(world: World) -> None:
        async def broken() -> None:
            raise ValueError("nobody looks")

        world.process("b").run(broken())
        await asyncio.sleep(1)

    with pytest.raises(ValueError, match="nobody looks") as raised:
        careless()
    assert any("process b" in note for note in raised.value.__notes__)


def test_a_test_that_waits_for_a_frozen_process_is_told_so() -> None:
    @simulated(seeds=1)
    async def stuck(world: World) -> None:
        process = world.process("sleeper")
        answer = process.run(asyncio.sleep(1))
        process.freeze()
        await answer

    with pytest.raises(Deadlock, match=r"sleeper/.*\(frozen\)"):
        stuck()


@simulated(seeds=5)
async def test_processes_share_a_store_and_worlds_do_not(world: World) -> None:
    assert (await world.store().get("k")).entry is None
    assert world.store() is world.store()

    async def write() -> str:
        await world.store().transact(put("k", b"1"))
        return repr(world.store())

    assert (await world.process("b").run(write())).startswith("<b->state")
    assert (await world.store().get("k")).entry is not None
    assert (await world.store("another").get("k")).entry is None


@simulated(seeds=3)
async def test_knobs_weaken_the_worlds_store(world: World) -> None:
    claims = await world.store("weak", knobs="observe=coalesced&expiry_late_s=2").open()
    assert claims.observe.value == "coalesced"


def test_the_same_seed_gives_the_same_world_under_every_hash_seed() -> None:
    code = """
import asyncio
from atoll.ports.store import put
from atoll.testing import Weather, World
from atoll.verify.virtual_time import Simulation

simulation = Simulation(11)
world = World(simulation, Weather(reply_lost=0.1, duplicated=0.1, late=0.1, ceiling_s=1))

async def work(name):
    for n in range(20):
        try:
            await world.store().transact(put(f"{name}/{n}", b"1"))
        except Exception:
            pass

async def main():
    async with asyncio.TaskGroup() as group:
        for name in ("a", "b", "c"):
            world.process(name).run(work(name))
        await asyncio.sleep(60)

simulation.run(main)
print(world.trace_hash, sorted(world.hardships().items()))
"""
    answers = set()
    for hash_seed in ("0", "1", "random"):
        answer = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert answer.returncode == 0, answer.stderr
        answers.add(answer.stdout)
    assert len(answers) == 1 and "reply_lost" in answers.pop()


def test_importing_it_loads_neither_pytest_nor_an_engine() -> None:
    unwanted = ["pytest", "apsw", "atoll.engines"]
    code = f"import sys, atoll.testing; print([m for m in {unwanted} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert answer.stdout.strip() == "[]", answer.stderr


def test_a_failing_seed_fails_again_when_it_is_replayed(tmp_path: Path) -> None:
    (tmp_path / "test_dice.py").write_text(
        "from atoll import clock\n"
        "from atoll.testing import World, simulated\n"
        "@simulated(seeds=200)\n"
        "async def test_dice(world: World) -> None:\n"
        "    assert clock.chance().random() < 0.95\n"
    )

    def pytest_says(**environment: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_dice.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment},
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout

    said = pytest_says()
    seed = said.partition("ATOLL_SEED=")[2].split()[0]
    again = pytest_says(ATOLL_SEED=seed)
    assert "1 failed" in said and "1 failed" in again and f"ATOLL_SEED={seed}" in again
    assert "1 passed" in pytest_says(ATOLL_SEED=str(int(seed) - 1))


def test_the_page_on_testing_runs_as_it_is_written(tmp_path: Path) -> None:
    page = (ROOT / "docs/howto/test-your-code.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    assert len(blocks) >= 6
    (tmp_path / "test_page.py").write_text("\n\n".join(blocks))
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_page.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stdout


@simulated(seeds=5)
async def test_who_gives_up_the_answer_cancels_the_body(world: World) -> None:
    ended: list[str] = []

    async def body() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(world.here.name)

    answer = world.process("other").run(body())
    await asyncio.sleep(1)
    answer.cancel()
    await asyncio.sleep(1)
    assert ended == ["other"]
