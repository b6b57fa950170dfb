"""Bad luck with the file: its name, its links, its neighbours, its disappearance, its edition."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from command import atoll as command
from command import clean

import atoll
from atoll.engines.sqlite.file import open_paths
from atoll.errors import AtollError, FormatRefused, NotSent, Overloaded
from atoll.ports.broker import Message
from atoll.ports.store import put

NAMES = [
    "a b.db",
    "ü-日本.db",
    "what?.db",
    "half#.db",
    "100%.db",
    "a&b=c.db",
    "%41.db",
    "'quote\".db",
    "+plus.db",
]


@pytest.mark.parametrize("name", NAMES)
async def test_any_file_name_can_be_written_as_a_url(name: str, tmp_path: Path) -> None:
    url = f"sqlite:///{quote(str(tmp_path / name))}"
    async with atoll.store(url) as store, atoll.broker(url) as broker, atoll.database(url), atoll.tier(url):
        await store.transact(put("k", b"v"))
        await broker.put("q", [Message(id="1", body=b"")])
    assert {path.name for path in tmp_path.iterdir()} >= {name}
    assert all(path.name.startswith(name) for path in tmp_path.iterdir())
    assert command("queue", url, folder=tmp_path).stdout.splitlines()[1].split()[:2] == ["q", "1"]


async def test_two_handles_and_a_link_to_the_file_are_one_file(tmp_path: Path) -> None:
    real, link, folder = tmp_path / "x.db", tmp_path / "link.db", tmp_path / "folder"
    link.symlink_to(real)
    folder.symlink_to(tmp_path)
    handles = [
        atoll.store(f"sqlite:///{path}") for path in (real, link, folder / "x.db", f"{tmp_path}/./x.db")
    ]
    for number, store in enumerate(handles):
        await store.transact(put(f"k{number}", b"v"))
    assert [path for path in open_paths() if path.startswith(str(tmp_path))] == [str(real)]
    await handles[0].close()
    assert len((await handles[1].range("k")).entries) == 4
    for store in handles[1:]:
        await store.close()
    assert str(real) not in open_paths()


@pytest.mark.parametrize("accident", ["deleted", "replaced", "moved folder"])
async def test_a_file_that_is_gone_answers_no_question_from_what_it_was(
    accident: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    store = atoll.store(f"sqlite:///{home}/x.db")
    await store.transact(put("k", b"old"))
    assert (await store.get("k")).entry is not None
    if accident == "moved folder":
        home.rename(tmp_path / "elsewhere")
    else:
        for path in home.iterdir():
            path.unlink()
    if accident == "replaced":
        code = f"import asyncio, atoll\nfrom atoll import put\ns = atoll.store('sqlite:///{home}/x.db')\n"
        code += "asyncio.run(s.transact(put('k', b'new')))"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=clean())
    with pytest.raises(NotSent, match=r"not there any more|replaced by another file"):
        await store.get("k")
    with pytest.raises(NotSent):
        await store.transact(put("k", b"lost?"))
    await store.close()
    if accident == "replaced":
        entry = (await store.get("k")).entry
        assert entry is not None and entry.value == b"new"
        await store.close()


async def test_what_a_killed_process_left_in_the_log_is_there(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, signal, atoll
from atoll import put
async def main():
    store = atoll.store('sqlite:///{tmp_path}/x.db')
    for number in range(50): await store.transact(put(f'k{{number}}', b'v' * 1000))
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, env=clean())
    assert (tmp_path / "x.db-wal").stat().st_size > 50_000
    async with atoll.store(f"sqlite:///{tmp_path}/x.db") as store:
        assert len((await store.range("k")).entries) == 50


async def test_a_copied_folder_opens_with_what_was_answered(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    async with atoll.store(f"sqlite:///{old}/x.db") as store:
        await store.transact(put("k", b"v"))
    shutil.move(old, new)
    async with atoll.store(f"sqlite:///{new}/x.db") as store:
        assert (await store.get("k")).entry is not None


PARTS: dict[str, Callable[[str], Any]] = {
    "store": atoll.store,
    "broker": atoll.broker,
    "tier": atoll.tier,
    "joined": atoll.database,
    "participant": lambda url: atoll.database(url).participant,
}


@pytest.mark.parametrize("part", PARTS)
async def test_each_part_refuses_a_future_format_and_leaves_the_file_as_it_was(
    part: str, tmp_path: Path
) -> None:
    url, path = f"sqlite:///{tmp_path}/x.db", tmp_path / "x.db"
    database = atoll.database(url)
    async with atoll.store(url), atoll.broker(url), atoll.tier(url), database:
        assert database.participant is not None
        await database.participant.open()
    with sqlite3.connect(path) as connection:
        known = {row[0] for row in connection.execute("SELECT part FROM atoll_format")}
        assert known == set(PARTS)
        connection.execute("UPDATE atoll_format SET number = 99 WHERE part = ?", (part,))
    connection.close()
    thing = PARTS[part](url)
    with pytest.raises(FormatRefused, match=rf"found format 99 of the {part} in .*upgrade here too"):
        await thing.open()
    with sqlite3.connect(path) as connection:
        [(number,)] = connection.execute("SELECT number FROM atoll_format WHERE part = ?", (part,))
    connection.close()
    assert number == 99
    for other, opener in PARTS.items():
        if other != part and {other, part} != {"joined", "participant"}:
            await opener(url).open()
    words = {"store": "locks", "broker": "queue"}.get(part)
    if words:
        done = command(words, url, folder=tmp_path)
        assert done.returncode == 2 and "format 99" in done.stderr


@pytest.mark.parametrize("side", ["-atoll", "-wal", "-shm"])
async def test_a_folder_in_the_place_of_a_side_file_is_a_sentence(side: str, tmp_path: Path) -> None:
    (tmp_path / f"x.db{side}").mkdir()
    store = atoll.store(f"sqlite:///{tmp_path}/x.db?ceiling_s=2")
    with pytest.raises(AtollError, match=r"x\.db"):
        await store.open()


async def test_a_process_without_a_free_descriptor_is_told_so_and_goes_on_later(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    store = atoll.store(f"sqlite:///{tmp_path}/x.db")
    await asyncio.to_thread(int)  # its thread and the loop's own files are made before
    kept = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        with pytest.raises(OSError):
            while True:
                kept.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(Overloaded, match="too many files"):
            await store.open()
    finally:
        for descriptor in kept:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await store.transact(put("k", b"v"))
    await store.close()
