"""3.6, bad luck: without room on the disk a MySQL store says no, or does not know; nothing is lost."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from servers import server

sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))
from mysql_ways import do

import atoll.urls
from atoll import DiskFull, OutcomeUnknown
from atoll.ports.register import Applied
from atoll.ports.store import put
from atoll.verify.servers import mysql


@contextmanager
def a_small_disk(bytes_max: int) -> Iterator[Path]:
    """A file system of its own; skips where we may not mount one."""
    folder = Path(tempfile.mkdtemp(prefix="atoll-small-"))
    words = ["mount", "-t", "tmpfs", "-o", f"size={bytes_max}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode:
        folder.rmdir()
        pytest.skip("may not mount a small file system here")
    try:
        shutil.chown(folder, mysql.ACCOUNT)
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def on_a_small_disk(disk: Path) -> tuple[str, ...]:
    """The entries' table moved there."""
    columns = (
        "k VARBINARY(3072) PRIMARY KEY, value LONGBLOB NOT NULL, revision BIGINT NOT NULL, "
        "create_revision BIGINT NOT NULL, lease VARBINARY(64) NULL, KEY entry_lease (lease)"
    )
    return (
        "DROP TABLE atoll_entry",
        f"CREATE TABLE atoll_entry ({columns}) ENGINE=InnoDB DATA DIRECTORY='{disk}'",
    )


async def fill(store: Any, count: int, size: int) -> dict[str, int]:
    """What was answered before the first error, which it raises with them in `args`."""
    answered: dict[str, int] = {}
    try:
        for number in range(count):
            answer = await store.transact(put(f"k{number:04}", random.Random(number).randbytes(size)))
            answered[f"k{number:04}"] = answer.revision
    except (DiskFull, OutcomeUnknown) as error:
        error.args = (*error.args, answered)
        raise
    return answered


async def test_a_full_disk_is_a_plain_no_and_all_that_was_answered_is_there() -> None:
    with a_small_disk(12 << 20) as disk:
        async with server("mysql") as cluster:
            await do(cluster.facts["ports"][0], f"mysql://x/{mysql.DATABASE}", *on_a_small_disk(disk))
            async with atoll.urls.store(cluster.url) as store:
                with pytest.raises(DiskFull, match="is full") as full:
                    await fill(store, 3000, 7000)
                answered = full.value.args[-1]
                assert answered, "it was full from the start, so nothing was tested"
                there = {one.key: one.revision for one in (await store.range("k", limit=5000)).entries}
                assert there == answered


async def test_a_server_that_dies_of_a_full_disk_has_all_that_was_answered_when_there_is_room() -> None:
    """MariaDB 10.11 falls over a large value that finds no room: the call is unknown, nothing is lost."""
    with a_small_disk(12 << 20) as disk:
        async with server("mysql") as cluster:
            await do(cluster.facts["ports"][0], f"mysql://x/{mysql.DATABASE}", *on_a_small_disk(disk))
            async with atoll.urls.store(cluster.url) as store:
                with pytest.raises((DiskFull, OutcomeUnknown)) as full:
                    await fill(store, 100, 1 << 19)
                answered = full.value.args[-1]
                subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
                if isinstance(full.value, OutcomeUnknown):
                    await cluster.members[0].restart()
                there = {one.key: one.revision for one in (await store.range("k")).entries}
                assert answered and {key: there.get(key) for key in answered} == answered
                assert isinstance(await store.transact(put("room", b"")), Applied)
