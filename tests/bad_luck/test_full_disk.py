"""Bad luck: a disk that fills up under a running app, and room that is made later.

Every block says DiskFull, loses nothing it has answered for, and goes on by itself when there is room.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest
from command import clean

import atoll
from atoll import Delivery, DiskFull, Lock, LockLost, Outbox, Queue, ReadOnly, Transactions
from atoll.blocks.work import work
from atoll.errors import NotApplied, OutcomeUnknown
from atoll.ports.store import put


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no right to mount a tmpfs here: run as root, or in a user namespace")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def reserve(folder: Path) -> None:
    """Room that is given back by removing the ballast, whatever else takes the rest."""
    (folder / "ballast").write_bytes(b"x" * 1_000_000)


def fill(folder: Path) -> Path:
    """Take all the room there is."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return ballast


async def until_full(write: Any) -> int:
    """Repeat until the disk says so; answers how many were accepted."""
    accepted = 0
    while True:
        try:
            await write(accepted)
        except DiskFull:
            return accepted
        accepted += 1
        assert accepted < 5000, "it never said that it was full"


async def test_a_queue_keeps_what_it_accepted_and_its_worker_goes_on_when_there_is_room(small: Path) -> None:
    jobs: Queue[str] = Queue(atoll.broker(f"sqlite:///{small}/q.db"), "jobs", str)
    done: set[str] = set()

    @jobs.worker(concurrency=4, recovery_s=0.5, attempts=1000, retry_s=0.0)
    async def body(message: str, delivery: Delivery) -> None:
        done.add(delivery.id)

    accepted = {await jobs.put("x" * 10_000) for _ in range(10)}
    ballast = fill(small)
    refused = 0
    for _ in range(200):  # what room is left in the log itself is used up first
        try:
            accepted.add(await jobs.put("y" * 10_000))
        except DiskFull:
            refused += 1
            if refused == 3:
                break
    assert refused == 3
    working = asyncio.create_task(work([jobs], drain_s=5))
    await asyncio.sleep(0.5)  # under the full disk it may do some or none
    assert not working.done()
    ballast.unlink()
    async with asyncio.timeout(40):
        while done < accepted or await waiting(jobs):
            await asyncio.sleep(0.02)
    assert done == accepted
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await jobs.broker.close()
    assert integrity(small / "q.db") == "ok"


async def waiting(jobs: Queue[Any]) -> int:
    assert jobs.broker.inspecting is not None
    return sum(d.ready + d.delayed + d.leased + d.dead for d in await jobs.broker.inspecting.depths())


async def test_a_lock_is_refused_or_lost_aloud_and_can_be_taken_when_there_is_room(small: Path) -> None:
    state = atoll.store(f"sqlite:///{small}/s.db")
    reserve(small)
    await until_full(lambda n: state.transact(put(f"k{n}", b"x" * 50_000)))
    ballast = fill(small)
    held = refused = 0
    for number in range(300):
        try:
            async with asyncio.timeout(20):
                async with Lock(state, f"name/{number}", ttl_s=0.6, wait_s=0):
                    held += 1
        except (NotApplied, OutcomeUnknown) as error:
            assert isinstance(error, DiskFull), error
            refused += 1
            if refused == 2:
                break
        except LockLost:
            refused += 1
    assert refused, f"{held} locks were taken on a full disk"
    with suppress(LockLost, DiskFull):
        async with asyncio.timeout(20):
            async with Lock(state, "long", ttl_s=0.6, wait_s=0):
                await asyncio.sleep(5)
                pytest.fail("a lease that cannot be renewed was held for ever")
    ballast.unlink()
    async with asyncio.timeout(20):
        async with Lock(state, "name/0", ttl_s=5, wait_s=10):
            pass
    await state.close()
    assert integrity(small / "s.db") == "ok"


