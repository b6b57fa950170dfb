"""A crowd of Raft members for the tests: real child processes, each with a desk that says what it is told.

Run as a script it is one member; imported it starts, kills, stops and asks them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from atoll import clock
from atoll.algorithms.raft.messages import Membership
from atoll.engines.raft import command
from atoll.engines.raft.connection import Connection, dial
from atoll.engines.raft.frames import FORMAT, FORMAT_OLDEST, MAGIC, Caller, Hello, pack
from atoll.verify.servers.process import free_port

WITHIN_S = 20.0
decode = msgspec.msgpack.decode


class PlainDesk:
    """Answers [number, ok, result] to [number, verb, *words], in any order."""

    def __init__(self, consensus: Any) -> None:
        self.consensus = consensus
        self.tasks: set[asyncio.Task[None]] = set()

    def welcome(self, connection: Connection, hello: Hello) -> None:
        connection.on_frame = self.frame
        connection.on_lost = lambda *_: None

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()

    def frame(self, connection: Connection, body: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self.answer(connection, *decode(body)))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def answer(self, connection: Connection, number: int, verb: str, *words: Any) -> None:
        try:
            said = [number, True, await getattr(self, verb)(*words)]
        except Exception as error:
            said = [number, False, [type(error).__name__, str(error)]]
        connection.send(pack(said))

    async def put(self, key: str, value: bytes) -> None:
        await self.raw(command.pack([command.Transact(((key, value, None),))]))

    async def put_within(self, seconds: float, key: str) -> None:
        with clock.deadline(seconds):
            await self.put(key, b"v")

    async def raw(self, data: bytes) -> bytes:
        return await self.consensus.propose(command.stamp(data, clock.wall_now()))

    async def keys(self) -> list[str]:
        await self.consensus.read_barrier()
        return [entry.key for entry in self.consensus.state.range("", None, None, -1).entries]

    async def hash(self) -> list[Any]:
        return list(self.consensus.state.hash())

    async def status(self) -> dict[str, Any]:
        return {**self.consensus.status(), "machine": None, "pid": os.getpid(), "rss_kb": rss_kb(os.getpid())}

    async def transfer(self, target: str) -> None:
        await self.consensus.transfer(target)

    async def change(self, voters: list[str], learners: list[str], places: dict[str, str]) -> None:
        await self.consensus.change(Membership(tuple(voters), tuple(learners), (), places))

    async def snapshot(self) -> int:
        return (await self.consensus.snapshot()).index


def rss_kb(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


class Failed(Exception):
    """A member answered with an error: its kind and sentence."""

    @property
    def kind(self) -> str:
        return str(self.args[0])


class Client:
    """One connection to one member."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[Any]] = {}
        self.count = 0
        self.connection: Connection | None = None

    async def go(self, place: str, tls: Any = None) -> Client:
        hello = Hello(MAGIC, FORMAT_OLDEST, FORMAT, "", Caller.CLIENT, "a test")
        self.connection, _ = await dial(place, hello, self.frame, self.lost, tls=tls)
        return self

    def frame(self, connection: Connection, body: bytes) -> None:
        number, ok, said = decode(body)
        future = self.waiting.pop(number)
        if not future.done():
            future.set_result(said) if ok else future.set_exception(Failed(*said))

    def lost(self, connection: Connection, why: str) -> None:
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(Failed("Lost", why))
        self.waiting.clear()

    def ask(self, verb: str, *words: Any) -> asyncio.Future[Any]:
        assert self.connection is not None
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.connection.closed:
            future.set_exception(Failed("Lost", "closed before"))
            return future
        self.count += 1
        self.waiting[self.count] = future
        self.connection.send(pack([self.count, verb, *words]))
        return future

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()


