"""Several who write one CASPaxos register at once, and write down what they were answered.

As a program it is one of them: `caspaxos_crowd.py NAME HISTORY CHANGES URL...`.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import atoll.urls
from atoll.engines.caspaxos import CasPaxosOptions, CasPaxosRegister
from atoll.errors import NotApplied, OutcomeUnknown
from atoll.ports.register import ABSENT, Applied, Got, Register, Unmet
from atoll.ports.store import delete, put, unchanged
from atoll.verify.history import History, Transaction, load
from atoll.verify.judgement import Answer, Judgement
from atoll.verify.recorder import Pen
from atoll.verify.revisions import judge

SUM = "sum"
KEYS = ("a", "b", "c")


def register(urls: Sequence[str | Register], **options: object) -> CasPaxosRegister:
    """One handle on the acceptors at `urls`, or on those given."""
    return CasPaxosRegister(
        [atoll.urls.register(url) for url in urls],
        options=CasPaxosOptions(**options),  # type: ignore[arg-type]
    )


def files(folder: Path, count: int = 3) -> list[str]:
    """As many files, each in a folder of its own, which stands for a disk."""
    for n in range(count):
        (folder / f"disk{n}").mkdir(exist_ok=True)
    return [f"sqlite:///{folder}/disk{n}/state.db" for n in range(count)]


class Recorded:
    """A register whose calls are written down."""

    def __init__(self, inner: Register, book: History, name: str) -> None:
        self.inner, self.pen, self._count = inner, Pen(book, name), 0

    def value(self) -> str:
        """Never the same twice."""
        self._count += 1
        return f"{self.pen.process}-{self._count}"

    async def get(self, key: str) -> Got:
        found: Got = await self.pen.write("get", key, lambda: self.inner.get(key), _revision)
        return found

    async def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
        asked = Transaction((put(key, value),), (unchanged(key, revision),))
        done: Applied | Unmet = await self.pen.write(
            "transact", asked, lambda: self.inner.put_if(key, value, revision), _revision
        )
        return done

    async def delete_if(self, key: str, revision: int) -> Applied | Unmet:
        asked = Transaction((delete(key),), (unchanged(key, revision),))
        done: Applied | Unmet = await self.pen.write(
            "transact", asked, lambda: self.inner.delete_if(key, revision), _revision
        )
        return done


def _revision(answer: Got | Applied | Unmet) -> int:
    return answer.revision


async def add(mine: Recorded) -> bool:
    """One more, by compare and set; False where it is not known whether it was added."""
    while True:
        with suppress(NotApplied):
            entry = (await mine.get(SUM)).entry
            count = int(entry.value.split()[0]) if entry else 0
            value = f"{count + 1} {mine.value()}".encode()
            try:
                done = await mine.put_if(SUM, value, entry.revision if entry else ABSENT)
            except OutcomeUnknown:
                return False
            if isinstance(done, Applied):
                return True


async def wander(mine: Recorded, dice: random.Random, going: Callable[[], bool]) -> None:
    """Read, write and remove a few keys at random. An error is an answer too."""
    while going():
        key = dice.choice(KEYS)
        with suppress(NotApplied, OutcomeUnknown):
            entry = (await mine.get(key)).entry
            if entry is not None and dice.random() < 0.2:
                await mine.delete_if(key, entry.revision)
            else:
                await mine.put_if(key, mine.value().encode(), entry.revision if entry else ABSENT)


def judged(histories: Sequence[Path]) -> Judgement:
    """What the checker of revisions says of what they wrote down."""
    return judge(load(histories))


def expect_held(judgement: Judgement) -> None:
    """No answer was broken, and something was looked at."""
    assert judgement.answer is Answer.YES, "\n".join(map(str, judgement.violations)) or judgement.note


async def main(name: str, history: Path, changes: int, urls: list[str]) -> None:
    book = History(path=history)
    async with register(urls, ceiling_s=60.0) as inner:
        mine = Recorded(inner, book, name)
        print("ready", flush=True)
        sys.stdin.readline()
        left = [changes]

        def going() -> bool:
            left[0] -= 1
            return left[0] >= 0

        _, added = await asyncio.gather(wander(mine, random.Random(name), going), adding(mine, changes))
    book.close()
    print("done", added, changes - added, flush=True)


async def adding(mine: Recorded, changes: int) -> int:
    """How many of so many additions were acknowledged; of the others it is not known."""
    return sum([await add(mine) for _ in range(changes)])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
