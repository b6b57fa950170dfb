"""4.4: what outgrows a raft store moves by its URL, and what is kept on one is backed up and restored."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import atoll
from atoll import Lock, ReadOnly
from atoll.cli.main import main
from atoll.ports.store import put
from servers import server


async def run(*words: str, code: int = 0) -> None:
    assert await asyncio.to_thread(main, list(words)) == code, words


async def values(url: str) -> dict[str, bytes]:
    async with atoll.store(url) as store:
        return {entry.key: entry.value for entry in (await store.range("k")).entries}


async def test_a_file_grows_into_members_and_they_into_another_store(tmp_path: Path, capsys: Any) -> None:
    async with server("raft") as cluster:
        first, last = f"sqlite:///{tmp_path}/first.db", f"sqlite:///{tmp_path}/last.db"
        async with atoll.store(first) as store:
            await store.transact(*(put(f"k{n}", b"%d" % n) for n in range(50)))
        await run("store", "move", first, cluster.url)
        assert await values(cluster.url) == {f"k{n}": b"%d" % n for n in range(50)}
        async with atoll.store(cluster.url) as store:
            assert await store.epoch() == 2
            async with Lock(store, "mine") as held:
                await store.transact(put("k0", b"here"), guard=held)
        await run("store", "move", cluster.url, last)
        assert (await values(last))["k0"] == b"here"
        async with atoll.store(cluster.url) as store:
            with pytest.raises(ReadOnly, match="moved to"):
                await store.transact(put("k0", b"late"))
        capsys.readouterr()


async def test_a_backup_restores_into_an_empty_cluster_at_a_higher_epoch(tmp_path: Path, capsys: Any) -> None:
    async with server("raft") as one, server("raft") as two:
        async with atoll.store(one.url) as store:
            await store.transact(*(put(f"k{n}", bytes([n]) * 1000) for n in range(50)))
        await run("store", "backup", one.url, str(tmp_path / "saved"))
        await run("store", "restore", two.url, str(tmp_path / "saved"))
        assert await values(two.url) == await values(one.url)
        async with atoll.store(two.url) as store:
            assert await store.epoch() > 1
        await run("store", "check", two.url)
        await run("locks", two.url)
        assert "nothing is wrong" in capsys.readouterr().out
