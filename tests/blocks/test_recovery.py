"""Any instance finishes what a dead one left; what may have had a forgotten decision is left and shown."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import atoll
from atoll import Transactions, clock
from atoll.blocks import decision
from atoll.cli.main import main
from atoll.ports.observer import Event, TransactionDecided, TransactionTakenOver, subscribe
from atoll.ports.participant import Finished, Outcome

DEAD = "0123456789ab"


class Ruin:
    """Files in which a coordinator that no longer lives left prepared branches."""

    def __init__(self, folder: Path, **words: Any) -> None:
        self.folder = folder
        self.state = atoll.store(f"sqlite:///{folder}/state.db")
        self.databases = [atoll.database(f"sqlite:///{folder}/{name}.db") for name in "ab"]
        self.moves = self.instance(**words)

    def instance(self, **words: Any) -> Transactions:
        return Transactions(self.state, *self.databases, **{"grace_s": 0.5, **words})

    async def leave(self, number: int = 1, epoch: int = 1, of: str = DEAD) -> str:
        """Prepare on both, then be gone; answers the id."""
        id = f"app/{epoch}-{of}-{number}"
        for database in self.databases:
            async with database.begin() as db:
                await db.execute("CREATE TABLE IF NOT EXISTS row(id INTEGER PRIMARY KEY)")
            assert database.participant is not None
            branch = await database.participant.begin(id)
            await branch.tx.execute("INSERT INTO row VALUES (?)", (number,))
            await branch.prepare()
        return id

    async def decide(self, id: str, outcome: Any, at: float | None = None) -> None:
        now = clock.wall_now() if at is None else at
        record = decision.Record(outcome=outcome, databases=("a", "b"), at=now, by=DEAD)
        await self.state.transact(decision.line(id, record))

    async def rows(self) -> list[int]:
        found = []
        for database in self.databases:
            async with database.read() as db:  # type: ignore[attr-defined]
                found.append((await db.execute("SELECT count(*) FROM row"))[0][0])
        return found

    async def __aenter__(self) -> Ruin:
        return self

    async def __aexit__(self, *_: object) -> None:
        for handle in (self.state, *self.databases):
            await handle.close()


async def test_without_a_decision_abort_is_written_first_and_then_carried_out(tmp_path: Path) -> None:
    heard: list[Event] = []
    async with Ruin(tmp_path) as ruin:
        id = await ruin.leave()
        stop = subscribe(heard.append)
        assert await ruin.moves.outcome(id) is None
        assert await ruin.moves._recovery.round() == 1
        stop()
        assert await ruin.moves.outcome(id) is Outcome.ABORT
        assert await decision.lookup(ruin.state, id) is not None
        assert await ruin.rows() == [0, 0]
    assert [type(e) for e in heard] == [TransactionDecided, TransactionTakenOver]


async def test_a_commit_that_was_decided_is_carried_out(tmp_path: Path) -> None:
    heard: list[Event] = []
    async with Ruin(tmp_path) as ruin:
        id = await ruin.leave()
        await ruin.decide(id, "commit")
        assert ruin.databases[0].participant is not None
        assert await ruin.databases[0].participant.finish(id, Outcome.COMMIT) is Finished.DONE
        stop = subscribe(heard.append)
        async with atoll.background(ruin.moves.recover()), asyncio.timeout(20):
            while await ruin.moves.in_doubt():
                await asyncio.sleep(0.02)
        stop()
        assert await ruin.rows() == [1, 1]
        assert await ruin.moves.outcome(id) is Outcome.COMMIT
    assert [e.outcome for e in heard if isinstance(e, TransactionTakenOver)] == ["commit"]


async def test_of_several_instances_one_takes_over(tmp_path: Path) -> None:
    heard: list[Event] = []
    async with Ruin(tmp_path) as ruin:
        for number in range(5):
            await ruin.decide(await ruin.leave(number), "commit")
        others = [ruin.instance() for _ in range(4)]
        for other in others:
            await other._presences.here().show()
        stop = subscribe(heard.append)
        await asyncio.gather(*(other._recovery.round() for other in others))
        while await ruin.moves.in_doubt():
            await asyncio.gather(*(other._recovery.round() for other in others))
        stop()
        assert await ruin.rows() == [5, 5]
    taken = [e.name for e in heard if isinstance(e, TransactionTakenOver)]
    assert len(taken) == len(set(taken)) == 5


async def test_a_live_coordinator_is_left_alone(tmp_path: Path) -> None:
    async with Ruin(tmp_path) as ruin:
        other = ruin.instance()
        presence = other._presences.here()
        await presence.show()
        id = await ruin.leave(of=presence.instance)
        presence.active.add(id)
        assert await ruin.moves._recovery.round() == 0
        assert [doubt.coordinator_lives for doubt in await ruin.moves.in_doubt()] == [True]


async def test_a_coordinator_overtaken_by_an_abort_tells_its_caller(tmp_path: Path) -> None:
    async with Ruin(tmp_path) as ruin:
        for database in ruin.databases:
            async with database.begin() as db:
                await db.execute("CREATE TABLE row(id INTEGER PRIMARY KEY)")
        with pytest.raises(atoll.Conflict, match="another instance aborted it"):
            async with ruin.moves.begin() as tx:
                for database in ruin.databases:
                    await (await tx.join(database)).execute("INSERT INTO row VALUES (1)")
                await ruin.decide(tx.id, "abort")
        assert await ruin.rows() == [0, 0]


@pytest.mark.parametrize(("epoch", "words"), [(0, {}), (1, {"grace_s": 0.001, "decision_retention_s": 0.1})])
async def test_what_may_have_been_decided_and_forgotten_is_parked(
    tmp_path: Path, epoch: int, words: dict[str, float]
) -> None:
    async with Ruin(tmp_path, **words) as ruin:
        await ruin.leave(epoch=epoch)
        async with asyncio.timeout(10):
            while not (doubt := (await ruin.moves.in_doubt())[0]).parked:
                await asyncio.sleep(0.02)
        assert await ruin.moves._recovery.round() == 0
        assert await decision.lookup(ruin.state, doubt.id) is None
        await ruin.decide(doubt.id, "commit")  # the person's word
        assert await ruin.moves._recovery.round() == 1
        assert await ruin.rows() == [1, 1]


class Jumping(clock.RealClock):
    """A machine whose wall clock is set, and whose loop clock can be hurried on."""

    wall_s = loop_s = 0.0

    def wall_now(self) -> float:
        return super().wall_now() + self.wall_s

    def loop_now(self) -> float:
        return super().loop_now() + self.loop_s


async def test_a_clock_set_back_hides_no_undecided_transaction_of_a_live_coordinator(tmp_path: Path) -> None:
    with clock.use(jumping := Jumping()):
        async with Ruin(tmp_path, grace_s=10.0) as ruin:
            other = ruin.instance()
            presence = other._presences.here()
            await presence.show()
            presence.active.add(id := await ruin.leave(of=presence.instance))
            jumping.wall_s = -86400.0
            assert await ruin.moves._recovery.round() == 0
            jumping.loop_s = 61.0
            assert await ruin.moves._recovery.round() == 1
            assert await ruin.moves.outcome(id) is Outcome.ABORT


async def test_a_clock_set_forward_parks_nothing_that_came_while_we_watched(tmp_path: Path) -> None:
    with clock.use(jumping := Jumping()):
        async with Ruin(tmp_path) as ruin:
            assert await ruin.moves._recovery.round() == 0
            other = ruin.instance()
            presence = other._presences.here()
            await presence.show()
            presence.active.add(id := await ruin.leave(of=presence.instance))
            assert await ruin.moves._recovery.round() == 0
            jumping.wall_s = 8 * 86400.0
            assert [doubt.parked for doubt in await ruin.moves.in_doubt()] == [""]
            assert await ruin.moves._recovery.round() == 1
            assert await ruin.moves.outcome(id) is Outcome.ABORT


async def test_what_was_there_before_us_or_is_restored_is_parked_when_it_looks_old(tmp_path: Path) -> None:
    with clock.use(jumping := Jumping()):
        async with Ruin(tmp_path) as ruin:
            await ruin.moves._recovery.round()
            jumping.wall_s = -8 * 86400.0
            await ruin.leave()  # as from a backup: it is older than our last look without it
            jumping.wall_s = 0.0
            assert await ruin.moves._recovery.round() == 0
            assert all(doubt.parked for doubt in await ruin.moves.in_doubt())
            assert await ruin.instance()._recovery.round() == 0


async def test_a_decision_is_kept_for_its_time_and_while_a_database_waits(tmp_path: Path) -> None:
    async with Ruin(tmp_path) as ruin:
        waiting, done, young = await ruin.leave(), "app/1-x-2", "app/1-x-3"
        await ruin.decide(waiting, "commit", at=0.0)
        await ruin.decide(done, "commit", at=0.0)
        await ruin.decide(young, "commit")
        assert await ruin.moves._recovery.clean() == 1
        assert await decision.lookup(ruin.state, done) is None
        assert await decision.lookup(ruin.state, waiting) is not None
        assert await decision.lookup(ruin.state, young) is not None


async def test_a_table_that_is_away_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async with Ruin(tmp_path) as ruin:
        id = await ruin.leave()
        await ruin.decide(id, "commit")
        async with ruin.databases[0].begin() as db:
            await db.execute("ALTER TABLE row RENAME TO elsewhere")
        assert await ruin.moves._recovery.round() == 0
        doubts = await ruin.moves.in_doubt()
        assert [doubt.databases for doubt in doubts] == [("a",)]
        async with ruin.databases[0].begin() as db:
            await db.execute("ALTER TABLE elsewhere RENAME TO row")
        assert await ruin.moves._recovery.round() == 1
        assert await ruin.rows() == [1, 1]


async def test_a_database_that_cannot_be_read_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async with Ruin(tmp_path) as ruin:
        id = await ruin.leave()
        await ruin.decide(id, "commit")
        (tmp_path / "broken.db").write_bytes(b"no database at all" * 100)
        broken = atoll.database(f"sqlite:///{tmp_path}/broken.db")
        moves = Transactions(ruin.state, broken, *ruin.databases, grace_s=0.5)
        assert await moves._recovery.round() == 1
        assert await ruin.rows() == [1, 1]
        with pytest.raises(atoll.FormatRefused):
            await moves.in_doubt()
        await broken.close()


async def test_a_decision_of_a_newer_release_is_not_guessed_at(tmp_path: Path) -> None:
    async with Ruin(tmp_path) as ruin:
        id = await ruin.leave()
        key = decision.key_of(id)
        await ruin.state.transact(
            atoll.put(key, b'{"outcome":"commit","databases":["a"],"at":0,"by":"x","format":9}')
        )
        other = await ruin.leave(2)
        assert await ruin.moves._recovery.round() == 1
        assert await ruin.moves.outcome(other) is Outcome.ABORT
        with pytest.raises(atoll.ConfigurationError, match="format 9"):
            await ruin.moves.in_doubt()


def test_the_verb_shows_what_is_in_doubt_and_how_others_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def ruin() -> tuple[str, str]:
        async with Ruin(tmp_path) as found:
            ended = await found.leave(1)
            await found.moves._recovery.round()
            return ended, await found.leave(2)

    ended, left = asyncio.run(ruin())
    words = [f"sqlite:///{tmp_path}/state.db"]
    words += [word for name in "ab" for word in ("--database", f"sqlite:///{tmp_path}/{name}.db")]
    assert main(["transactions", *words]) == 1
    said = capsys.readouterr().out
    assert left in said and "gone" in said and "a, b" in said and ended in said and "abort" in said
    assert main(["transactions", *words, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [doubt["id"] for doubt in found["in_doubt"]] == [left]
    assert [(one["id"], one["outcome"], one["by"]) for one in found["decided"]] == [
        (ended, "abort", "recovery")
    ]
    assert main(["transactions", "show", ended, *words]) == 1
    assert "aborted" in capsys.readouterr().out
    assert main(["transactions", "show", left, *words]) == 4
    assert "prepared on a, b, not decided" in capsys.readouterr().out
    assert main(["transactions", "show"]) == 2
