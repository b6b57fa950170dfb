"""3.4: on a server of somebody's it looks first, asks before it goes far, keeps bounds, leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import atoll
from atoll import clock
from atoll.errors import ConfigurationError
from atoll.ports.store import Put
from atoll.verify import guest
from atoll.verify.run import Wish, run
from atoll.verify.tray import Budget, Tray
from atoll.verify.workloads import WORKLOADS

PRODUCTS = ["redis", pytest.param("etcd", marks=pytest.mark.long), "postgresql"]


async def keys(url: str) -> list[str]:
    async with atoll.store(url) as store:
        return [entry.key for entry in (await store.range("")).entries]


@pytest.mark.parametrize("product", PRODUCTS)
async def test_a_run_leaves_the_server_as_it_was_and_says_first_what_it_found(
    product: str, shared: Any
) -> None:
    cluster = shared(product)
    async with atoll.store(cluster.url) as store:
        await store.transact(atoll.put("preflight/mine", b"kept"))
    before = await keys(cluster.url)
    told: list[Any] = []
    workloads = ("set", "lock") if product == "redis" else ("set",)
    wish = Wish(url=cluster.url, workloads=workloads, seconds=1.5, seed=8)
    report = await run(wish, first=told.extend)
    assert told and told == report.preflight
    assert [line.verdict for line in report.lines if line.verdict == "broken"] == []
    assert report.lines[0].judgement is not None and report.lines[0].judgement.counts["added"] > 10
    left = set(await keys(cluster.url)) - set(before)
    assert [key for key in left if "atoll-verify" in key] == []
    assert "preflight/mine" in await keys(cluster.url)


async def test_the_server_itself_is_never_hurt(shared: Any) -> None:
    cluster = shared("redis")
    pids = [member.pid for member in cluster.members]
    await run(Wish(url=cluster.url, workloads=("register",), seconds=1.5, seed=8))
    assert [member.pid for member in cluster.members] == pids


@pytest.mark.parametrize("janitor", [True, False])
async def test_keys_vanish_when_verify_itself_is_killed(janitor: bool, shared: Any, tmp_path: Path) -> None:
    """By the janitor at once; and where that is killed too, by the lease."""
    cluster = shared("redis")
    command = [sys.executable, "-m", "atoll", "verify", cluster.url, "--workload", "set", "--seconds", "60"]
    child = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # it cannot clear its folder away
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(30):
            while not [key for key in await keys(cluster.url) if "atoll-verify" in key]:
                await asyncio.sleep(0.1)
        helpers = descendants(child.pid, "atoll.verify.janitor")
        assert len(helpers) == 1
    finally:
        if not janitor:
            for pid in descendants(child.pid, "atoll.verify.janitor"):
                os.kill(pid, signal.SIGKILL)
        child.kill()
        child.wait()
    async with asyncio.timeout(guest.LEASE_S + 15):
        while [key for key in await keys(cluster.url) if "atoll-verify" in key]:
            await asyncio.sleep(0.2)


def descendants(pid: int, words: str) -> list[int]:
    """The children of a process with these words in their command."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if words in Path(f"/proc/{child}/cmdline").read_text():
                found.append(int(child))
    return found


@pytest.mark.parametrize(
    ("url", "far"),
    [
        ("redis://127.0.0.1:1", False),
        ("redis://localhost:1", False),
        ("redis://[::1]:1", False),
        ("redis://10.0.0.7:1", True),
        ("etcd://127.0.0.1:1,db.example.com:2", True),
        ("postgresql://someone:secret@db.example.com/x", True),
    ],
)
def test_beyond_loopback_it_asks_first(url: str, far: bool) -> None:
    if far:
        with pytest.raises(ConfigurationError, match="--yes") as refusal:
            guest.knock(Wish(url=url))
        assert "secret" not in str(refusal.value)
    guest.knock(Wish(url=url, yes=far))


def test_a_password_is_neither_in_the_page_nor_among_the_words_of_a_process() -> None:
    from atoll.verify import report
    from atoll.verify.run import Report
    from atoll.verify.scenario import Line
    from atoll.verify.worker import Part

    url = "redis://app:secret@127.0.0.1:1"
    done = Report(Wish(url=url), [Line(WORKLOADS["set"].claim, "set", None)])
    text = report.page(done) + report.text(done, Path("x")) + str(report.as_data(done))
    assert "secret" not in text and "app:***@" in text
    part = Part(
        url=url, workload="set", process="a", prefix="p", seed=1, until=0.0, ttl_s=1.0, clients=1, path=""
    )
    assert "secret" not in " ".join(part.command())


async def test_every_key_stands_under_the_lease_of_the_visit() -> None:
    async with atoll.store("memory://") as store:
        assert store.leasing is not None
        lease = (await store.leasing.grant(5)).lease
        own = (await store.leasing.grant(5)).lease
        tray = Tray(store, lease, Budget())
        await tray.transact(atoll.put("a", b""))
        await tray.put_if("b", b"", 0)
        await tray.transact(Put("c", b"", own))
        found = {entry.key: entry.lease for entry in (await store.range("")).entries}
        assert found == {"a": lease, "b": lease, "c": own}
        await store.leasing.revoke(lease)
        assert [entry.key for entry in (await store.range("")).entries] == ["c"]


async def test_a_budget_bounds_the_rate_and_the_bytes() -> None:
    async with atoll.store("memory://") as store:
        tray = Tray(store, None, Budget(rate=100, bytes_max=40))
        began = clock.loop_now()
        for number in range(10):
            await tray.transact(atoll.put(f"k{number}", b"12345678"))
        assert clock.loop_now() - began >= 0.08
        assert tray.budget.spent


async def test_a_recipe_that_refuses_a_weak_place_is_not_run_and_says_why(shared: Any) -> None:
    cluster = shared("redis", appendfsync=None)
    report = await run(Wish(url=cluster.url, workloads=("lock",), seconds=1, seed=8))
    assert report.lines[0].verdict == "not run"
    assert "refused:" in report.lines[0].figures
