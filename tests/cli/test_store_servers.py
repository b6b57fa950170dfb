"""3.10, 3.11 on real servers: a store moves from a file to each and on, is backed up and examined."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import atoll
from atoll import Lock, ReadOnly, clock, put
from atoll.blocks.removal import Removal
from atoll.cli.main import main
from atoll.ports.store import Store
from atoll.verify.servers import mysql
from servers import Shared

PRODUCTS = ["postgresql", "etcd", "redis", "valkey", "zookeeper", "mysql"]
SETTINGS: dict[str, dict[str, Any]] = {"zookeeper": {"tick_ms": 200}}
Said = pytest.CaptureFixture[str]


@pytest.fixture(params=PRODUCTS)
def place(request: pytest.FixtureRequest, shared: Shared) -> str:
    """The URL of a store that nobody else uses, on the session's server."""
    product: str = request.param
    cluster, mine = shared(product, **SETTINGS.get(product, {})), f"moving{clock.unique_id()[:10]}"
    url = cluster.url
    if product == "mysql":
        asyncio.run(mysql.ask(cluster.facts["ports"][0], f"CREATE DATABASE {mine}"))
        run("schema", made := f"mysql://root@{cluster.addresses[0]}/{mine}")
        return made
    if product == "postgresql":
        made = asyncio.run(database(url, mine))
        run("schema", made)
        return made
    address, _, options = url.partition("?")
    if product in ("redis", "valkey"):
        return f"{address}?{options + '&' if options else ''}prefix={mine}"
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/{mine}{'?' + options if options else ''}"


async def database(url: str, name: str) -> str:
    import psycopg

    before, _, options = url.partition("?")
    async with await psycopg.AsyncConnection.connect(before, autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    return f"{before.rpartition('/')[0]}/{name}{'?' + options if options else ''}"


def run(*words: str, code: int = 0) -> None:
    assert main(list(words)) == code, words


async def values(url: str) -> dict[str, bytes]:
    async with atoll.store(url) as store:
        entries = (await store.range(limit=10_000)).entries
        return {e.key: e.value for e in entries if not e.key.startswith("atoll/")}


async def token(url: str) -> Any:
    async with atoll.store(url) as store, Lock(store, "x", ttl_s=5) as held:
        return held.token


async def fill(url: str, count: int) -> None:
    async with atoll.store(url) as store:
        for start in range(0, count, 50):
            await store.transact(*[put(f"k/{n:04d}", b"v%d" % n) for n in range(start, start + 50)])


def test_a_store_moves_there_and_on_with_rising_tokens(place: str, tmp_path: Path, capsys: Said) -> None:
    first, last = f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"
    asyncio.run(fill(first, 650))
    before = asyncio.run(token(first))
    run("store", "move", first, place)
    wanted = asyncio.run(values(first))
    assert len(wanted) == 650 and asyncio.run(values(place)) == wanted
    there = asyncio.run(token(place))
    run("store", "check", place)
    run("store", "move", place, last)
    assert asyncio.run(values(last)) == wanted
    after = asyncio.run(token(last))
    assert before < there < after and before.epoch < there.epoch < after.epoch
    with pytest.raises(ReadOnly, match="was moved to"):
        asyncio.run(fill(place, 50))
    assert "650 entries moved" in capsys.readouterr().out


def test_a_backup_of_it_is_restored_into_it(place: str, tmp_path: Path, capsys: Said) -> None:
    asyncio.run(fill(place, 100))
    wanted, file = asyncio.run(values(place)), str(tmp_path / "a.bak")
    run("store", "backup", place, file)
    asyncio.run(fill(place, 150))
    run("store", "restore", place, file, code=2)
    assert "found 50 other entries" in capsys.readouterr().err
    run("store", "restore", place, file, "--force", "--json")
    assert json.loads(capsys.readouterr().out)["epoch"] >= 2
    assert asyncio.run(values(place)) == wanted


def test_doctor_tells_in_sentences_what_it_is_worth(place: str, capsys: Said) -> None:
    asyncio.run(fill(place, 50))
    capsys.readouterr()
    assert main(["doctor", place, "--json"]) in (0, 1)
    told = json.loads(capsys.readouterr().out)
    assert told["findings"] and len(told["read_ms"]) == 10
    assert all(finding["cost"].strip() for finding in told["findings"])


async def test_a_fleet_of_one_moves_there_under_a_lock(place: str, tmp_path: Path) -> None:
    old: Store = atoll.store(f"sqlite:///{tmp_path}/a.db")
    new: Store = atoll.store(place)
    both = atoll.store(atoll.store(place), formerly=atoll.store(f"sqlite:///{tmp_path}/a.db"))
    tokens, counted, stop = [], 0, asyncio.Event()

    async def work() -> None:
        nonlocal counted
        while not stop.is_set():
            async with Lock(both, "x", ttl_s=6) as held:
                entry = (await both.get("n")).entry
                count = int(entry.value) + 1 if entry else 1
                await both.transact(put("n", b"%d" % count), guard=held)
                counted += 1
                tokens.append(held.token)

    async with old, new, both:
        working = [asyncio.ensure_future(work()) for _ in range(3)]
        while counted < 10:
            await asyncio.sleep(0.01)
        removal = Removal(old, new, wait_s=30, interrupt=False, force=False, say=lambda text: None)
        assert (await removal.move()).done
        then = counted
        while counted < then + 10:
            assert not any(task.done() for task in working), working
            await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*working)
        entry = (await new.get("n")).entry
        assert entry and int(entry.value) == counted
    assert tokens == sorted(set(tokens)) and tokens[0].epoch < tokens[-1].epoch
