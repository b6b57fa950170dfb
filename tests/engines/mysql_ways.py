"""Ways to a MariaDB of the tests: databases of their own, and accounts that may do little."""

from __future__ import annotations

import time
from typing import Any

import atoll.urls
from atoll.verify.servers import mysql

ROOT = "mysql://root@127.0.0.1:{port}/{name}"


async def database(port: int, *, tables: bool = True) -> str:
    """The URL of a new database, with the store's tables unless not."""
    name = f"t{time.monotonic_ns()}"
    await mysql.ask(port, f"CREATE DATABASE {name}")
    url = ROOT.format(port=port, name=name)
    if tables:
        async with atoll.urls.store(f"{url}?create=true"):
            pass
    return url


def name_of(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


async def account(port: int, url: str, *grants: str, words: str = "") -> str:
    """`url` for a new account that has `grants` on its database and nothing else."""
    user = f"u{time.monotonic_ns()}"
    await mysql.ask(port, f"CREATE USER '{user}'@'%' IDENTIFIED BY 'pw' {words}")
    for grant in grants:
        await mysql.ask(port, f"GRANT {grant} ON {name_of(url)}.* TO '{user}'@'%'")
    return url.replace("root@", f"{user}:pw@")


async def do(port: int, url: str, *questions: str) -> list[tuple[Any, ...]]:
    """As root, in the database of `url`."""
    return await mysql.ask(port, *questions, database=name_of(url))
