"""B6, the page's panels: queues, locks and leaders, transactions in doubt; a dark window is called dark."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from atoll import Election, Lock, background, urls
from atoll.ports.broker import Message
from atoll.up import standing
from atoll.up.manifest import load
from atoll.up.panels import Panels, unfaulted

TEXT = """
[urls]
state = "sqlite:///state.db"
broker = "{broker}"
[databases]
orders = "sqlite:///orders.db"
[services.x]
command = ["x"]
"""


def panels(folder: Path, broker: str = "sqlite:///queue.db") -> Panels:
    (folder / "atoll.toml").write_text(TEXT.format(broker=broker))
    return Panels(load(folder, {}))


async def test_queues_locks_leaders_and_undecided_transactions_are_seen(tmp_path: Path) -> None:
    window = panels(tmp_path)
    state = urls.store(f"sqlite:///{tmp_path}/state.db")
    broker = urls.broker(f"sqlite:///{tmp_path}/queue.db")
    orders = urls.database(f"sqlite:///{tmp_path}/orders.db")
    async with state, broker, orders:
        await broker.put("order-placed", [Message(id=str(n), body=b"x") for n in range(3)])
        (taken,) = await broker.take("order-placed", 1, lease_s=30)
        await broker.bury("order-placed", taken.receipt, "cannot be done")
        assert orders.participant is not None
        await orders.participant.open()
        async with orders.begin() as tx:
            await tx.execute("create table t (x integer primary key)")
        branch = await orders.participant.begin("shop/t1")
        await branch.tx.execute("insert into t values (1)")
        await branch.prepare()
        async with Lock(state, "order/1"):
            seen = await window.look()
        queue = seen["queues"]["rows"][0]
        assert (queue["queue"], queue["ready"], queue["dead"]) == ("order-placed", 2, 1)
        held = seen["locks"]["rows"][0]
        assert (held["name"], held["kind"], held["waiting"]) == ("order/1", "lock", 0) and held["owner"]
        doubt = seen["transactions"]["rows"][0]
        assert (doubt["id"], doubt["database"]) == ("shop/t1", "orders")
        assert all(panel["asked"] and not panel["why"] for panel in seen.values())
        await branch.abort()
    await window.close()


async def test_a_leader_is_seen(tmp_path: Path) -> None:
    import asyncio

    window, leads = panels(tmp_path), asyncio.Event()

    async def lead(_: object) -> None:
        leads.set()
        await asyncio.Event().wait()

    async with urls.store(f"sqlite:///{tmp_path}/state.db") as state:
        async with background(Election(state, "nightly").lead(lead)):
            await leads.wait()
            row = (await window.look())["locks"]["rows"][0]
    assert (row["name"], row["kind"]) == ("nightly", "leader")
    await window.close()


async def test_looking_makes_no_file_and_a_file_not_made_so_far_is_nothing(tmp_path: Path) -> None:
    window = panels(tmp_path)
    seen = await window.look()
    assert [path.name for path in tmp_path.iterdir()] == ["atoll.toml"]
    assert all(panel["asked"] and panel["rows"] == [] for panel in seen.values())
    assert [panel["why"] for panel in seen.values()] == [
        "orders: not there yet",
        "broker: not there yet",
        "state: not there yet",
    ]
    await window.close()


async def test_looking_makes_no_tables_in_a_file_of_somebody_else(tmp_path: Path) -> None:
    for name in ("state.db", "queue.db", "orders.db"):
        with sqlite3.connect(tmp_path / name) as connection:
            connection.execute("CREATE TABLE sales (amount)")
        connection.close()
    before = {path: path.read_bytes() for path in tmp_path.glob("*.db")}
    window = panels(tmp_path)
    seen = await window.look()
    assert {path: path.read_bytes() for path in tmp_path.glob("*.db")} == before
    assert seen["queues"]["asked"] is False and "found nothing of Atoll's" in seen["queues"]["why"]
    await window.close()


async def test_what_is_made_after_the_first_look_is_seen(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("atoll.up.panels.KEPT_S", -1.0)
    (tmp_path / "state.db").touch()  # an app that is just making it
    window = panels(tmp_path)
    await window.look()
    made = (
        "import asyncio, sys, atoll\n"
        "from atoll.ports.broker import Message\n"
        "async def main():\n"
        "    async with atoll.store(f'sqlite:///{sys.argv[1]}/state.db') as state:\n"
        "        await state.transact(atoll.put('a', b'1'))\n"
        "    async with atoll.broker(f'sqlite:///{sys.argv[1]}/queue.db') as broker:\n"
        "        await broker.put('jobs', [Message(id='1', body=b'x')])\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", made, str(tmp_path)], check=True, timeout=60)
    seen = await window.look()
    assert (seen["queues"]["rows"][0]["queue"], seen["queues"]["why"]) == ("jobs", "")
    assert (seen["locks"]["asked"], seen["locks"]["why"]) == (True, "")
    await window.close()


async def test_what_cannot_be_asked_is_said_and_never_shown_as_well(tmp_path: Path) -> None:
    (tmp_path / "queue.db").write_text("this is no database, it only looks like a file" * 100)
    window = panels(tmp_path)
    seen = await window.look()
    assert seen["queues"]["asked"] is False and seen["queues"]["why"].startswith("broker: ")
    assert seen["locks"]["asked"] is True
    await window.close()


async def test_an_engine_that_is_not_here_is_not_asked(tmp_path: Path) -> None:
    window = panels(tmp_path, broker="amqp://guest:secret@nowhere/")
    seen = await window.look()
    assert seen["queues"]["asked"] is False and "not in this release" in seen["queues"]["why"]
    assert "secret" not in str(seen) and "secret" not in str(window.places())
    await window.close()


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("faulty+sqlite:///a.db?fault_kill_before=commit&x=1", "sqlite:///a.db?x=1"),
        ("faulty+sqlite:///a.db?fault_once_file=/tmp/x", "sqlite:///a.db"),
        ("sqlite:///a.db?x=1", "sqlite:///a.db?x=1"),
    ],
)
def test_the_watchman_breaks_nothing_himself(url: str, seen: str) -> None:
    assert unfaulted(url) == seen


def test_the_worst_comes_first_and_young_transactions_are_no_problem() -> None:
    services = [{"service": "api", "gave_up": ["api-1"], "state": "gave up", "ready": 1, "wanted": 2}]
    rows = [{"id": "t1", "age_s": 41.0}, {"id": "t1", "age_s": 40.0}, {"id": "t2", "age_s": 0.5}]
    queues = [{"queue": "order-placed", "dead": 3}]
    found = standing._problems(services, {"transactions": {"rows": rows}, "queues": {"rows": queues}})
    assert [problem["text"] for problem in found] == [
        "1 transaction is in doubt, the oldest for 41 s",
        "api-1 gave up; see: atoll logs api",
        "3 dead letters in order-placed; see: atoll queue dead order-placed",
    ]
