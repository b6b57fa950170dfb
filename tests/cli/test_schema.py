"""3.1: `atoll schema` makes Atoll's tables once, says which, and changes nothing when they are there."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import atoll
from atoll.cli.main import main
from postgresql_shop import Server, ask, new_bare, server_of


@pytest.fixture(scope="module")
def server(shared: Any) -> Server:
    return server_of(shared("postgresql"))


@pytest.fixture
def bare(server: Server) -> str:
    """A database without tables of ours."""
    return asyncio.run(new_bare(server, "schema_verb"))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["schema", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_it_says_what_it_made_and_then_that_all_is_there(
    capsys: pytest.CaptureFixture[str], bare: str
) -> None:
    code, out, _ = said(capsys, bare)
    assert code == 0 and out.startswith(f"{bare}: made atoll.")
    assert {"atoll.fence", "atoll.inbox", "atoll.outbox", "atoll.format", "atoll.entry"} <= set(
        out.strip().partition(": made ")[2].split(", ")
    )
    assert said(capsys, bare)[:2] == (0, f"{bare}: nothing to make, Atoll's tables are there\n")
    asyncio.run(use(bare))


async def use(url: str) -> None:
    """They are the tables that the database and its transactions ask for."""
    async with atoll.database(url) as database, database.begin() as tx:
        assert await database.joined.once(tx, "s", "1")


def test_what_print_says_makes_the_same_tables(capsys: pytest.CaptureFixture[str], bare: str) -> None:
    code, text, _ = said(capsys, bare, "--print")
    assert code == 0
    assert asyncio.run(ask(bare, "SELECT 1 FROM pg_namespace WHERE nspname = 'atoll'")) == []
    for _ in range(2):  # running it again changes nothing
        asyncio.run(ask(bare, text))
    assert "nothing to make" in said(capsys, bare)[1]
    asyncio.run(use(bare))


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str], bare: str, tmp_path: Path) -> None:
    made = json.loads(said(capsys, bare, "--json")[1])
    assert made["database"] == bare and "atoll.fence" in made["made"]
    assert json.loads(said(capsys, bare, "--json")[1])["made"] == []
    assert "CREATE TABLE" in json.loads(said(capsys, bare, "--json", "--print")[1])["sql"]


def test_a_file_is_made_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    assert said(capsys, url, "--print")[0] == 0 and list(tmp_path.iterdir()) == []
    assert said(capsys, url)[:2] == (
        0,
        f"{url}: made atoll_fence, atoll_format, atoll_inbox, atoll_outbox\n",
    )
    assert "nothing to make" in said(capsys, url)[1]
    asyncio.run(use(url))


def test_a_password_in_the_words_is_taken_with_a_warning_and_not_repeated(
    capsys: pytest.CaptureFixture[str], bare: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_password = bare.replace("postgres@", "postgres:hunter2@")
    code, out, err = said(capsys, with_password)
    assert code == 0 and "@" in err and "seen by everybody" in err and "hunter2" not in out + err
    monkeypatch.setenv("ATOLL_SHOP", with_password)
    code, out, err = said(capsys, "@shop")
    assert code == 0 and err == "" and "hunter2" not in out


def test_the_exit_code_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], bare: str, server: Server
) -> None:
    for url, code, words in (
        ("memory://", 2, "is no database"),
        ("postgresql://h", 2, "names no database"),
        (server.url("nowhere"), 2, "does not exist"),
        ("postgresql://postgres@127.0.0.1:1/shop", 3, "cannot be reached"),
    ):
        found, _, err = said(capsys, url)
        assert (found, words in err) == (code, True), err
    assert json.loads(said(capsys, "memory://", "--json")[1])["exit"] == 2


def test_who_may_not_make_tables_is_told_so_and_nothing_is_left_half_made(
    capsys: pytest.CaptureFixture[str], bare: str
) -> None:
    asyncio.run(ask(bare, "DROP ROLE IF EXISTS guest", "CREATE ROLE guest LOGIN"))
    code, _, err = said(capsys, bare.replace("postgres@", "guest@"))
    assert code == 2 and "permission denied" in err
    assert asyncio.run(ask(bare, "SELECT 1 FROM pg_namespace WHERE nspname = 'atoll'")) == []
    asyncio.run(ask(bare, "DROP ROLE guest"))


def test_two_at_once_make_them_once(bare: str) -> None:
    command = [sys.executable, "-m", "atoll", "schema", bare, "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    answers = [json.loads(one.communicate(timeout=60)[0]) for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert sorted(bool(answer["made"]) for answer in answers) == [False, True]


def test_tables_of_a_newer_atoll_are_left_alone(capsys: pytest.CaptureFixture[str], bare: str) -> None:
    said(capsys, bare)
    asyncio.run(
        ask(bare, "UPDATE atoll.format SET number = 99 WHERE part = 'joined'", "DROP TABLE atoll.fence")
    )
    code, _, err = said(capsys, bare)
    assert code == 2 and "upgrade this one" in err
    assert asyncio.run(ask(bare, "SELECT to_regclass('atoll.fence')::text")) == [(None,)]
