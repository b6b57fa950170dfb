"""Formats of the store's file: the released ones open, the future is refused and left alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import apsw
import pytest

from atoll import errors
from atoll.engines.sqlite import format, ledger
from atoll.engines.sqlite.store import SqliteStore
from atoll.ports.store import Bookmark, put

RELEASED = sorted((Path(__file__).parent / "formats").glob("store-*.db"))


def copy(released: Path, folder: Path) -> str:
    return str(shutil.copy(released, folder / "x.db"))


def test_there_is_a_fixture_of_this_format() -> None:
    assert f"store-{ledger.FORMAT}.db" in [path.name for path in RELEASED]


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: path.stem)
async def test_a_released_format_opens_with_all_that_is_in_it(released: Path, tmp_path: Path) -> None:
    async with SqliteStore(copy(released, tmp_path)) as store:
        entries = {e.key: (e.value, e.create_revision) for e in (await store.range("")).entries}
        assert entries == {"flight/2": (b"changed", 1)}
        assert await store.epoch() == 2
        assert store.history
        told = []
        async for change in store.history.changes("", Bookmark(2, 0)):
            told.append(([e.key for e in change.changed], list(change.removed)))
            if change.at.revision == 5:
                break
        assert told == [
            (["flight/1", "flight/2"], []),
            (["flight/2"], []),
            ([], ["flight/1"]),
            (["owner"], []),
            ([], ["owner"]),
        ]
        answer = await store.transact(put("new", b"1"))
        assert answer.revision == 6


async def test_a_future_format_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = copy(RELEASED[-1], tmp_path)
    connection = apsw.Connection(path)
    connection.execute("UPDATE atoll_format SET number = 99 WHERE part = 'store'")
    connection.close()
    store = SqliteStore(path)
    with pytest.raises(errors.FormatRefused, match=r"format 99 of the store.*reads up to 2"):
        await store.open()
    with pytest.raises(errors.FormatRefused):
        await store.transact(put("a", b"1"))
    await store.close()
    connection = apsw.Connection(path)
    assert connection.execute("SELECT count(*) FROM atoll_entry").get == 2
    connection.close()


def test_an_older_format_is_brought_up_step_by_step_or_refused() -> None:
    connection = apsw.Connection(":memory:")
    format.ensure(connection, "part", 1, ["CREATE TABLE one (a)"])
    upgrades = {1: ["ALTER TABLE one ADD COLUMN b"], 2: ["ALTER TABLE one ADD COLUMN c"]}
    format.ensure(connection, "part", 3, ["CREATE TABLE one (a, b, c)"], upgrades)
    assert [row[1] for row in connection.execute("PRAGMA table_info(one)")] == ["a", "b", "c"]
    assert format.read(connection, "part") == 3
    with pytest.raises(errors.FormatRefused, match="no way from 3"):
        format.ensure(connection, "part", 4, [], upgrades)
    connection.close()