class Crowd:
    """Members by name. `places` and `folder` of each; `log(name)` is what it printed."""

    def __init__(self, folder: Path, names: Iterable[str] = "abc") -> None:
        self.folder = folder
        self.places = {name: f"127.0.0.1:{free_port()}" for name in names}
        self.first = dict(self.places)
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.clients: dict[str, Client] = {}

    def start(self, name: str, *, data: str = "", **words: Any) -> subprocess.Popen[bytes]:
        """Start one; `words` are those of MemberOptions.of beside id and data. It may not be ready yet."""
        words = words or {"members": self.first}
        told = msgspec.json.encode({"id": name, "data": str(self.folder / (data or name)), **words})
        with open(self.folder / f"{data or name}.log", "ab") as log:
            child = subprocess.Popen(
                [sys.executable, __file__, told.decode(), str(os.getpid())], stdout=log, stderr=log
            )
        self.children[data or name] = child
        return child

    async def client(self, name: str) -> Client:
        """A connection to `name`, made when it is needed."""
        known = self.clients.get(name)
        if known is not None and known.connection is not None and not known.connection.closed:
            return known

        async def dialled() -> Client:
            self.must_live(name)
            return await Client().go(self.places[name])

        self.clients[name] = await until(dialled)
        return self.clients[name]

    def must_live(self, name: str) -> None:
        """Fail at once, with its own last words, where a member that is asked has ended."""
        if (child := self.children.get(name)) is not None and child.poll() is not None:
            import pytest

            pytest.fail(f"{name} ended with {child.returncode}: {self.log(name)[-3000:]}")

    async def ask(self, name: str, verb: str, *words: Any) -> Any:
        """Ask one member one thing."""
        async with asyncio.timeout(WITHIN_S):
            return await (await self.client(name)).ask(verb, *words)

    async def leader(self, among: Iterable[str] = (), *, but: str = "") -> str:
        """Who leads, by the newest term, as soon as one that is asked says so of itself."""
        names = list(among) or [name for name in self.first if self.children[name].poll() is None]

        async def look() -> str:
            found = [await self.ask(name, "status") for name in names if name != but]
            leaders = [said for said in found if said["role"] == "leader"]
            newest = max(found, key=lambda said: said["term"])
            if not leaders or max(said["term"] for said in leaders) < newest["term"]:
                raise Failed("NobodyLeads")
            return str(max(leaders, key=lambda said: said["term"])["name"])

        return await until(look)

    async def first_leader(self) -> str:
        """As `leader`, right after the start: a member that ended is told of by its own words."""
        look = asyncio.ensure_future(self.leader())
        while not look.done():
            for name in self.children:
                self.must_live(name)
            await asyncio.wait([look], timeout=0.1)
        return look.result()

    async def follower(self) -> str:
        """One that does not lead."""
        leader = await self.leader()
        return next(name for name in self.first if name != leader)

    async def put(self, key: str, value: bytes = b"v", *, among: Iterable[str] = ()) -> None:
        """Write until it is acknowledged."""

        async def once() -> None:
            await self.ask(await self.leader(among), "put", key, value)

        await until(once)

    def signal(self, name: str, number: int) -> None:
        self.children[name].send_signal(number)

    async def kill(self, name: str) -> None:
        self.signal(name, signal.SIGKILL)
        await self.gone(name)

    async def gone(self, name: str) -> int:
        """Wait until the process has ended; its exit code."""
        async with asyncio.timeout(WITHIN_S):
            while (code := self.children[name].poll()) is None:
                await asyncio.sleep(0.01)
        return code

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    async def said(self, name: str, words: str) -> str:
        """Wait until the log of `name` has `words`; the log."""

        async def look() -> str:
            if words not in (text := self.log(name)):
                raise Failed("NotSaid", words)
            return text

        return await until(look)

    async def same(self, names: Iterable[str]) -> None:
        """Wait until the states of `names` are equal, to the byte."""

        async def look() -> None:
            hashes = [await self.ask(name, "hash") for name in names]
            if any(one != hashes[0] for one in hashes):
                raise Failed("Differ", str(hashes))

        await until(look)

    def stall(self, name: str, on: bool = True) -> None:
        """Let the disk under the log of `name` take no forced write, or take them again."""
        sign = self.folder / f"{name}.stall"
        sign.touch() if on else sign.unlink(missing_ok=True)

    def hang_up(self) -> None:
        for client in self.clients.values():
            client.close()
        self.clients.clear()

    def end(self) -> None:
        self.hang_up()
        for child in self.children.values():
            child.kill()
        for child in self.children.values():
            child.wait()


async def until(look: Callable[[], Any], within_s: float = WITHIN_S) -> Any:
    """What `look` answers once it does not raise."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                return await look()
            except TimeoutError:
                raise
            except Exception as error:
                last = error
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError as cancelled:
                raise cancelled from last


@asynccontextmanager
async def crowd(folder: Path, names: str = "abc", **words: Any) -> AsyncIterator[Crowd]:
    """Started members of which one leads; ended whatever happens."""
    members = Crowd(folder, names)
    try:
        for name in names:
            members.start(name, **({"members": members.first, **words} if words else {}))
        await members.first_leader()
        yield members
    finally:
        members.end()


async def serve(words: dict[str, Any]) -> None:
    from atoll.engines.raft import files, foreground
    from atoll.engines.raft.folder import DataFolder, FolderOptions
    from atoll.engines.raft.member_options import Compaction, MemberOptions
    from atoll.engines.raft.wal import LogOptions

    if "compaction" in words:
        words["compaction"] = Compaction(**words["compaction"])
    if words.get("tls"):
        words["tls"] = tuple(words["tls"])
    stall = Path(words["data"] + ".stall")

    def force(descriptor: int) -> None:
        while stall.exists():
            time.sleep(0.01)
        files.force(descriptor)

    options = MemberOptions.of(words.pop("id"), words.pop("data"), **words)
    folder = DataFolder(options.data, FolderOptions(log=LogOptions(force=force)))

    def ready(about: object) -> None:
        print("ready", about, flush=True)

    why = await foreground.run(options, ready, desk=PlainDesk, prepared=folder)
    if why:
        print(why, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    import ctypes
    import logging

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(sys.argv[2]):
        sys.exit(1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(message)s", stream=sys.stderr)
    asyncio.run(serve(msgspec.json.decode(sys.argv[1])))
