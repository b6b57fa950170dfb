"""Bad input: wrong words in a URL, at each door. A sentence that says what to write instead, exit 2."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import atoll, clean

import atoll as house
from atoll.errors import ConfigurationError, MissingExtra

DOORS: dict[str, Callable[[str], Any]] = {
    "store": house.store,
    "broker": house.broker,
    "tier": house.tier,
    "database": house.database,
}
SQLITE = list(DOORS)


async def opened(door: str, url: str) -> None:
    async with DOORS[door](url):
        pass


@pytest.mark.parametrize("door", SQLITE)
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgres//x", "has no scheme; expected something like sqlite:///state.db"),
        ("", "has no scheme"),
        ("oracle://host/x", "found the scheme oracle://; this release knows memory://, sqlite://"),
        ("kafka://host/x", "not in this release. Use sqlite://"),
        ("amqp://host", "not in this release"),
        ("sqlite:///x.db?tpyo=1", "found the option 'tpyo'"),
        ("sqlite:///x.db?ceiling_s=soon", "found ceiling_s=soon for sqlite://; expected a number"),
        ("sqlite:///x.db?shared_kernel=perhaps", "expected true or false"),
        ("sqlite://", "sqlite:///"),
        ("sqlite://:memory:", "sqlite:///"),
        ("sqlite:///:memory:", "found the path ':memory:'"),
        ("sqlite://host/x.db", "found the host 'host'"),
        ("sqlite://x.db", "found the host 'x.db'"),
        ("faulty+sqlite:///x.db?fault_kill_before=put", "Set ATOLL_FAULTS=1"),
        ("sqlite:///x.db?ceiling_s=nan", "ceiling_s"),
        ("sqlite:///x.db?ceiling_s=-1", "ceiling_s"),
        ("sqlite:///bad%00name.db", "without a zero byte"),
    ],
)
async def test_a_wrong_url_is_a_sentence_at_every_door(
    door: str, url: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ATOLL_FAULTS", raising=False)
    with pytest.raises(ConfigurationError) as found:
        await opened(door, url)
    assert said in str(found.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("door", ["store", "broker", "tier"])
async def test_an_unknown_option_of_memory_is_listed_with_the_known_ones(door: str) -> None:
    with pytest.raises(ConfigurationError, match="found the option 'colour'"):
        await opened(door, "memory://?colour=red")


async def test_memory_is_no_database() -> None:
    with pytest.raises(ConfigurationError, match=r"memory:// is no database"):
        await opened("database", "memory://")


async def test_right_urls_are_opened_at_every_door_so_the_tests_bite(tmp_path: Path) -> None:
    for door in SQLITE:
        await opened(door, f"sqlite:///{tmp_path}/{door}.db?ceiling_s=5")


@pytest.mark.parametrize("thing", [None, 3, object(), Path("x.db"), b"sqlite:///x.db"])
@pytest.mark.parametrize("door", SQLITE)
def test_what_is_no_url_and_no_engine_is_a_sentence(door: str, thing: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"expected|takes"):
        DOORS[door](thing)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["locks", "mongodb://h"], "not in this release"),
        (["queue", "kafka://h"], "not in this release"),
        (["verify", "gopher://h"], "found the scheme gopher://"),
        (["transactions", "sqlite:///s.db?x=1"], "found the option 'x'"),
        (["locks", "faulty+sqlite:///s.db"], "Set ATOLL_FAULTS=1"),
        (["dance"], "there is no verb 'dance'"),
        (["verify", "memory://", "--workload", "dance"], "dance"),
        (["work", "no_such_module"], "there is no module no_such_module"),
        (["logs", "api", "--lines", "many"], "invalid int value"),
        (["demo", "lock", "--faults", "-3"], "--faults"),
        (["demo", "lock", "--faults", "0"], "--faults"),
        (["verify", "memory://", "--seconds", "nan"], "--seconds"),
        (["work", "os", "--drain-s", "-1"], "--drain-s"),
        (["work", "os", "--health-port", "99999"], "--health-port"),
        (["logs", "--lines", "-1"], "--lines"),
        (["transactions", "memory://", "--last", "-1"], "--last"),
    ],
)
def test_wrong_words_of_a_command_are_exit_2(words: list[str], said: str, tmp_path: Path) -> None:
    done = atoll(*words, folder=tmp_path)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_names_the_line_to_type(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "class E: pass\nE.__module__ = 'sqlalchemy.engine'\nimport atoll\natoll.database(E())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=clean()
    )
    assert MissingExtra.__name__ in done.stderr
    assert 'pip install "atoll[sqlalchemy]"' in done.stderr
