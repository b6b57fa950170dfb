"""Bad luck: a verb that only asks is given the wrong place. It says so, exit 3 or 2, and makes nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from command import atoll

import atoll as house
from atoll.ports.broker import Message

VERBS = (["locks"], ["queue"], ["transactions"], ["transactions", "show", "shop/1"], ["queue", "dead", "x"])


def asked(words: list[str], url: str) -> list[str]:
    return [*words, "--broker", url] if words[0] == "queue" else [*words, url]


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_a_file_that_is_not_there_is_not_made_by_asking(words: list[str], tmp_path: Path) -> None:
    done = atoll(*asked(words, "sqlite:///state.db"), folder=tmp_path)
    assert done.returncode == 3, done.stderr
    assert f"found no file {tmp_path}/state.db" in done.stderr and "nothing was made" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_somebody_elses_database_gets_no_tables_by_asking(words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE sales (amount)")
    connection.close()
    before = path.read_bytes()
    done = atoll(*asked(words, "sqlite:///shop.db"), folder=tmp_path)
    assert done.returncode == 3
    assert "found nothing of Atoll's" in done.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"\x00garbage" * 700, b"hello, I am a text\n" * 60, b"SQLite format 3\x00" * 300]
)
@pytest.mark.parametrize("words", VERBS[:3], ids=" ".join)
def test_what_is_no_database_is_said_so_and_left_alone(
    words: list[str], content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    done = atoll(*words, "sqlite:///state.db", folder=tmp_path)
    assert done.returncode == 2
    assert "is no SQLite database or is damaged" in done.stderr
    assert path.read_bytes() == content


def test_a_folder_and_a_missing_folder_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    done = atoll("locks", "sqlite:///state.db", folder=tmp_path)
    assert (done.returncode, "found the folder" in done.stderr) == (2, True)
    done = atoll("locks", "sqlite:///no/state.db", folder=tmp_path)
    assert (done.returncode, "mkdir -p" in done.stderr) == (2, True)


def test_a_database_named_beside_the_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "atoll.toml").write_text(
        '[urls]\nstate = "sqlite:///state.db"\n[databases]\norders = "sqlite:///orders.db"\n'
    )
    _make(tmp_path / "state.db")
    done = atoll("transactions", folder=tmp_path)
    assert done.returncode == 3 and "orders.db" in done.stderr
    assert not (tmp_path / "orders.db").exists()


async def test_a_file_that_was_only_opened_has_nothing_in_doubt(tmp_path: Path) -> None:
    async with (
        house.store(f"sqlite:///{tmp_path}/state.db"),
        house.database(f"sqlite:///{tmp_path}/orders.db"),
    ):
        pass
    done = atoll("transactions", "sqlite:///state.db", "--database", "sqlite:///orders.db", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "nothing is in doubt\n"), done.stderr


async def test_what_is_there_is_answered_so_the_tests_bite(tmp_path: Path) -> None:
    async with house.broker(f"sqlite:///{tmp_path}/b.db") as broker:
        await broker.put("jobs", [Message(id="1", body=b"x")])
    done = atoll("queue", "sqlite:///b.db", folder=tmp_path)
    assert done.returncode == 0 and "jobs" in done.stdout


@pytest.mark.parametrize("verb", ["locks", "transactions", "queue", "up", "status", "logs"])
def test_a_manifest_that_is_no_toml_is_a_sentence_to_every_verb(verb: str, tmp_path: Path) -> None:
    (tmp_path / "atoll.toml").write_text("this is = = no toml")
    _make(tmp_path / "state.db")
    done = atoll(verb, folder=tmp_path)
    assert done.returncode in (2, 3), done.stderr
    assert done.stderr.startswith("atoll: ") and len(done.stderr.splitlines()) <= 4, done.stderr


def test_databases_that_are_no_table_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "atoll.toml").write_text('databases = "sqlite:///x.db"\nurls = 3\n')
    for verb in ("transactions", "locks", "queue"):
        done = atoll(verb, folder=tmp_path)
        assert done.returncode == 2, done.stderr


def _make(path: Path) -> None:
    import asyncio

    async def making() -> None:
        async with house.store(f"sqlite:///{path}"):
            pass

    asyncio.run(making())
