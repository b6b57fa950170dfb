"""3.6: revisions commit in their order and keys stand in bytewise order; what breaks either is caught."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mysql_ways import database, do

import atoll.urls
from atoll.engines.mysql import desk, script
from atoll.ports.register import Applied
from atoll.ports.store import Bookmark, put
from atoll.verify import conformance_store
from atoll.verify.conformance import Violation

CASES = dict(conformance_store.CASES)
WRITERS, WRITES = 6, 30


@pytest.fixture
def port(shared: Any) -> int:
    return int(shared("mysql").facts["ports"][0])


async def told_and_answered(url: str) -> tuple[list[int], list[int]]:
    """Many handles write while one reads on: the revisions it was told, and those that were answered."""
    stores = [atoll.urls.store(f"{url}?poll_s=0.002") for _ in range(WRITERS)]
    reader = atoll.urls.store(f"{url}?poll_s=0.002")
    assert reader.history is not None
    answered: list[int] = []
    told: list[int] = []

    async def write(store: Any, name: int) -> None:
        for number in range(WRITES):
            answer = await store.transact(put(f"k/{name}/{number}", b""))
            assert isinstance(answer, Applied)
            answered.append(answer.revision)

    async def read(start: Bookmark) -> None:
        async for change in reader.history.changes("", start):  # type: ignore[union-attr]
            told.append(change.at.revision)
            if change.changed and change.changed[0].key == "end":
                return

    reading_on = asyncio.create_task(read(await reader.history.now()))
    await asyncio.gather(*(write(store, name) for name, store in enumerate(stores)))
    await stores[0].transact(put("end", b""))
    await asyncio.wait_for(reading_on, 30)
    for store in (*stores, reader):
        await store.close()
    return told[:-1], answered


def missed(told: list[int], answered: list[int]) -> set[int]:
    """What was answered and never told; the checker of this file."""
    assert told == sorted(told), f"told out of order: {told}"
    return set(answered) - set(told)


async def test_a_reader_is_told_every_revision_in_its_order(port: int) -> None:
    told, answered = await told_and_answered(await database(port))
    assert missed(told, answered) == set()
    assert len(set(answered)) == WRITERS * WRITES


async def test_numbers_handed_out_before_the_commit_are_caught(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: a sequence in place of the counter, as AUTO_INCREMENT is."""
    right = script.write

    def wrong(*words: Any, **more: Any) -> script.Script:
        found = right(*words, **more)
        broken = [
            one.replace(" FOR UPDATE", "")
            .replace("SET @n=@r+1,", "SET @n=NEXTVAL(trap)+SLEEP(RAND()*0.01),")
            .replace("SELECT @k,@r,", "SELECT @k,@n-1,")
            for one in found.statements
        ]
        return found._replace(statements=broken)

    url = await database(port)
    monkeypatch.setattr(desk, "TRIM_EVERY", 1 << 40)  # what is not there yet would look forgotten
    await do(port, url, "CREATE SEQUENCE trap")
    monkeypatch.setattr(script, "write", wrong)
    told, answered = await told_and_answered(url)
    assert missed(told, answered), "the trap did not bite, so nothing was tested"


async def test_a_counter_moved_by_a_stranger_is_waited_for_and_not_overwritten(port: int) -> None:
    import asyncmy

    url = await database(port)
    async with atoll.urls.store(url) as store:
        first = await store.transact(put("k", b"1"))
        stranger = await asyncmy.connect(
            host="127.0.0.1", port=port, user="root", database=url.rpartition("/")[2], autocommit=False
        )
        async with stranger.cursor() as cursor:
            await cursor.execute("UPDATE atoll_counter SET revision = revision + 5")
            call = asyncio.ensure_future(store.transact(put("k", b"2")))
            waiting = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
            async with asyncio.timeout(20):
                while not await do(port, url, waiting):
                    await asyncio.sleep(0.15)  # asked more often, MariaDB repeats its last answer
            await stranger.commit()
        stranger.close()
        assert (await call).revision == first.revision + 6


BYTEWISE = "keys_are_ordered_bytewise_and_none_are_confused"


async def test_keys_stand_in_bytewise_order_whatever_the_database_s_collation(port: int) -> None:
    url = await database(port, tables=False)
    name = url.rpartition("/")[2]
    await do(port, url, f"ALTER DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
    [(same,)] = await do(port, url, "SELECT 'a' = 'A ' COLLATE utf8mb4_general_ci")
    assert same, "the collation tells them apart, so nothing was tested"
    await CASES[BYTEWISE](lambda: atoll.urls.store(f"{url}?create=true"))


async def test_keys_as_text_in_a_collation_are_caught(port: int) -> None:
    """The negative control: VARCHAR as most tables have it takes 'a' for 'A'."""
    url = await database(port)
    column = "VARCHAR(700) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL"
    await do(port, url, f"ALTER TABLE atoll_entry MODIFY k {column}")
    with pytest.raises(Violation):
        await CASES[BYTEWISE](lambda: atoll.urls.store(url))
