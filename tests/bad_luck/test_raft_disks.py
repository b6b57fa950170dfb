"""4.4: three real members, and one of them has bad luck with its disk: the others go on, and it says why."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import atoll
import atoll.urls
from atoll.errors import NotApplied, OutcomeUnknown
from atoll.ports.store import put
from atoll.verify import servers as product
from atoll.verify.servers.cluster import Cluster
from engines.raft_ways import until
from servers import server

ROOM = 26 << 20
"""A log's first segment, a state, and a little more."""


async def follower(cluster: Cluster) -> int:
    """One that does not lead."""
    return (await cluster.leader() + 1) % 3


async def gone(cluster: Cluster, number: int) -> str:
    """It ends by itself; what it said last."""

    async def ended() -> bool:
        return cluster.members[number].pid is None

    await until(ended, f"{cluster.members[number].name} gave up")
    child = cluster.members[number].child
    assert child is not None and child.returncode in (1, 2)
    return cluster.members[number].last_lines(3)


async def caught_up(cluster: Cluster, number: int, index: int) -> None:
    """It has applied this entry of the log."""

    async def there() -> bool:
        try:
            return bool((await cluster.facts["status"](number))["applied"] >= index)
        except product.process.ServerFailed:
            return False

    await until(there, f"{cluster.members[number].name} has what it missed")


async def applied(cluster: Cluster) -> int:
    return int((await cluster.facts["status"](await cluster.leader()))["applied"])


async def test_a_log_damaged_in_the_middle_is_refused_by_name_and_a_new_member_takes_its_place() -> None:
    async with server("raft", nodes=3) as cluster, atoll.urls.store(cluster.url) as store:
        for number in range(30):
            await store.transact(put(f"k{number}", b"v" * 5000))
        victim = await follower(cluster)
        await caught_up(cluster, victim, await applied(cluster))
        member = cluster.members[victim]
        member.kill()
        [segment] = (member.folder / "data" / "log").glob("*")
        _turn_over(segment, 60_000)
        member.launch()
        said = await gone(cluster, victim)
        assert segment.name in said and "spoilt later" in said and "under a new name" in said, said
        await store.transact(put("k30", b"the others go on"))
        council = await store.council()  # type: ignore[attr-defined]
        await council.remove(member.name, say=lambda text: None)
        await cluster.facts["join"]()
        place = (await cluster.facts["status"](3))["place"]
        await council.add("d", place, wait_s=20, say=lambda text: None)
        await caught_up(cluster, 3, await applied(cluster))
        assert len((await store.range("k", limit=100)).entries) == 31


def _turn_over(path: Path, place: int) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        [byte] = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Path]:
    """A folder for three members, in which b has a disk of its own, of ROOM bytes."""
    place = tmp_path / "b"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("a small tmpfs cannot be mounted here; it needs root")
    yield tmp_path
    subprocess.run(["umount", "-l", str(place)], check=False)


async def test_a_member_whose_disk_is_full_ends_and_comes_back_when_there_is_room(narrow: Path) -> None:
    async with await product.start("raft", narrow, nodes=3) as cluster:
        async with atoll.urls.store(cluster.url) as store:
            ballast = narrow / "b" / "ballast"
            _fill(ballast)
            written = 0

            async def full() -> bool:
                nonlocal written
                try:
                    await store.transact(put(f"k{written}", b"v" * 400_000))
                    written += 1
                except (NotApplied, OutcomeUnknown):
                    pass
                return cluster.members[1].pid is None

            await until(full, "b's disk is full")
            assert "no room" in await gone(cluster, 1) or "space" in await gone(cluster, 1)
            await store.transact(put("after", b"1"))
            ballast.unlink()
            subprocess.run(["mount", "-o", f"remount,size={4 * ROOM}", str(narrow / "b")], check=True)
            await cluster.members[1].start()
            await caught_up(cluster, 1, await applied(cluster))
            found = {entry.key for entry in (await store.range("k", limit=500)).entries}
            assert found >= {f"k{number}" for number in range(written)} and written


def _fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass


async def test_the_folder_of_another_cluster_is_not_taken_for_ones_own() -> None:
    async with server("raft", nodes=3) as one, server("raft", nodes=3) as two:
        async with atoll.urls.store(one.url) as store:
            await store.transact(put("k", b"1"))
            victim = await follower(one)
            member, stranger = one.members[victim], two.members[victim]
            before = await one.facts["status"](await one.leader())
            for each in (member, stranger):
                each.kill()
            shutil.rmtree(member.folder / "data")
            shutil.copytree(stranger.folder / "data", member.folder / "data")
            member.launch()

            async def refused() -> bool:
                return "of cluster" in member.last_lines(50) and before["cluster"] in member.last_lines(50)

            await until(refused, "it is told that it belongs to another cluster")
            await store.transact(put("k", b"2"))
            after = await one.facts["status"](await one.leader())
            assert (after["term"], after["cluster"]) == (before["term"], before["cluster"])
            assert (await store.get("k")).entry.value == b"2"  # type: ignore[union-attr]


async def test_the_folder_of_another_member_is_refused_by_both_names() -> None:
    async with server("raft", nodes=3) as cluster:
        one = await follower(cluster)
        other = (one + 1) % 3
        for number in (one, other):
            cluster.members[number].kill()
        shutil.rmtree(cluster.members[one].folder / "data")
        shutil.copytree(cluster.members[other].folder / "data", cluster.members[one].folder / "data")
        cluster.members[one].launch()
        said = await gone(cluster, one)
        assert f"is that of the member '{'abc'[other]}'; found --id {'abc'[one]}" in said, said
