"""A6, B7: faulty+ URLs: each point breaks what it names, at its moment, and says that it did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import atoll
from atoll import clock
from atoll.errors import ConfigurationError, NotSent, OutcomeUnknown
from atoll.ports.broker import Accepted, Message
from atoll.ports.store import Store, put
from atoll.ports.tier import Miss
from atoll.verify.faults import hits, points_of


@pytest.fixture(autouse=True)
def faults_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOLL_FAULTS", "1")


def faulty(options: str) -> Store:
    return atoll.store(f"faulty+memory://?{options}")


async def value(store: Store, key: str = "k") -> bytes | None:
    entry = (await store.get(key)).entry
    return entry.value if entry else None


def test_without_leave_in_the_environment_nothing_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATOLL_FAULTS")
    with pytest.raises(ConfigurationError, match="ATOLL_FAULTS=1"):
        faulty("fault_kill=before-transact")


async def test_without_points_everything_passes_and_the_inner_options_are_kept() -> None:
    store = faulty("operations_max=2&observe=coalesced")
    assert (await store.open()).operations_max == 2
    await store.transact(put("k", b"1"))
    assert await value(store) == b"1"
    assert store.leasing is not None and store.history is not None
    assert repr(store) == "<faults none -> <Store memory://?operations_max=2&observe=coalesced>>"


async def test_a_lost_reply_was_done_and_a_lost_request_was_not() -> None:
    store = faulty("fault_reply_lost=transact")
    with pytest.raises(OutcomeUnknown) as raised:
        await store.transact(put("k", b"1"), request_id="r")
    assert raised.value.id == "r" and await value(store) == b"1"

    store = faulty("fault_request_lost=transact")
    with pytest.raises(OutcomeUnknown):
        await store.transact(put("k", b"1"))
    assert await value(store) is None


async def test_what_was_not_sent_says_so_and_was_not_done() -> None:
    store = faulty("fault_not_sent=transact")
    with pytest.raises(NotSent):
        await store.transact(put("k", b"1"))
    assert await value(store) is None


async def test_a_half_open_call_is_unknown_only_at_its_ceiling_or_deadline() -> None:
    store = faulty("fault_half_open=get&fault_ceiling_s=60")
    with clock.deadline(0.05), pytest.raises(OutcomeUnknown):
        await store.get("k")


async def test_a_duplicate_is_done_twice() -> None:
    store = faulty("fault_duplicated=transact")
    await store.transact(put("k", b"1"))
    assert (await store.get("k")).revision == 2

    broker = atoll.broker("faulty+memory://?fault_duplicated=put")
    assert list(await broker.put("q", [Message(id="1", body=b"")])) == [Accepted.ACCEPTED]
    assert broker.inspecting is not None
    assert [d.ready for d in await broker.inspecting.depths()] == [1]


async def test_a_point_counts_its_calls_and_looks_at_the_prefix() -> None:
    store = faulty("fault_not_sent=transact~transaction/:2,transact~late/:2%2B")
    await store.transact(put("other", b"1"))
    await store.transact(put("transaction/1", b"1"))
    with pytest.raises(NotSent):
        await store.transact(put("transaction/2", b"1"))
    await store.transact(put("transaction/3", b"1"))
    await store.transact(put("late/1", b"1"))
    for _ in range(2):
        with pytest.raises(NotSent):
            await store.transact(put("late/2", b"1"))


async def test_a_probability_is_thrown_with_the_seed_named() -> None:
    async def fates(seed: int) -> str:
        store, letters = faulty(f"fault_not_sent=transact@0.5&fault_seed={seed}"), ""
        for _ in range(40):
            try:
                await store.transact(put("k", b"1"))
                letters += "."
            except NotSent:
                letters += "x"
        return letters

    assert await fates(1) == await fates(1) != await fates(2)
    assert 5 < (await fates(1)).count("x") < 35


async def test_tiers_and_abilities_pass_the_door_too() -> None:
    tier = atoll.tier("faulty+memory://?fault_reply_lost=fill")
    miss = (await tier.get_many(["a"]))["a"]
    assert isinstance(miss, Miss)
    with pytest.raises(OutcomeUnknown):
        await tier.fill("a", miss.token, b"1", 60)

    store = faulty("fault_not_sent=keep_alive")
    assert store.leasing is not None
    granted = await store.leasing.grant(5)
    with pytest.raises(NotSent):
        await store.leasing.keep_alive(granted.lease)


@pytest.mark.parametrize(
    ("door", "options", "sentence"),
    [
        ("store", "fault_kill=transact", "expected before-transact or after-transact"),
        ("store", "fault_reply_lost=after-transact", "which has its own moment"),
        ("store", "fault_kill=before-prepare", "a store has no verb 'prepare'"),
        ("broker", "fault_kill=before-transact", "It has open, put, take"),
        ("store", "fault_reply_lost=observe", "alive"),
        ("store", "fault_explode=get", "know fault_kill"),
        ("store", "fault_delay_s=soon", "a number"),
        ("store", "fault_kill=", "expected a point such as"),
    ],
)
def test_a_point_that_cannot_be_is_refused_with_what_could(door: str, options: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        getattr(atoll, door)(f"faulty+memory://?{options}")


CHILD = """
import asyncio, sys, atoll
from atoll.ports.store import put
async def main():
    store = atoll.store(sys.argv[1])
    for n in range(5):
        await store.transact(put(f"k/{n}", b"1"))
        print("did", n, flush=True)
asyncio.run(main())
"""


def child(url: str, **environment: str) -> Any:
    return subprocess.run(
        [sys.executable, "-c", CHILD, url],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_kill_happens_at_its_point_and_leaves_its_mark_first(tmp_path: Path) -> None:
    folder = tmp_path / "hits"
    url = f"faulty+memory://?fault_kill=after-transact:3,before-transact~k/4&fault_once_dir={folder}"
    assert points_of(url) == ["kill=after-transact:3", "kill=before-transact~k/4"]

    first = child(url, ATOLL_INSTANCE="api-2")
    assert first.returncode == -signal.SIGKILL and first.stdout == "did 0\ndid 1\n"
    [hit] = hits(folder)
    assert (hit.point, hit.instance, hit.call) == ("kill=after-transact:3", "api-2", "transact(k/2)")

    second = child(url)
    assert second.returncode == -signal.SIGKILL and second.stdout.splitlines()[-1] == "did 3"
    assert [h.point for h in hits(folder)] == points_of(url)

    third = child(url)
    assert third.returncode == 0 and third.stdout.splitlines()[-1] == "did 4"


def test_a_point_fires_once_over_many_processes(tmp_path: Path) -> None:
    url = f"faulty+memory://?fault_kill=before-transact&fault_once_dir={tmp_path}"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, url], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    codes = []
    for process in children:
        process.communicate(timeout=60)
        codes.append(process.returncode)
    assert sorted(codes) == [-signal.SIGKILL, 0, 0, 0]
    assert len(hits(tmp_path)) == 1


def test_a_point_that_is_never_reached_leaves_no_mark(tmp_path: Path) -> None:
    url = f"faulty+memory://?fault_kill=before-revoke&fault_once_dir={tmp_path}"
    assert child(url).returncode == 0
    assert hits(tmp_path) == [] and points_of(url) == ["kill=before-revoke"]
