"""A7: a forked child opens its own handles; what the parent holds it may not use, renew or give back."""

from __future__ import annotations

import http.client
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from atoll import Taken, put
from atoll.sync import Lock, Store, store

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
CONTEXT = multiprocessing.get_context("fork")


def in_child(work: Callable[[], object]) -> list[str]:
    """Run `work` in a forked child; what it said, or the name of its error."""
    here, there = CONTEXT.Pipe(duplex=False)

    def body() -> None:
        try:
            there.send(repr(work()))
        except BaseException as error:
            there.send(type(error).__name__)

    child = CONTEXT.Process(target=body)
    child.start()
    child.join(30)
    assert child.exitcode == 0, "the child hung or died"
    return [here.recv()] if here.poll() else []


@pytest.fixture
def state(tmp_path: Path) -> Store:
    return store(f"sqlite:///{tmp_path}/state.db")


def test_a_handle_opens_anew_in_the_child(state: Store) -> None:
    state.transact(put("a", b"parent"))
    assert in_child(lambda: state.get("a").entry.value) == ["b'parent'"]  # type: ignore[union-attr]
    assert in_child(lambda: bool(state.transact(put("b", b"child")))) == ["True"]
    entry = state.get("b").entry
    assert entry is not None and entry.value == b"child"


def test_a_held_lock_is_refused_in_the_child_in_every_use(state: Store) -> None:
    with Lock(state, "x") as held:
        assert in_child(held.check) == ["UsedAfterFork"]
        assert in_child(lambda: held.owner_key) == ["UsedAfterFork"]
        assert in_child(lambda: held.fence(object())) == ["UsedAfterFork"]
        assert in_child(lambda: state.transact(put("a", b""), guard=held)) == ["UsedAfterFork"]
        held.check()


def test_the_child_does_not_give_the_parents_lock_back(state: Store) -> None:
    lock = Lock(state, "x", ttl_s=30)
    with lock:
        assert in_child(lambda: lock.__exit__(None, None, None)) == ["UsedAfterFork"]
        assert in_child(lambda: Lock(state, "x", wait_s=0).__enter__()) == ["Taken"]
    with Lock(state, "x", wait_s=0):
        pass


def test_the_child_may_hold_its_own(state: Store) -> None:
    def own() -> str:
        with Lock(state, "mine", wait_s=5) as held:
            return held.owner.rpartition("pid ")[2]

    with Lock(state, "x"):
        (pid,) = in_child(own)
    assert pid.strip("'") != str(os.getpid())


def test_the_child_does_not_renew_for_a_dead_parent(tmp_path: Path) -> None:
    """The parent is killed while its child lives on: the lock is free after the lease."""
    url = f"sqlite:///{tmp_path}/state.db"
    code = (
        "import os, sys, time\n"
        "from atoll.sync import Lock, store\n"
        "s = store(sys.argv[1])\n"
        "with Lock(s, 'x', ttl_s=1):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        s.get('x'); time.sleep(60); os._exit(0)\n"
        "    print(child, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        with pytest.raises(Taken), Lock(store(url), "x", wait_s=0):
            pass
        parent.kill()
        parent.wait()
        with Lock(store(url), "x", wait_s=20):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


APP = """
import os, sys
from atoll import Taken, UsedAfterFork
from atoll.sync import Lock, store
state = store(os.environ["STATE"])
preloaded = Lock(state, "preloaded", ttl_s=60)
held = preloaded.__enter__()            # in the arbiter, before it forks

def app(environ, start_response):
    answers = []
    try:
        held.check()
    except UsedAfterFork:
        answers.append("UsedAfterFork")
    try:
        with Lock(state, "preloaded", wait_s=0):
            answers.append("stolen")
    except Taken as taken:
        answers.append("Taken")
    with Lock(state, "counter", wait_s=20) as mine:
        mine.check()
        answers.append(str(os.getpid()))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [" ".join(answers).encode()]
"""


def test_gunicorn_preload_shares_the_handle_and_not_the_lock(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    path = tmp_path / "g.sock"
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--preload", "-w", "2", "-b", f"unix:{path}", "shop:app"],
        cwd=tmp_path, env={**os.environ, "STATE": f"sqlite:///{tmp_path}/state.db"},
        stdout=subprocess.DEVNULL, stderr=(tmp_path / "log").open("w"),
    )  # fmt: skip
    try:
        pids = set()
        end = time.monotonic() + 60
        while len(pids) < 2:
            assert time.monotonic() < end and server.poll() is None, (tmp_path / "log").read_text()
            answer = ask(path)
            if answer is None:
                time.sleep(0.02)
                continue
            refused, taken, pid = answer.split()
            assert (refused, taken) == ("UsedAfterFork", "Taken")
            pids.add(pid)
    finally:
        server.terminate()
        server.wait(30)


def ask(path: Path) -> str | None:
    """One HTTP request over a unix socket; None while nobody answers."""
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(30)
    try:
        connection.sock.connect(str(path))
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.status == 200, response.read()
        return response.read().decode()
    except (FileNotFoundError, ConnectionError):
        return None
    finally:
        connection.close()
