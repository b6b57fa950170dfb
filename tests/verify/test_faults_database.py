"""B7: the points of a transaction on a real file: each prepare, commit, outbox, inbox, before and after."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import atoll
from atoll.errors import ConfigurationError, NotSent, OutcomeUnknown
from atoll.ports.broker import Message
from atoll.ports.joined import joined_on
from atoll.ports.participant import Finished, Outcome
from atoll.verify.faults import hits

CHILD = """
import asyncio, sys, atoll
from atoll.ports.broker import Message
from atoll.ports.joined import joined_on
from atoll.ports.participant import Outcome

async def main():
    database = atoll.database(sys.argv[1])
    await database.open()
    async with database.begin() as tx:
        if await database.joined.once(tx, "work", "m1"):
            await tx.execute("insert into t values(1)")
            await joined_on(tx).put(tx, "q", [Message(id="m2", body=b"x")])
    for staged in await database.relaying.staged(10, claim_s=0, queues=["q"]):
        await database.relaying.forget([staged.position])
    for id, outcome in (("x/1", Outcome.COMMIT), ("x/2", Outcome.ABORT)):
        branch = await database.participant.begin(id)
        await branch.tx.execute("insert into t values(?)", (int(id[-1]) + 1,))
        await branch.prepare()
        await database.participant.finish(id, outcome)

asyncio.run(main())
"""

# What a process that died at the point leaves: the rows, the prepared branches, whether m2 is still staged.
LEAVES: dict[str, tuple[list[int], list[str], bool]] = {
    "before-transaction": ([], [], False),
    "after-transaction": ([], [], False),
    "before-joined-once": ([], [], False),
    "after-joined-once": ([], [], False),
    "before-joined-put": ([], [], False),
    "after-joined-put": ([], [], False),
    "before-commit": ([], [], False),
    "after-commit": ([1], [], True),
    "before-staged": ([1], [], True),
    "after-staged": ([1], [], True),
    "before-forget": ([1], [], True),
    "after-forget": ([1], [], False),
    "before-begin": ([1], [], False),
    "after-begin": ([1], [], False),
    "before-prepare": ([1], [], False),
    "after-prepare": ([1], ["x/1"], False),
    "before-finish-commit": ([1], ["x/1"], False),
    "after-finish-commit": ([1, 2], [], False),
    "after-prepare:2": ([1, 2], ["x/2"], False),
    "before-finish-abort": ([1, 2], ["x/2"], False),
    "after-finish-abort": ([1, 2], [], False),
}


@pytest.fixture(autouse=True)
def faults_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOLL_FAULTS", "1")


async def rows(database: Any) -> list[int]:
    async with database.read() as tx:
        return [row[0] for row in await tx.execute("select x from t order by x")]


async def make(path: Path, options: str = "") -> Any:
    plain = atoll.database(f"sqlite:///{path}")
    async with plain, plain.begin() as tx:
        await tx.execute("create table t(x integer primary key)")
    return atoll.database(f"{'faulty+' if options else ''}sqlite:///{path}{options}")


@pytest.mark.parametrize("point", LEAVES)
async def test_a_process_killed_at_a_point_leaves_exactly_what_was_forced(point: str, tmp_path: Path) -> None:
    plain = await make(tmp_path / "a.db")
    marks = tmp_path / "hits"
    url = f"faulty+sqlite:///{tmp_path / 'a.db'}?fault_kill={point}&fault_once_dir={marks}"
    died = subprocess.run([sys.executable, "-c", CHILD, url], capture_output=True, text=True, timeout=60)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert [hit.point for hit in hits(marks)] == [f"kill={point}"]

    async with plain:
        there, in_doubt, staged = LEAVES[point]
        assert await rows(plain) == there
        assert [branch.id for branch in await plain.participant.in_doubt("x/")] == in_doubt
        assert (await plain.relaying.waiting())[0] == int(staged)


async def test_without_points_the_same_program_runs_to_its_end(tmp_path: Path) -> None:
    plain = await make(tmp_path / "a.db")
    url = f"faulty+sqlite:///{tmp_path / 'a.db'}"
    ran = subprocess.run([sys.executable, "-c", CHILD, url], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    async with plain:
        assert await rows(plain) == [1, 2]


async def test_a_lost_answer_to_a_commit_is_unknown_and_committed(tmp_path: Path) -> None:
    database = await make(tmp_path / "a.db", "?fault_reply_lost=commit:1&fault_request_lost=commit:2")
    async with database:
        with pytest.raises(OutcomeUnknown):
            async with database.begin() as tx:
                await tx.execute("insert into t values(1)")
        with pytest.raises(OutcomeUnknown):
            async with database.begin() as tx:
                await tx.execute("insert into t values(2)")
        async with database.begin() as tx:
            await tx.execute("insert into t values(3)")
        assert await rows(database) == [1, 3]


async def test_a_body_that_raises_is_rolled_back_through_the_door(tmp_path: Path) -> None:
    database = await make(tmp_path / "a.db", "?fault_not_sent=staged")
    async with database:
        with pytest.raises(KeyError):
            async with database.begin() as tx:
                await tx.execute("insert into t values(1)")
                raise KeyError("mine")
        assert await rows(database) == []
        with pytest.raises(NotSent):
            await database.relaying.staged(1, claim_s=1, queues=["q"])


async def test_a_lost_answer_to_a_finish_is_settled_by_asking_again(tmp_path: Path) -> None:
    database = await make(tmp_path / "a.db", "?fault_reply_lost=finish-commit:1")
    async with database:
        branch = await database.participant.begin("x/1")
        await branch.tx.execute("insert into t values(1)")
        await branch.prepare()
        with pytest.raises(OutcomeUnknown) as raised:
            await database.participant.finish("x/1", Outcome.COMMIT)
        assert raised.value.id == "x/1"
        assert await database.participant.finish("x/1", Outcome.COMMIT) is Finished.ABSENT
        assert await rows(database) == [1]


async def test_blocks_that_ask_for_the_joined_of_a_bare_transaction_meet_the_door(tmp_path: Path) -> None:
    database = await make(tmp_path / "a.db", "?fault_not_sent=joined-put")
    async with database:
        async with database.begin() as tx:
            with pytest.raises(NotSent):
                await joined_on(tx).put(tx, "q", [Message(id="1", body=b"")])
        branch = await database.participant.begin("x/1")
        with pytest.raises(NotSent):
            await joined_on(branch.tx).put(branch.tx, "q", [Message(id="1", body=b"")])
        await branch.abort()
        assert database._open == []


async def test_another_database_on_the_same_engine_does_not_meet_the_door(tmp_path: Path) -> None:
    faulty = await make(tmp_path / "a.db", "?fault_not_sent=joined-put")
    plain = await make(tmp_path / "b.db")
    async with faulty, plain, plain.begin() as tx:
        await joined_on(tx).put(tx, "q", [Message(id="1", body=b"")])
    assert faulty.name == "a" and plain.name == "b"


def test_a_live_answer_cannot_be_lost(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="alive"):
        atoll.database(f"faulty+sqlite:///{tmp_path}/a.db?fault_reply_lost=begin")
    assert os.listdir(tmp_path) == []
