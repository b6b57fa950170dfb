"""4.4: `atoll node` and `Node`: a member in the foreground or in a child process; wrong words; its ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from atoll.cli.main import main
from atoll.engines.raft import Node
from atoll.errors import ConfigurationError
from atoll.verify.servers.process import free_port

START_S = 60


def place() -> str:
    return f"127.0.0.1:{free_port()}"


def atoll_node(*words: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "atoll", "node", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def ended(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = child.communicate(timeout=START_S)
    return child.returncode, out, err


def test_one_member_alone_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    where = place()
    child = atoll_node("--id", "a", "--members", f"a={where}", "--data", str(tmp_path / "a"))
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line.startswith("a of cluster ") and line.endswith(f"listens on {where}\n")
    assert child.stderr is not None
    while "a is leader in term 1" not in child.stderr.readline():
        assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    assert ended(child)[0] == 0


def test_a_second_process_in_the_same_folder_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    data = str(tmp_path / "a")
    first = atoll_node("--id", "a", "--members", f"a={place()}", "--data", data, "--json")
    assert first.stdout is not None
    assert json.loads(first.stdout.readline())["name"] == "a"
    second = atoll_node("--id", "a", "--members", f"a={place()}", "--data", data, "--json")
    code, out, _ = ended(second)
    assert code == 2 and f"in use by pid {first.pid}" in json.loads(out)["message"]
    assert first.poll() is None
    first.send_signal(signal.SIGINT)
    assert ended(first)[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--members", "b=127.0.0.1:1"], "not among --members"),
        (["--members", "a=nowhere"], "expected host:port"),
        (["--members", "a=127.0.0.1:1,a=127.0.0.1:2"], "each member once"),
        (["--members", "a=127.0.0.1:1,b=127.0.0.1:1"], "a place of its own"),
        (["--members", "a=127.0.0.1:1", "--join", "127.0.0.1:2"], "begins a cluster or joins one"),
        (["--members", "a=10.1.2.3:7401"], "--insecure"),
        (["--members", "a=127.0.0.1:1", "--heartbeat-s", "0.4"], "at most half of election_s"),
        (["--members", "a=127.0.0.1:1", "--cert", "a.pem"], "expected all three"),
        ([], "expected --members, to begin a cluster, or --join"),
        (["--members", ",".join(f"{c}=127.0.0.1:{n}" for n, c in enumerate("abcdefgh", 1))], "one to 7"),
    ],
)
def test_wrong_words_are_said_before_anything_is_begun(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["node", "--id", "a", "--data", str(tmp_path / "a"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "a" / "identity").exists()


def test_a_port_that_is_taken_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["node", "--id", "a", "--data", str(tmp_path / "a"), "--members", f"a={where}"]) == 3
    assert f"cannot listen on {where}" in capsys.readouterr().err


def test_a_folder_of_another_member_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", str(tmp_path / "a"), "--listen", place()]
    child = atoll_node("--id", "a", "--members", f"a={place()}", *words)
    assert child.stdout is not None and child.stdout.readline()
    child.kill()
    ended(child)
    assert main(["node", "--id", "b", "--members", f"b={place()}", *words]) == 2
    assert "is that of the member 'a'" in capsys.readouterr().err


async def test_a_node_serves_inside_its_block_in_a_process_of_its_own(tmp_path: Path) -> None:
    where = place()
    async with Node(id="a", members={"a": where}, data=tmp_path / "a") as node:
        assert node.place == where and node.pid not in (None, os.getpid())
        pid = node.pid
        with pytest.raises(ConfigurationError, match="in use by pid"):
            async with Node(id="a", members={"a": where}, data=tmp_path / "a"):
                pass
    assert node.pid is None and pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_node_that_is_killed_is_told_of(tmp_path: Path) -> None:
    async with Node(id="a", members=f"a={place()}", data=tmp_path / "a") as node:
        assert node.pid is not None
        os.kill(node.pid, signal.SIGKILL)
        assert "ended with -9" in await node.ended()


def test_a_node_is_refused_where_its_options_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not among --members"):
        Node(id="x", members=f"a={place()}", data=tmp_path / "a")
    with pytest.raises(ConfigurationError, match="expected all three, or none"):
        Node(id="a", members=f"a={place()}", data=tmp_path / "a", ca="x")


PARENT = """
import asyncio, sys
from atoll.engines.raft import Node

async def main():
    async with Node(id="a", members=sys.argv[1], data=sys.argv[2]) as node:
        print(node.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def test_a_node_ends_with_its_program_however_that_ends(tmp_path: Path) -> None:
    words = [f"a={place()}", str(tmp_path / "a")]
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *words], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate(timeout=START_S)
    asyncio.run(gone(pid))


async def gone(pid: int) -> None:
    async with asyncio.timeout(START_S):
        while True:
            try:
                os.kill(pid, 0)
                with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                    if file.read().rpartition(") ")[2].startswith("Z"):
                        return
            except (ProcessLookupError, FileNotFoundError):
                return
            await asyncio.sleep(0.02)
