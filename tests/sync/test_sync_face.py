"""A9: the same names without an event loop: generated, typed, interruptible; told of what is lost."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from atoll import ConfigurationError, LockLost, NotSent, OutcomeUnknown, Refused, Taken, put
from atoll.ports.joined import joined_on
from atoll.sync import Election, Lock, Outbox, Queue, Store, Term, broker, database, deadline, portal, store

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Store]:
    with store(f"sqlite:///{tmp_path}/state.db") as opened:
        yield opened


def test_the_shells_are_what_the_script_writes() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/make_sync.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_lock_in_a_script(state: Store) -> None:
    with Lock(state, "invoices", wait_s=0) as held:
        held.check()
        assert not held.lost and held.name == "invoices"
        state.transact(put("paid", b"yes"), guard=held)
    with Lock(state, "invoices", wait_s=0) as again:
        assert again.token > held.token
    entry = state.get("paid").entry
    assert entry is not None and entry.value == b"yes"


def test_another_thread_meets_taken_and_the_same_thread_is_refused(state: Store) -> None:
    met: list[type] = []

    def another() -> None:
        try:
            with Lock(state, "x", wait_s=0):
                pass
        except Taken:
            met.append(Taken)

    with Lock(state, "x"):
        thread = threading.Thread(target=another)
        thread.start()
        thread.join()
        with pytest.raises(ConfigurationError, match="never end"), Lock(state, "x"):
            pass
    assert met == [Taken]


def test_threads_take_turns(state: Store) -> None:
    inside, most, lock = 0, 0, Lock(state, "x")

    def work() -> None:
        nonlocal inside, most
        for _ in range(5):
            with lock:
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_late_block_meets_lock_lost_in_check_and_at_its_end() -> None:
    state = store("memory://")
    frozen = threading.Event()

    async def freeze() -> None:
        """The loop thread stands still, as a frozen process does."""
        time.sleep(0.5)

    with pytest.raises(LockLost), Lock(state, "x", ttl_s=0.2) as held:
        portal.portal().submit(freeze())
        while not held.lost:
            time.sleep(0.005)
        with pytest.raises(LockLost):
            held.check()
        frozen.set()
    assert frozen.is_set()


def test_a_fence_works_on_a_session_of_this_thread(state: Store, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    with database(engine):
        with Lock(state, "order/1") as first:
            pass
        with Lock(state, "order/1") as held, Session(engine) as db, db.begin():
            held.fence(db)
        with pytest.raises(LockLost), Session(engine) as db, db.begin():
            first.fence(db)
        with pytest.raises(Refused), Session(engine) as db, db.begin():
            portal.here(joined_on(db).fence(db, "lock/order/1", first.token))
    engine.dispose()


@dataclass
class Placed:
    id: int


def test_a_message_is_put_on_a_queue_and_in_an_outbox(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    with broker(f"sqlite:///{tmp_path}/queue.db") as opened, database(engine) as shop:
        placed = Queue(opened, "order-placed", Placed)
        assert placed.put(Placed(1)) != placed.put(Placed(2))
        with Session(engine) as db, db.begin():
            assert Outbox(shop).put(db, placed, Placed(3), id="three") == "three"
            staged = db.execute(text("SELECT count(*) FROM atoll_outbox")).scalar_one()
    assert staged == 1
    engine.dispose()


def test_a_deadline_bounds_the_calls() -> None:
    state = store("memory://?latency_s=5")
    began = time.monotonic()
    with pytest.raises((NotSent, OutcomeUnknown)), deadline(0.05):
        state.get("x")
    assert time.monotonic() - began < 4


def test_context_variables_are_carried() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    name.set("here")

    async def read() -> str:
        return name.get()

    assert portal.run(read()) == "here"


async def test_inside_a_coroutine_it_is_refused_with_the_remedy() -> None:
    state = store("memory://")
    with pytest.raises(ConfigurationError, match="called from a coroutine"):
        state.get("x")
    assert (await asyncio.to_thread(state.get, "x")).entry is None


def test_an_observation_is_a_plain_iterator(state: Store) -> None:
    news = state.observe("a/")
    assert next(news).reset
    state.transact(put("a/1", b"x"))
    assert [entry.key for entry in next(news).changed] == ["a/1"]
    news.close()  # type: ignore[attr-defined]


def test_a_leader_runs_a_plain_function(state: Store) -> None:
    def nightly(term: Term, times: int) -> str:
        for n in range(times):
            term.check()
            state.transact(put(f"report/{n}", b"done"), guard=term)
        return f"{times} by {term.name}"

    assert Election(state, "nightly").lead(nightly, 2) == "2 by nightly"
    assert Election(state, "nightly").leader() is None


INTERRUPTED = """
import sys, threading, time
from atoll import Taken
from atoll.sync import Lock, store
state = store(sys.argv[1])
if sys.argv[2] == "held":
    try:
        with Lock(state, "x", ttl_s=60):
            print("ready", flush=True)
            time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
else:
    print("ready", flush=True)
    try:
        with Lock(state, "x", ttl_s=60):
            print("never", flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize("where", ["held", "waiting"])
def test_an_interrupt_leaves_nothing_held_or_waiting(where: str, state: Store, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    mine = Lock(state, "x")
    if where == "waiting":
        mine.__enter__()
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, url, where], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        if where == "waiting":
            until(lambda: bool(state.range("lock/x/queue/").entries))
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[0] == "interrupted\n"
    finally:
        process.kill()
        process.wait()
    assert state.range("lock/x/queue/").entries == ()
    if where == "waiting":
        mine.__exit__(None, None, None)
    with Lock(state, "x", wait_s=0):
        pass


def until(condition: object, within_s: float = 20.0) -> None:
    assert callable(condition)
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_the_thread_starts_at_the_first_call_only() -> None:
    code = (
        "import threading, atoll.sync as a\n"
        "s = a.store('memory://'); l = a.Lock(s, 'x')\n"
        "assert threading.active_count() == 1\n"
        "with l: pass\n"
        "assert threading.active_count() == 2\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**os.environ})
