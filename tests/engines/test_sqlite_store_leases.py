"""Leases in a file: over with their boot, never two kernels' at once, and ended without any client's call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atoll import clock, errors
from atoll.engines.sqlite.limits import StoreOptions
from atoll.engines.sqlite.store import SqliteStore
from atoll.ports.store import put


class OtherBoot(clock.RealClock):
    """The machine after a restart: another boot id, a lease clock begun again, wall time gone on."""

    def __init__(self, *, later_s: float) -> None:
        super().__init__()
        self._later_s = later_s

    @property
    def boot_id(self) -> str:
        return "another boot"

    def lease_now(self) -> float:
        return 1.0

    def wall_now(self) -> float:
        return super().wall_now() + self._later_s


@contextmanager
def restarted(*, later_s: float) -> Iterator[None]:
    with clock.use(OtherBoot(later_s=later_s)):
        yield


async def held(path: Path, ttl_s: float) -> SqliteStore:
    store = SqliteStore(str(path / "x.db"), options=StoreOptions(ceiling_s=1.0))
    assert store.leasing
    lease, _ = await store.leasing.grant(ttl_s)
    await store.transact(put("held", b"me", lease=lease), put("kept", b"1"), request_id="r")
    return store


async def test_a_lease_of_another_boot_is_over(tmp_path: Path) -> None:
    store = await held(tmp_path, 1000)
    _, before = await store.get("held")
    await store.close()
    with restarted(later_s=2000):
        async with store:
            entry, revision = await store.get("held")
            assert entry is None and revision == before + 1
            assert (await store.get("kept")).entry


async def test_a_restart_within_the_lease_is_waited_out(tmp_path: Path) -> None:
    store = await held(tmp_path, 0.4)
    await store.close()
    with restarted(later_s=0):
        async with store:
            assert (await store.get("held")).entry is None


async def test_a_file_with_a_young_lease_of_another_kernel_is_refused(tmp_path: Path) -> None:
    store = await held(tmp_path, 1000)
    await store.close()
    with restarted(later_s=0):
        with pytest.raises(errors.ConfigurationError, match="another kernel has the file"):
            await store.open()
        await store.close()
    async with store:
        assert (await store.get("held")).entry


async def test_a_lease_renewed_meanwhile_by_another_kernel_is_refused_at_once(tmp_path: Path) -> None:
    theirs = await held(tmp_path, 30)
    lease = (await theirs.get("held")).entry
    assert lease and lease.lease and theirs.leasing
    mine = SqliteStore(str(tmp_path / "x.db"))

    async def open_elsewhere() -> None:
        with restarted(later_s=0):
            await mine.open()

    opening = asyncio.create_task(open_elsewhere())
    while not opening.done():
        await theirs.leasing.keep_alive(lease.lease)
        await asyncio.sleep(0.02)
    with pytest.raises(errors.ConfigurationError, match="renewed it just now"):
        await opening
    await mine.close()
    await theirs.close()


async def test_a_request_id_is_remembered_over_a_restart(tmp_path: Path) -> None:
    store = await held(tmp_path, 0.01)
    await store.close()
    with restarted(later_s=1000):
        async with store:
            answer = await store.transact(put("kept", b"again"), request_id="r")
            assert getattr(answer, "replayed", False)
            found = (await store.get("kept")).entry
            assert found and found.value == b"1"


async def test_a_watcher_learns_of_an_end_that_nobody_else_looks_for(tmp_path: Path) -> None:
    store = await held(tmp_path, 0.3)
    granted = clock.lease_now()
    async with asyncio.timeout(10):
        async for news in store.observe("held"):
            if "held" in news.removed:
                break
    assert 0.2 < clock.lease_now() - granted < 0.3 + (await store.open()).expiry_late_max_s
    await store.close()


async def test_history_goes_on_where_it_was_after_closing(tmp_path: Path) -> None:
    store = await held(tmp_path, 1000)
    assert store.history
    start = await store.history.now()
    await store.transact(put("a", b"1"))
    await store.close()
    again = SqliteStore(str(tmp_path / "x.db"))
    assert again.history
    await again.transact(put("b", b"2"))
    told = []
    async for change in again.history.changes("", start):
        told.append([entry.key for entry in change.changed])
        if len(told) == 2:
            break
    assert told == [["a"], ["b"]]
    await again.close()


async def test_history_is_forgotten_by_age_but_never_its_newest(tmp_path: Path) -> None:
    options = StoreOptions(history_s_max=0.05)
    async with SqliteStore(str(tmp_path / "x.db"), options=options) as store:
        assert store.history
        start = await store.history.now()
        for number in range(63):
            await store.transact(put("k", b"%d" % number))
        await asyncio.sleep(0.06)
        await store.transact(put("k", b"last"))
        with pytest.raises(errors.Compacted) as caught:
            await anext(store.history.changes("", start))
        assert 1 < caught.value.oldest <= 64
        assert (await store.get("k")).revision == 64


async def test_a_bump_ends_who_resumes_and_makes_every_token_old(tmp_path: Path) -> None:
    async with SqliteStore(str(tmp_path / "x.db")) as store:
        assert store.history and store.moving
        await store.transact(put("k", b"1"))
        start = await store.history.now()
        assert (await store.epoch(), await store.moving.bump(), await store.epoch()) == (1, 2, 2)
        with pytest.raises(errors.EpochChanged, match="bumped"):
            await anext(store.history.changes("", start))
