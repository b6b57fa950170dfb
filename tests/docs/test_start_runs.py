"""A1: what docs/start.md shows and this release has is executed, block by block."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import page
import pytest

import atoll

SHOP = {
    "db.py": """
from sqlalchemy.ext.asyncio import create_async_engine
orders_engine = create_async_engine("sqlite+aiosqlite:///orders.db")
stock_engine = create_async_engine("sqlite+aiosqlite:///stock.db")
""",
    "models.py": """
from pydantic import BaseModel
class Order(BaseModel):
    id: int
    sku: str = "a"
    pieces: int = 1
""",
    "unpaid.py": """
from shop.models import Order
reminded = []
def unpaid(): return [Order(id=1), Order(id=2)]
def remind(order): reminded.append(order.id)
""",
    "__init__.py": "",
}


def sections() -> dict[str, str]:
    """Heading -> its Python."""
    parts = re.split(r"^## (.+)$", page.PAGE.read_text(), flags=re.M)
    found = {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}
    return {
        name: "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.S | re.M))
        for name, text in found.items()
    }


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The reader's own code, in a folder that is the current one."""
    (tmp_path / "shop").mkdir()
    for name, text in SHOP.items():
        (tmp_path / "shop" / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [n for n in sys.modules if n == "shop" or n.startswith("shop.")]:
        del sys.modules[name]
    gc.collect()  # a queue of the last test is not one of the next


def run(*names: str) -> dict[str, Any]:
    """Execute sections of the page in one namespace, as the page's reader would paste them."""
    space: dict[str, Any] = {"__name__": "shop.shared"}
    for name in names:
        exec(compile(sections()[name], f"start.md {name}", "exec"), space)
    return space


async def dispose() -> None:
    """Close what the team's own engines keep in their pools, while there is a loop to close it in."""
    for name in ("orders_engine", "stock_engine"):
        await getattr(sys.modules["shop.db"], name).dispose()


def test_importing_the_page_connects_to_nothing(shop: Path) -> None:
    run("Handles", "Lock", "Leader", "Queue, outbox, inbox")
    assert sorted(p.name for p in shop.iterdir() if p.name != "shop") == []


async def test_the_lock_s_block_fences_and_guards(shop: Path) -> None:
    from sqlalchemy.ext.asyncio import AsyncSession

    space = run("Handles", "Lock")
    order = sys.modules["shop.models"].Order(id=7)
    async with space["orders"], AsyncSession(sys.modules["shop.db"].orders_engine) as db:
        await space["bill"](order, db)
    await space["mark"](order)
    entry, _ = await space["state"].get("paid/7")
    assert entry.value == b"yes"
    await space["state"].close()
    await dispose()


async def test_the_leader_s_block_writes_under_its_term(shop: Path) -> None:
    space = run("Handles", "Lock", "Leader")
    await atoll.Election(space["state"], "nightly").lead(space["nightly"])
    entry, _ = await space["state"].get("report")
    assert entry.value == b"done"
    await space["state"].close()


async def test_the_queue_s_block_runs_its_workers_on_pydantic_models_and_sessions(shop: Path) -> None:
    space = run("Handles", "Lock", "Leader", "Queue, outbox, inbox")
    order = sys.modules["shop.models"].Order(id=7)
    async with space["orders"], space["stock"], space["broker"]:
        async with space["orders"].begin() as db:
            await space["outbox"].put(db, space["placed"], order)
        async with atoll.background(space["outbox"].relay(), space["placed"].work()):
            await until_empty(
                space["broker"], {"order-placed", "order-placed/receipt", "order-placed/reserve"}
            )
        assert await space["broker"].inspecting.dead("order-placed/reserve") == []
    await dispose()


async def until_empty(broker: Any, queues: set[str]) -> None:
    """Every one of the queues had something, and nothing waits in any."""
    async with asyncio.timeout(60):
        while True:
            depths = {d.queue: d for d in await broker.inspecting.depths()}
            if queues <= depths.keys() and not any(d.ready + d.delayed + d.leased for d in depths.values()):
                return
            await asyncio.sleep(0.02)


async def test_the_transaction_s_block_moves_over_two_files(shop: Path) -> None:
    space = run("Handles", "Lock", "Leader", "Queue, outbox, inbox")
    space["orders"] = atoll.database("sqlite:///one.db", name="orders")  # as the page says of this release
    space["stock"] = atoll.database("sqlite:///two.db", name="stock")
    source = sections()["A transaction over two databases"]
    assert "a.add(order)" in source and "b.add(order)" in source
    source = source.replace("a.add(order)", "await a.execute('INSERT INTO t VALUES (1)')")
    source = source.replace("b.add(order)", "await b.execute('INSERT INTO t VALUES (2)')")
    exec(compile(source, "start.md transaction", "exec"), space)
    space["outbox"] = atoll.Outbox(space["orders"])
    for name in ("orders", "stock"):
        async with space[name].begin() as db:
            await db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
    await space["move"](sys.modules["shop.models"].Order(id=7))
    rows = []
    for name in ("orders", "stock"):
        async with space[name].read() as db:
            rows += await db.execute("SELECT n FROM t")
    assert rows == [(1,), (2,)] and (await space["orders"].relaying.waiting())[0] == 1
    for name in ("orders", "stock", "state"):
        await space[name].close()


def test_the_block_without_an_event_loop_runs(shop: Path) -> None:
    space = run("Without an event loop")
    space["invoices"]()
    assert sys.modules["shop.unpaid"].reminded == [1, 2]
    space["state"].close()


def test_the_block_for_your_tests_runs(shop: Path) -> None:
    before = os.environ.pop("ATOLL_SEED", None)
    run("In your tests")["test_a_frozen_worker_bills_nobody"]()
    if before is not None:
        os.environ["ATOLL_SEED"] = before


def test_what_is_planned_says_so_when_imported() -> None:
    for name in ("Cache", "Saga", "Discovery", "Limit", "Done"):
        with pytest.raises((AttributeError, ImportError), match="not in this release"):
            getattr(atoll, name)
