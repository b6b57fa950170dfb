"""3.1: revisions commit in their order and keys stand in bytewise order; what breaks either is caught."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from postgresql_ways import database

import atoll.urls
from atoll.engines.postgresql import functions, reading
from atoll.ports.register import Applied
from atoll.ports.store import Bookmark, put
from atoll.verify import conformance_store
from atoll.verify.conformance import Violation
from atoll.verify.servers import postgresql

CASES = dict(conformance_store.CASES)
WRITERS, WRITES = 6, 40


@pytest.fixture
def port(shared: Any) -> int:
    return int(shared("postgresql").facts["ports"][0])


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


async def test_a_sequence_in_place_of_the_counter_is_caught(port: int) -> None:
    """The negative control: numbers handed out before the commit, as a sequence does."""
    url = await database(port)
    name = url.rpartition("/")[2]
    broken = functions.TRANSACT.replace(f"PERFORM pg_advisory_xact_lock({functions.LOCK});", "")
    broken = broken.replace(
        "number := newest + 1; newest := number;",
        "number := nextval('atoll.trap'); newest := number; PERFORM pg_sleep(random() * 0.01);",
    )
    finish = functions.COMMIT.replace(
        "SET revision = newest WHERE c.revision = before", "SET revision = greatest(c.revision, newest)"
    )
    for statement in ("CREATE SEQUENCE atoll.trap", broken, finish):
        await postgresql.ask(port, statement, name)
    told, answered = await told_and_answered(url)
    assert missed(told, answered), "the trap did not bite, so nothing was tested"


async def test_a_counter_moved_by_a_stranger_is_waited_for_and_not_overwritten(port: int) -> None:
    """Somebody who knows nothing of our lock updates the row: the transaction that meets it is done again."""
    import psycopg

    url = await database(port)
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'transactionid'"
    async with atoll.urls.store(url) as store, await psycopg.AsyncConnection.connect(url) as stranger:
        first = await store.transact(put("k", b"1"))
        await stranger.execute("UPDATE atoll.counter SET revision = revision + 5")
        call = asyncio.ensure_future(store.transact(put("k", b"2")))
        async with asyncio.timeout(20):
            while not await postgresql.ask(port, waiting):
                await asyncio.sleep(0.01)
        await stranger.commit()
        assert (await call).revision == first.revision + 6


BYTEWISE = "keys_are_ordered_bytewise_and_none_are_confused"


async def test_keys_stand_in_bytewise_order_whatever_the_collation(port: int) -> None:
    name = "collated"
    collation = "LOCALE_PROVIDER icu ICU_LOCALE 'und' LOCALE 'C.UTF-8'"
    await postgresql.ask(port, f"CREATE DATABASE {name} TEMPLATE template0 {collation}")
    url = f"postgresql://postgres@127.0.0.1:{port}/{name}?create=true"
    [(smaller,)] = await postgresql.ask(port, "SELECT 'a'::text < 'B'::text", name)
    assert smaller, "the database orders as C does, so nothing was tested"
    await CASES[BYTEWISE](lambda: atoll.urls.store(url))


async def test_an_order_by_collation_is_caught(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: the keys as text, in the order of a language."""
    right: Callable[[bytes | None], str] = reading.range_

    def wrong(high: bytes | None) -> str:
        collated = """convert_from(e.key, 'UTF8') COLLATE "und-x-icu" """
        return right(high).replace(f"{reading._HERE} ORDER BY e.key", f"{reading._HERE} ORDER BY {collated}")

    monkeypatch.setattr(reading, "range_", wrong)
    url = await database(port)
    with pytest.raises(Violation, match="not in bytewise order"):
        await CASES[BYTEWISE](lambda: atoll.urls.store(url))


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_a_stricter_default_isolation_changes_no_answer(level: str, port: int) -> None:
    url = await database(port)
    name = url.rpartition("/")[2]
    await postgresql.ask(port, f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")
    told, answered = await told_and_answered(url)
    assert missed(told, answered) == set()
    await CASES["nothing_is_written_twice_or_lost_by_many_writers"](lambda: atoll.urls.store(url))
