"""B1-B4, B8: the airline flown short, with kills, and recounted; and what the recount must catch."""

from __future__ import annotations

import dataclasses
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))

from airline import column, demo, recount, report  # noqa: E402
from airline.flights import read_flights  # noqa: E402

FLIGHTS = 160


def test_the_record_is_the_real_one() -> None:
    """Counted from the text of the CSV, without the reader that the services use."""
    lines = (ROOT / "examples/airline/data/flights.csv").read_text().splitlines()[1:]
    cancelled = sum(line.split(",")[3] in ("", "NA") for line in lines)
    flights = read_flights()
    assert len(lines) == len(flights) == len({f.id for f in flights}) == 2699
    assert sum(f.cancelled for f in flights) == cancelled == 22
    assert sum(f.distance for f in flights) == sum(int(line.split(",")[12]) for line in lines)


def test_the_recount_imports_nothing_of_atoll() -> None:
    code = "import sys; sys.path.insert(0, 'examples'); import airline.recount; print('atoll' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder with the first flights of the record only."""
    folder = tmp_path_factory.mktemp("data")
    lines = (ROOT / "examples/airline/data/flights.csv").read_text().splitlines(keepends=True)
    (folder / "flights.csv").write_text("".join(lines[: FLIGHTS + 1]))
    before = os.environ.get("AIRLINE_DATA")
    os.environ["AIRLINE_DATA"] = str(folder)
    yield folder
    os.environ.pop("AIRLINE_DATA")
    if before is not None:
        os.environ["AIRLINE_DATA"] = before


@pytest.fixture(scope="module")
def flown(short: Path, tmp_path_factory: pytest.TempPathFactory) -> column.Column:
    """The app of atoll.toml in a folder of its own, three instances killed on the way."""
    app = tmp_path_factory.mktemp("app") / "airline"
    app.mkdir()
    manifest = (ROOT / "examples/airline/atoll.toml").read_text()
    (app / "atoll.toml").write_text(manifest.replace('PYTHONPATH = ".."', f'PYTHONPATH = "{ROOT}/examples"'))
    one = column.Column("Atoll", app / "atoll.toml", {"AIRLINE_DATA": str(short)})
    kills = column.plan(3, FLIGHTS, dispatch=3, statistics=1, auditor=1)
    record = recount.from_record()
    demo.fly(one, kills, record, seed=3)
    demo.wait_until_still(one, lambda: demo.waiting(one.folder) == 0 and demo.in_doubt(one.folder) == 0)
    assert one.stop() == 0
    return one


def test_every_figure_equals_the_record_s_although_instances_were_killed(flown: column.Column) -> None:
    difference = recount.compare(recount.from_record(), recount.from_system(flown.folder))
    assert difference == recount.Difference(lost=0, twice=0, misplaced=0, figures=0)
    assert flown.seen.kills >= 3 and demo.in_doubt(flown.folder) == 0 and demo.violations(flown) == 0


def test_an_auditor_was_elected_with_a_token(flown: column.Column) -> None:
    assert demo.logged(flown, r"elected, token 1:\d+") >= 1


async def test_a_plane_on_its_way_is_explained_by_the_transaction_that_holds_it(tmp_path: Path) -> None:
    """The auditor reads the rows of a real prepared branch."""
    import atoll

    source = (ROOT / "examples/airline/auditor.py").read_text()
    [pattern] = re.findall(r're.findall\(r"(.+?)", locks\)', source)
    async with atoll.database(f"sqlite:///{tmp_path}/shard.db") as shard:
        async with shard.begin() as db:
            await db.execute("CREATE TABLE plane (tail TEXT PRIMARY KEY, airport TEXT)")
            await db.execute("INSERT INTO plane VALUES ('N14228', 'JFK')")
        assert shard.participant is not None
        branch = await shard.participant.begin("airline/1-a-1")
        await branch.tx.execute("DELETE FROM plane WHERE tail = 'N14228'")
        await branch.prepare()
        [doubt] = await shard.participant.in_doubt()
    assert re.findall(pattern, doubt.locks) == ["N14228"]