async def test_an_outbox_keeps_what_was_committed_until_its_broker_has_room(
    small: Path, tmp_path: Path
) -> None:
    jobs: Queue[str] = Queue(atoll.broker(f"sqlite:///{small}/q.db"), "letters-on-a-full-disk", str)
    shop = atoll.database(f"sqlite:///{tmp_path}/shop.db")
    outbox = Outbox(shop)
    reserve(small)
    fillers = await until_full(lambda n: jobs.put("x" * 50_000, id=f"filler-{n}"))
    ballast = fill(small)
    for _ in range(20):
        async with shop.begin() as db:
            await outbox.put(db, jobs, "y" * 5_000)
    relay = asyncio.create_task(outbox.relay())
    await asyncio.sleep(0.3)
    assert not relay.done() and (await shop.relaying.waiting())[0] > 0
    ballast.unlink()
    async with asyncio.timeout(15):  # shorter than a claim: nobody waits for that to end
        while (await shop.relaying.waiting())[0]:
            await asyncio.sleep(0.05)
    relay.cancel()
    await asyncio.gather(relay, return_exceptions=True)
    assert await waiting(jobs) == fillers + 20
    await jobs.broker.close()
    await shop.close()


@pytest.mark.parametrize("full", ["the state", "a database"])
async def test_a_transaction_over_two_files_is_all_or_nothing_on_a_full_disk(
    full: str, small: Path, tmp_path: Path
) -> None:
    homes = {
        "state": tmp_path,
        "a": tmp_path,
        "b": tmp_path,
        **({"state": small} if full == "the state" else {"b": small}),
    }
    state = atoll.store(f"sqlite:///{homes['state']}/state.db")
    a = atoll.database(f"sqlite:///{homes['a']}/a.db", name="a")
    b = atoll.database(f"sqlite:///{homes['b']}/b.db", name="b")
    for database in (a, b):
        async with database, database.begin() as db:
            await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")
    moves = Transactions(state, a, b, app="bank")
    said: dict[int, str] = {}

    async def one(number: int) -> None:
        try:
            async with moves.begin() as tx:
                for database in (a, b):
                    db = await tx.join(database)
                    await db.execute("INSERT INTO t VALUES (?, ?)", (number, b"x" * 20_000))
            said[number] = "yes"
        except NotApplied as error:
            said[number] = f"no: {type(error).__name__}"
        except OutcomeUnknown:
            said[number] = "unknown"

    await one(0)
    ballast = fill(small)
    for number in range(1, 40):
        async with asyncio.timeout(30):
            await one(number)
        if sum(answer != "yes" for answer in said.values()) >= 3:
            break
    assert said[0] == "yes" and any(answer != "yes" for answer in said.values()), said
    ballast.unlink()
    recovering = asyncio.create_task(moves.recover())
    async with asyncio.timeout(60):
        while await moves.in_doubt():
            await asyncio.sleep(0.05)
        while True:  # work goes on
            await one(1000 + len(said))
            if list(said.values())[-1] == "yes":
                break
    recovering.cancel()
    await asyncio.gather(recovering, return_exceptions=True)
    rows = []
    for database in (a, b):
        async with database.begin() as db:
            rows.append({row[0] for row in await db.execute("SELECT id FROM t")})
    assert rows[0] == rows[1], "half a transaction stands"
    for number, answer in said.items():
        assert answer == "unknown" or (number in rows[0]) == (answer == "yes"), (number, answer)
    for thing in (state, a, b):
        await thing.close()


async def test_a_folder_that_may_only_be_read_is_said_so_by_every_door(small: Path) -> None:
    async with atoll.store(f"sqlite:///{small}/x.db") as store:
        await store.transact(put("k", b"v"))
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    for door in (atoll.store, atoll.broker, atoll.tier, atoll.database):
        thing: Any = door(f"sqlite:///{small}/x.db")
        with pytest.raises(ReadOnly, match="may be read but not written here"):
            await thing.open()
    for verb in ("locks", "queue", "transactions"):
        done = subprocess.run(
            [sys.executable, "-m", "atoll", verb, f"sqlite:///{small}/x.db"],
            capture_output=True, text=True, timeout=60, env=clean(),
        )  # fmt: skip
        assert done.returncode == 3 and "may be read but not written" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def integrity(path: Path) -> str:
    connection = apsw.Connection(str(path))
    try:
        return str(connection.pragma("integrity_check"))
    finally:
        connection.close()
