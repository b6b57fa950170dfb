"""3.4: what verify must catch: each of these is broken on purpose, and is found out."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from broken_stores import (
    AGapInTheChanges,
    AnswersLostAreCalledNotSent,
    Broken,
    GuardBeforeTheTransaction,
    LaggingReplica,
    judged,
)

import atoll
import servers
from atoll.ports.register import Applied
from atoll.ports.store import Put
from atoll.verify import lock_history
from atoll.verify.history import History, Holding, Transaction, Type, load
from atoll.verify.judgement import Answer
from atoll.verify.power import mount
from atoll.verify.power.mount import PowerDisk
from atoll.verify.run import Wish, run
from atoll.verify.servers.redis import client_of
from atoll.verify.workloads import set as sets

needs_disk = pytest.mark.skipif(bool(mount.missing()), reason=mount.missing() or "-")


@pytest.mark.parametrize(
    ("workload", "broken", "rules"),
    [
        ("register", LaggingReplica, {"stale answer", "stale read"}),
        ("register", AnswersLostAreCalledNotSent, {"not applied, yet seen"}),
        ("observe", AGapInTheChanges, {"gap in the changes"}),
        ("lock", GuardBeforeTheTransaction, {"stale write accepted"}),
        ("election", GuardBeforeTheTransaction, {"stale write accepted"}),
    ],
)
async def test_a_broken_store_is_found_out(workload: str, broken: type[Broken], rules: set[str]) -> None:
    seconds = 2.5 if broken is GuardBeforeTheTransaction else 0.8
    judgement = await judged(workload, broken(atoll.store("memory://")), seconds=seconds)
    assert judgement.answer is Answer.NO
    assert judgement.rules() & rules, judgement.rules()


@pytest.mark.parametrize("workload", ["register", "set", "counter", "observe", "lock", "election"])
async def test_the_same_wrapper_unbroken_is_not_accused(workload: str) -> None:
    judgement = await judged(workload, Broken(atoll.store("memory://")))
    assert judgement.violations == []


PLAIN_LOCK = """
import asyncio, sys, time
from pathlib import Path
from atoll.ports.register import Applied
from atoll.verify.history import History, Holding, Type
from atoll.verify.servers.redis import client_of

async def main(port, name, path):
    book, redis = History(path=Path(path)), client_of(int(port))
    until = time.monotonic() + 3
    while time.monotonic() < until:
        wish = book.begin(name, "acquired", "lock")
        if not await redis.set("lock", name, nx=True, px=300):
            book.end(wish, Type.FAIL, error="Taken")
            await asyncio.sleep(0.02)
            continue
        holding = Holding("lock", 1, await redis.incr("token"))
        book.end(wish, Type.OK, holding)
        for _ in range(10):                      # "I hold it": nobody asks again
            call = book.begin(name, "guarded", holding)
            revision = await redis.incr("writes")
            book.end(call, Type.OK, Applied(revision), revision=revision)
            await asyncio.sleep(0.01)
        if await redis.get("lock") == name.encode():
            await redis.delete("lock")
        await asyncio.sleep(0.005)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_lock_of_setnx_and_a_ttl_lets_a_frozen_holder_write(tmp_path: Path) -> None:
    async with servers.server("redis") as cluster:
        port = cluster.url.rpartition(":")[2]
        paths = {name: tmp_path / f"{name}.jsonl" for name in ("a1", "s1")}
        children = {
            name: await asyncio.create_subprocess_exec(
                sys.executable, "-c", PLAIN_LOCK, port, name, str(path)
            )
            for name, path in paths.items()
        }
        redis, frozen = client_of(int(port)), children["s1"]
        for _ in range(2):
            async with asyncio.timeout(5):
                while await redis.get("lock") != b"s1":
                    await asyncio.sleep(0.001)
            os.kill(frozen.pid, signal.SIGSTOP)
            try:
                before = int(await redis.get("token") or 0)
                async with asyncio.timeout(5):
                    while int(await redis.get("token") or 0) <= before:  # its TTL ran out: another holds it
                        await asyncio.sleep(0.005)
                    await asyncio.sleep(0.02)
            finally:
                os.kill(frozen.pid, signal.SIGCONT)
        await redis.aclose()
        assert [await child.wait() for child in children.values()] == [0, 0]
    judgement = lock_history.judge(load(paths.values()))
    assert "stale write accepted" in judgement.rules()
    assert judgement.counts["refused"] == 0


async def test_a_token_that_is_the_place_in_the_queue_goes_down_at_a_hand_over() -> None:
    """B queues, C queues, the leader hands over to C by name; then B leads with an older number."""
    book = History()
    async with atoll.store("memory://") as store:
        places: dict[str, int] = {}
        for name in ("a", "b", "c"):
            placed = await store.transact(atoll.put(f"queue/{name}", name.encode()))
            places[name] = placed.revision
        for name in ("a", "c", "b"):
            wish = book.begin(name, "acquired", "lead")
            taken = await store.transact(atoll.put("owner", name.encode()))
            book.end(wish, Type.OK, Holding("lead", 1, places[name]))
            call = book.begin(name, "guarded", Holding("lead", 1, places[name]))
            wrote = await store.transact(atoll.put("course", name.encode()))
            assert isinstance(wrote, Applied) and isinstance(taken, Applied)
            book.end(call, Type.OK, wrote, revision=wrote.revision)
    assert lock_history.judge(book).rules() == {"token goes down", "stale write accepted"}


@needs_disk
async def test_redis_that_syncs_every_second_loses_acknowledged_writes_in_a_power_cut() -> None:
    servers.expect("redis")
    wish = Wish(start="redis?appendfsync=everysec", workloads=("power",), seconds=3.5, seed=3)
    [line] = (await run(wish)).lines
    assert line.answer is Answer.NO and line.judgement is not None, line.figures
    assert line.judgement.counts["lost"] > 0
    assert line.verdict == "not promised", "it does not claim to be durable, and verify shows why"


@needs_disk
async def test_nats_with_its_defaults_loses_acknowledged_messages_in_a_power_cut(tmp_path: Path) -> None:
    servers.expect("nats")
    from atoll.verify import servers as product

    book = History()
    async with PowerDisk(tmp_path) as disk, await product.start("nats", disk.path) as cluster:
        await disk.settle()
        url = cluster.url.rpartition("/")[0]
        await publish(url, book)
        for member in cluster.members:
            member.kill()
        assert (await disk.cut()).undone_bytes > 0
        for member in cluster.members:
            await member.start()
        book.note("last", "members", "", await recount(url))
    judgement = sets.judge(book)
    assert judgement.counts["added"] == 300
    assert judgement.counts["lost"] > 0


async def publish(url: str, book: History) -> None:
    nats = pytest.importorskip("nats")
    connection = await nats.connect(url)
    stream = connection.jetstream()
    await stream.add_stream(name="acks", subjects=["acks"])
    for number in range(300):
        text = f"m{number}"
        call = book.begin("a", "transact", Transaction((Put(text, text.encode()),)))
        acknowledged = await stream.publish("acks", text.encode())
        book.end(call, Type.OK, Applied(acknowledged.seq), revision=acknowledged.seq)
    await connection.close()


async def recount(url: str) -> dict[str, str]:
    import nats

    connection = await nats.connect(url)
    stream = connection.jetstream()
    found: dict[str, Any] = {}
    try:
        state = (await stream.stream_info("acks")).state
        for number in range(state.first_seq, state.last_seq + 1):
            text = (await stream.get_msg("acks", number)).data.decode()
            found[text] = text
    except nats.js.errors.NotFoundError:
        pass
    finally:
        await connection.close()
    return found