TAMPER = {
    "a plane in two places": ("*", "INSERT OR IGNORE INTO plane VALUES ('N14228', 'XXX', 0, 0, 1)"),
    "a plane that is gone": ("*", "DELETE FROM plane WHERE tail = 'N14228'"),
    "a mile too many": ("*", "UPDATE plane SET odometer = odometer + 1 WHERE tail = 'N14228'"),
    "a flight counted twice": ("statistics.db", "UPDATE tally SET flights = flights + 1 WHERE rowid = 1"),
    "a flight not counted": ("statistics.db", "UPDATE tally SET flights = flights - 1 WHERE rowid = 1"),
    "a minute of delay": ("statistics.db", "UPDATE tally SET delay_sum = delay_sum + 1 WHERE rowid = 1"),
    "a leg that was never flown": ("*", "UPDATE plane SET flights = flights + 1 WHERE tail = 'N14228'"),
    "an answer too many": ("shard1.db", "INSERT INTO flight VALUES ('x', '{}')"),
}


@pytest.mark.parametrize("what", TAMPER)
def test_the_recount_catches(what: str, flown: column.Column, tmp_path: Path) -> None:
    for path in flown.folder.glob("*.db"):
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(tmp_path / path.name)) as copy:
            source.backup(copy)
    files, sql = TAMPER[what]
    for path in tmp_path.glob("shard*.db" if files == "*" else files):
        with closing(sqlite3.connect(path)) as database, database:
            for (trigger,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall():
                database.execute(f'DROP TRIGGER "{trigger}"')
            database.execute(sql)
    difference = recount.compare(recount.from_record(), recount.from_system(tmp_path))
    assert difference != recount.Difference(lost=0, twice=0, misplaced=0, figures=0)


def good_result() -> report.Result:
    return report.Result(
        name="Atoll",
        seen=column.Seen(),
        system=recount.Figures(),
        difference=recount.Difference(lost=0, twice=0, misplaced=0, figures=0),
        exit_code=0,
        extra={
            "points": 2,
            "points not hit": [],
            "takeovers": 1,
            "elections": 2,
            "in doubt now": 0,
            "in doubt most": 1,
            "violations": 0,
        },
    )


def test_a_run_as_promised_passes() -> None:
    assert report.wrong_with(good_result()) == []


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"points not hit": ["shard0: kill=before-prepare"]}, "not hit: shard0: kill=before-prepare"),
        ({"takeovers": 0}, "took over"),
        ({"in doubt most": 0}, "ever seen in doubt"),
        ({"in doubt now": 3}, "3 branches are still in doubt"),
        ({"violations": 1}, "1 violations"),
        ({"elections": 1}, "elected less than twice"),
    ],
)
def test_a_run_that_proved_less_fails(extra: dict[str, object], says: str) -> None:
    good = good_result()
    assert any(
        says in fault for fault in report.wrong_with(dataclasses.replace(good, extra={**good.extra, **extra}))
    )


def test_a_differing_figure_fails() -> None:
    differs = dataclasses.replace(
        good_result(), difference=recount.Difference(lost=1, twice=0, misplaced=0, figures=0)
    )
    assert report.wrong_with(differs)


def test_the_killer_s_plan_is_the_same_for_the_same_seed() -> None:
    one, other = (column.plan(7, 1000, dispatch=5, statistics=2, auditor=1) for _ in range(2))
    assert one == other != column.plan(8, 1000, dispatch=5, statistics=2, auditor=1)


def test_every_protocol_point_is_asked_for() -> None:
    asked = demo.points_asked(ROOT / "examples/airline/faults.toml")
    for shard in range(3):
        for point in ("before-prepare", "after-prepare", "before-finish-commit", "after-finish-commit"):
            assert any(p.startswith(f"shard{shard}: kill={point}") for p in asked)
        assert any(p.startswith(f"shard{shard}: kill=before-joined-put") for p in asked), "the outbox"
    for side in ("before", "after"):
        assert any(p.startswith(f"state: kill={side}-transact~transaction/") for p in asked), "the decision"
        assert any(p.startswith(f"statistics: kill={side}-joined-once") for p in asked), "the inbox"
