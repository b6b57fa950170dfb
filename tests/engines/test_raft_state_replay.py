"""4.4: the same commands make the same state, however they are batched, and wherever a member was stopped."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from atoll import clock
from atoll.algorithms.raft.messages import Entry, Kind, Membership
from atoll.engines.raft import command, state_writing
from atoll.engines.raft.command import Bump, Command, Expire, Freeze, Grant, Revoke, Transact
from atoll.engines.raft.state import State


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a short script reaches."""
    monkeypatch.setattr(state_writing, "CLIENTS_MAX", 5)
    monkeypatch.setattr(state_writing, "HISTORY_MAX", 100)
    monkeypatch.setattr(state_writing, "HISTORY_S_MAX", 40.0)
    monkeypatch.setattr(state_writing, "DEDUPE_WINDOW_S", 20.0)


def script(seed: int, count: int = 400) -> list[Entry]:
    """Entries of every kind: repeated, garbled, late, with hours that go back."""
    dice = random.Random(seed)
    entries: list[Entry] = []
    for index in range(1, count + 1):
        client = dice.randrange(8)
        sequence = dice.choice([index, index, 1, 2]) if client else 0
        hour = 1e9 + index / 4 + dice.choice([0, 0, -30, 3])
        commands = [_command(dice) for _ in range(dice.randrange(1, 4))]
        data = command.stamp(command.pack(commands), hour)
        kind = Kind.COMMAND
        match dice.randrange(30):
            case 0:
                data = bytes(dice.randrange(256) for _ in range(30))
            case 1:
                kind, data = Kind.EMPTY, b""
            case 2:
                members = Membership(("a", "b", f"m{index}"))
                kind, data = Kind.MEMBERSHIP, msgspec.msgpack.encode(members)
        entries.append(Entry(1 + index // 90, index, kind, data, client, sequence))
    return entries


def _command(dice: random.Random) -> Command:
    lease = f"l{dice.randrange(6)}"
    key = f"k{dice.randrange(12)}"
    match dice.randrange(14):
        case 0:
            return Grant(lease, dice.choice([0.0, 5.0, float("inf"), float("nan")]))
        case 1:
            return Revoke(lease)
        case 2:
            return Expire((lease, f"l{dice.randrange(6)}"))
        case 3:
            return Bump(dice.choice([0, 3, 1 << 63]))
        case 4 if dice.random() < 0.5:
            return Freeze(dice.choice(["moved", None, None]))
        case 5:
            return Transact(((key, None, None), (f"{key}x", b"y", None)), request_id=f"r{dice.randrange(9)}")
        case 6:
            return Transact(((key, b"g", None),), guard=(f"k{dice.randrange(12)}", 1, dice.randrange(50)))
        case 7:
            return Transact(((key, b"c", None),), ((key, dice.randrange(3), dice.randrange(9)),))
        case 8 | 9:
            return Transact(((key, b"l", lease),))
        case _:
            return Transact(((key, bytes([dice.randrange(256)]) * dice.randrange(40), None),))


def lived(path: Path, entries: Sequence[Entry], cuts: Sequence[int]) -> tuple[list[bytes], dict[int, str]]:
    """Results, and the digest at the end of each batch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = State(path)
    results: list[bytes] = []
    digests: dict[int, str] = {}
    for low, high in zip([0, *cuts], [*cuts, len(entries)], strict=True):
        results += state.apply(entries[low:high])
        digests |= dict([state.hash()])
    state.close()
    return results, digests


@pytest.mark.parametrize("seed", range(4))
def test_batches_of_any_size_make_the_same_state_and_results(tmp_path: Path, seed: int) -> None:
    entries = script(seed)
    one_by_one = lived(tmp_path / "1" / "s.db", entries, range(1, len(entries)))
    dice = random.Random(seed + 99)
    for name in range(3):
        cuts = sorted(dice.sample(range(1, len(entries)), dice.choice([1, 7, 60])))
        results, digests = lived(tmp_path / f"x{name}" / "s.db", entries, cuts)
        assert results == one_by_one[0]
        assert digests.items() <= one_by_one[1].items()
    kinds = {
        type(one).__name__ for packed in one_by_one[0] if packed for one in command.unpack_results(packed)
    }
    assert kinds >= {"Done", "Unmet", "GuardRefused", "LeaseGone", "Error", "Granted", "Raised", "Late"}, (
        kinds
    )


def test_a_state_that_asks_a_clock_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    real = state_writing.Book._write

    def clocked(self: state_writing.Book, asked: Transact) -> command.Result:
        self.at = clock.wall_now()
        return real(self, asked)

    monkeypatch.setattr(state_writing.Book, "_write", clocked)
    entries = script(1, 60)
    first = lived(tmp_path / "1" / "s.db", entries, [])
    assert lived(tmp_path / "2" / "s.db", entries, []) != first


def test_a_state_that_forgets_at_the_end_of_a_batch_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: who is forgotten must not depend on where a batch ends."""
    real_answer, real_finish = state_writing.Book.answer, state_writing.Book.finish

    def answer(self: state_writing.Book, entry: Entry, result: bytes) -> bytes:
        monkeypatch.setattr(state_writing, "CLIENTS_MAX", 1 << 30)
        return real_answer(self, entry, result)

    def finish(self: state_writing.Book) -> None:
        real_finish(self)
        while len(self._clients) > 5:
            self._forget(next(iter(self._clients)))

    monkeypatch.setattr(state_writing.Book, "answer", answer)
    monkeypatch.setattr(state_writing.Book, "finish", finish)
    entries = script(2)
    first = lived(tmp_path / "1" / "s.db", entries, range(1, len(entries)))
    assert lived(tmp_path / "2" / "s.db", entries, [])[0] != first[0]


def test_a_member_killed_in_any_batch_goes_on_to_the_same_state(tmp_path: Path) -> None:
    """The folder is copied after each batch, as kill -9 would leave it; the copy is given the rest."""
    entries = script(3, 120)
    path = tmp_path / "live" / "s.db"
    path.parent.mkdir()
    whole, digests = lived(tmp_path / "whole" / "s.db", entries, [])
    state = State(path)
    for low in range(0, 120, 8):
        state.apply(entries[low : low + 8])
        copy = tmp_path / f"copy{low}"
        shutil.copytree(path.parent, copy)
        killed = State(copy / "s.db")
        assert killed.applied == low + 8
        rest = killed.apply(entries[killed.applied :])
        assert rest == whole[low + 8 :]
        assert killed.hash() == (120, digests[120])
        killed.close()
    state.close()


KILLED = """
import sys
from pathlib import Path
from engines.test_raft_state_replay import script
from atoll.engines.raft.state import State
state, entries = State(Path(sys.argv[1])), script(5, 4000)
print("open", flush=True)
for low in range(0, len(entries), 16):
    state.apply(entries[low : low + 16])
    print(state.applied, flush=True)
"""


def test_a_process_killed_while_it_applies_leaves_a_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    entries = script(5, 4000)
    path = tmp_path / "s.db"
    tests = str(Path(__file__).resolve().parents[1])
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": tests},
    )
    assert child.stdout is not None
    said = 0
    while said < 160:
        line = child.stdout.readline()
        assert line, "it ended by itself"
        said = 0 if line.startswith("open") else int(line)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    state = State(path)
    applied, digest = state.hash()
    assert said <= applied < 4000
    state.close()
    reference = State(tmp_path / "reference.db")
    reference.apply(entries[:applied])
    assert reference.hash() == (applied, digest)
    reference.close()
