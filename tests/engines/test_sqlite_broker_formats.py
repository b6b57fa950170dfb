"""Formats of broker, tier and joined: the released ones open with all that is in them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from atoll import errors
from atoll.engines.sqlite import broker_sql, joined_sql, tier
from atoll.engines.sqlite.broker import SqliteBroker
from atoll.engines.sqlite.database import DatabaseOptions, SqliteDatabase
from atoll.engines.sqlite.tier import SqliteTier
from atoll.ports.broker import Message
from atoll.ports.store import Token
from atoll.ports.tier import Miss

RELEASED = sorted((Path(__file__).parent / "formats").glob("broker-*.db"))


def test_there_is_a_fixture_of_this_format() -> None:
    newest = max(broker_sql.FORMAT, joined_sql.FORMAT, tier.FORMAT)
    assert f"broker-{newest}.db" in [path.name for path in RELEASED]


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: path.stem)
async def test_a_released_queue_opens_with_its_messages(released: Path, tmp_path: Path) -> None:
    async with SqliteBroker(shutil.copy(released, tmp_path / "x.db")) as broker:
        taken = await broker.take("work", 9, lease_s=30)
        assert [(t.message.id, t.attempt) for t in taken] == [("a", 2), ("d", 1)]
        assert taken[0].message == Message(id="a", body=b"a", headers={"h": "1"})
        assert broker.inspecting is not None
        (dead,) = await broker.inspecting.dead("work")
        assert (dead.message.id, dead.reason) == ("c", "cannot be read")


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: path.stem)
async def test_a_released_database_keeps_outbox_inbox_and_fence(released: Path, tmp_path: Path) -> None:
    path = shutil.copy(released, tmp_path / "x.db")
    async with SqliteDatabase(path, options=DatabaseOptions(inbox_retention_s=1e12)) as database:
        (staged,) = await database.staged(9, claim_s=1, queues=["sold"])
        assert (staged.queue, staged.message) == ("sold", Message(id="s", body=b"staged", key="k"))
        async with database.begin() as tx:
            assert not await database.joined.once(tx, "scope", "seen")
        with pytest.raises(errors.Refused, match="2:7"):
            async with database.begin() as tx:
                await database.joined.fence(tx, "lock/a", Token(2, 6))


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: path.stem)
async def test_a_released_tier_of_another_boot_opens_empty(released: Path, tmp_path: Path) -> None:
    async with SqliteTier(shutil.copy(released, tmp_path / "x.db")) as copies:
        assert isinstance((await copies.get_many(["key"]))["key"], Miss)
