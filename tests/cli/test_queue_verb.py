"""`atoll queue`: what waits, what died and why, and bringing it back; each with --json."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from atoll import urls
from atoll.cli.main import main
from atoll.ports.broker import Message


@pytest.fixture
def queue(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/queue.db"

    async def fill() -> None:
        async with urls.broker(url) as broker:
            await broker.put("order-placed", [Message(id=f"m{n}", body=b'{"n":1}') for n in range(3)])
            for taken in await broker.take("order-placed", 2, lease_s=30):
                await broker.bury("order-placed", taken.receipt, "no such customer")

    asyncio.run(fill())
    return url


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["queue", *words])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_dead_letters_are_told_with_their_reason_and_can_be_brought_back(
    queue: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run(capsys, queue)
    assert code == 1 and text.splitlines()[1].split()[:5] == ["order-placed", "1", "0", "0", "2"]
    code, text = run(capsys, "dead", "order-placed", "--broker", queue)
    assert code == 1 and text.count("no such customer") == 2 and '{"n":1}' in text
    code, text = run(capsys, "dead", "order-placed", "--broker", queue, "--json")
    ids = [letter["id"] for letter in json.loads(text)["dead"]]
    assert len(ids) == 2
    code, text = run(capsys, "revive", "order-placed", *ids, "--broker", queue)
    assert (code, text.strip()) == (0, "2 of 2 put back into order-placed")
    code, text = run(capsys, queue, "--json")
    (depth,) = json.loads(text)["queues"]
    assert code == 0 and (depth["ready"], depth["dead"]) == (3, 0)


def test_what_is_not_there_is_not_brought_back(queue: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "revive", "order-placed", "nobody", "--broker", queue)
    assert (code, text.strip()) == (1, "0 of 1 put back into order-placed")


def test_an_empty_broker_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(_opened(f"sqlite:///{tmp_path}/new.db"))
    assert run(capsys, f"sqlite:///{tmp_path}/new.db") == (0, "no queues: nothing was ever put here\n")


async def _opened(url: str) -> None:
    async with urls.broker(url):
        pass


@pytest.mark.parametrize("words", [["dead"], ["revive", "x"], ["dead", "a", "b"], ["x", "y"]])
def test_wrong_words_are_2_and_say_the_right_ones(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run(capsys, *words)
    assert code == 2 and "`dead NAME`, or `revive NAME ID...`" in text


def test_an_unknown_scheme_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "carrier-pigeon://x")
    assert code == 2 and "this release knows memory://, sqlite://" in text
