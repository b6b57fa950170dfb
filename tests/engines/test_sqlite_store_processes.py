"""The SQLite store between processes: no lost update, nothing lost by a kill, news within moments, forks."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from disk import integrity
from processes import line, process

from atoll import clock, errors
from atoll.engines.sqlite.file import SqliteFile
from atoll.engines.sqlite.store import SqliteStore
from atoll.ports.register import Applied
from atoll.ports.store import put

COUNT = """
async def main():
    store = SqliteStore(path)
    done = 0
    while done < int(arguments[0]):
        entry, _ = await store.get("counter")
        value = int(entry.value) if entry else 0
        answer = await store.put_if("counter", b"%d" % (value + 1), entry.revision if entry else 0)
        done += type(answer).__name__ == "Applied"
    await store.close()
    print("done")
asyncio.run(main())
"""

LOAD = """
async def main():
    store = SqliteStore(path)
    async def one(w):
        for n in range(100000):
            await store.transact(put(f"{arguments[0]}/{w}/{n}", b"x" * 50))
            print(f"{arguments[0]}/{w}/{n}", flush=True)
    await asyncio.gather(*(one(w) for w in range(8)))
asyncio.run(main())
"""

HOLD = """
async def main():
    store = SqliteStore(path)
    lease, _ = await store.leasing.grant(float(arguments[0]))
    await store.transact(put("held", b"me", lease=lease))
    print("held", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""

ECHO = """
async def main():
    store = SqliteStore(path)
    async for news in store.observe("question/"):
        for entry in news.changed:
            await store.transact(put("answer/" + entry.key[9:], entry.value))
asyncio.run(main())
"""


async def in_thread(work: Any, *arguments: Any) -> Any:
    return await asyncio.to_thread(work, *arguments)


async def test_four_processes_count_without_losing_one(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    with ExitStack() as stack:
        children = [stack.enter_context(process(COUNT, path, 60)) for _ in range(4)]
        assert [await in_thread(line, child) for child in children] == ["done"] * 4
    async with SqliteStore(path) as store:
        entry, revision = await store.get("counter")
        assert entry and (int(entry.value), revision) == (240, 240)


async def test_a_kill_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    async with SqliteStore(path) as store:
        answered: set[str] = set()
        for round in range(3):
            with process(LOAD, path, round) as child:
                for _ in range(100):
                    answered.add(await in_thread(line, child))
                child.send_signal(signal.SIGKILL)
                assert child.stdout
                rest = (await in_thread(child.stdout.read)).split("\n")
                answered |= set(rest[:-1])  # the last line may be torn
        found = {entry.key for entry in (await store.range("", limit=1_000_000)).entries}
        assert len(answered) >= 300 and answered <= found
    assert integrity(path) == "ok"


async def test_what_a_killed_process_held_comes_free_in_time(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    async with SqliteStore(path) as store:
        with process(HOLD, path, 0.5) as child:
            assert await in_thread(line, child) == "held"
        ends = clock.lease_now() + 0.5
        async for news in store.observe("held"):
            if not news.reset and news.removed:
                break
            if news.reset and not news.changed:
                break
        assert clock.lease_now() < ends + (await store.open()).expiry_late_max_s


async def test_news_travels_between_processes_both_ways(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    with process(ECHO, path):
        async with SqliteStore(path) as store:
            answers = store.observe("answer/")
            await anext(answers)
            took: list[float] = []
            for number in range(20):
                since = clock.loop_now()
                await store.transact(put(f"question/{number}", b"?"))
                async with asyncio.timeout(20):
                    while not any(e.key == f"answer/{number}" for e in (await anext(answers)).changed):
                        pass
                took.append(clock.loop_now() - since)
            print(f"there and back, ms: median {sorted(took)[10] * 1000:.1f}, worst {max(took) * 1000:.1f}")


def answer_of_child(work: Any) -> str:
    """What `work` returns in a forked child of this process."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(write, str(work()).encode())
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def test_a_forked_child_opens_the_file_anew_and_both_go_on(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "x.db"))

    async def write(name: str) -> int:
        for number in range(20):
            await store.transact(put(f"{name}{number}", b"x"))
        return len((await store.range("")).entries)

    assert asyncio.run(write("before")) == 20
    assert answer_of_child(lambda: asyncio.run(write("child"))) == "40"
    assert asyncio.run(write("after")) == 60
    assert answer_of_child(lambda: answer_of_child(lambda: asyncio.run(write("grandchild")))) == "80"
    asyncio.run(store.close())
    assert integrity(tmp_path / "x.db") == "ok"


def test_children_forked_under_load_write_beside_their_parent(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "x.db"))

    async def write(name: str, many: int) -> str:
        await asyncio.gather(*(store.transact(put(f"{name}/{n}", b"x")) for n in range(many)))
        return "ok"

    async def parent() -> list[str]:
        load = [asyncio.create_task(write(f"parent{n}", 20)) for n in range(10)]
        await asyncio.sleep(0)
        forks = [
            asyncio.to_thread(answer_of_child, lambda n=n: asyncio.run(write(f"child{n}", 20)))
            for n in range(3)
        ]
        answers = await asyncio.gather(*forks)
        await asyncio.gather(*load)
        assert len((await store.range("")).entries) == 260
        await store.close()
        return answers

    assert asyncio.run(parent()) == ["ok"] * 3
    assert integrity(tmp_path / "x.db") == "ok"


def test_a_child_forked_in_the_midst_of_a_transaction_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "x.db"))
    asyncio.run(store.open())
    file = SqliteFile.shared(store.path)
    session = file.connect()
    session.execute("BEGIN")

    async def use() -> Any:
        return await store.transact(put("a", b"1"))

    assert "forked while a transaction was open" in answer_of_child(lambda: asyncio.run(use()))
    session.close()
    assert isinstance(asyncio.run(use()), Applied)
    assert "Applied" in answer_of_child(lambda: asyncio.run(use()))
    asyncio.run(file.release())
    asyncio.run(store.close())


async def test_closing_ends_a_watch_and_a_verb_opens_again(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "x.db"))
    watch = store.observe("")
    await anext(watch)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0.01)
    await store.close()
    with pytest.raises(errors.WatchLost, match="closed"):
        async with asyncio.timeout(5):
            await waiting
    assert isinstance(await store.transact(put("a", b"1")), Applied)
    await store.close()
