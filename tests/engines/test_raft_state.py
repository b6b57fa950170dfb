"""4.4: the state does what a Store promises, answers a repeated command alike, outlives one that raises."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atoll.algorithms.raft.messages import Entry, Kind, Membership
from atoll.algorithms.raft.sessions import CLIENTS_MAX
from atoll.engines.parts.notices import Notice
from atoll.engines.raft import command, state_writing
from atoll.engines.raft.command import (
    Bump,
    Command,
    Done,
    Ended,
    Error,
    Expire,
    Freeze,
    Frozen,
    Grant,
    Granted,
    GuardRefused,
    Late,
    LeaseGone,
    Raised,
    Replayed,
    Result,
    Revoke,
    Transact,
    Unmet,
)
from atoll.engines.raft.state import State
from atoll.errors import FormatRefused, LeaseOver, NotSent, OutcomeUnknown, ReadOnly, Refused
from atoll.ports.register import Applied
from atoll.ports.register import Entry as Stored
from atoll.ports.register import Unmet as UnmetAnswer
from atoll.ports.store import Token, absent, delete, put
from atoll.ports.store import equals as equal_to

HOUR = 1_700_000_000.0


class Member:
    """A state, and the log that it is fed from."""

    def __init__(self, path: Path) -> None:
        self.state = State(path)
        self.at = HOUR

    def entry(self, data: bytes, client: int = 0, sequence: int = 0) -> Entry:
        return Entry(1, self.state.applied + 1, Kind.COMMAND, data, client, sequence)

    def ask(self, *commands: Command, client: int = 0, sequence: int = 0) -> tuple[Result, ...]:
        data = command.stamp(command.pack(commands), self.at)
        (answer,) = self.state.apply([self.entry(data, client, sequence)])
        return command.unpack_results(answer)

    def do(self, one: Command) -> Result:
        (found,) = self.ask(one)
        return found

    def put(self, key: str, value: bytes, **more: Any) -> Result:
        return self.do(Transact(((key, value, more.pop("lease", None)),), **more))


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    made = Member(tmp_path / "state.db")
    yield made
    made.state.close()


# -- transactions --------------------------------------------------------------------------------------


def test_puts_and_deletes_have_revisions_and_are_read_back(member: Member) -> None:
    assert member.put("a", b"1") == Done(1, (1,))
    assert member.put("a", b"2") == Done(2, (1,))
    assert member.do(Transact((("a", None, None), ("b", b"3", None), ("c", None, None)))) == Done(
        3, (("a", b"2", 2, 1, None), 3, None)
    )
    assert member.state.get("a").entry is None
    assert member.state.get("b") == (Stored("b", b"3", 3, 3), 3)
    assert [one.key for one in member.state.range("", None, None, 10).entries] == ["b"]
    assert member.put("a", b"4") == Done(4, (4,)), "another life of the key"


def test_a_comparison_that_does_not_hold_writes_nothing(member: Member) -> None:
    member.put("a", b"1")
    asked = Transact((("a", b"2", None),), (("a", 2, b"0"), ("b", 0, 0)))
    assert member.do(asked) == Unmet((("a", b"1", 1, 1, None),), 1)
    assert member.do(Transact((("a", b"2", None),), (("a", 2, b"1"), ("b", 0, 0)))) == Done(2, (1,))


def test_a_guard_compares_token_and_epoch(member: Member) -> None:
    member.put("lock", b'{"owner": "one"}')
    assert member.put("x", b"", guard=("lock", 1, 1)) == Done(2, (2,))
    assert member.put("x", b"", guard=("lock", 1, 7)) == GuardRefused(
        ("lock", b'{"owner": "one"}', 1, 1, None), 1, 2
    )
    assert member.do(Bump(4)) == Raised(5)
    assert isinstance(member.put("x", b"", guard=("lock", 1, 1)), GuardRefused)


def test_a_request_id_is_applied_once_within_its_window(member: Member) -> None:
    assert member.put("a", b"1", request_id="r") == Done(1, (1,))
    assert member.put("a", b"1", request_id="r") == Replayed(1)
    member.at += state_writing.DEDUPE_WINDOW_S + 1
    assert member.put("a", b"1", request_id="r") == Done(2, (1,))


def test_a_frozen_store_refuses_writes_and_says_why(member: Member) -> None:
    member.put("a", b"1", request_id="r")
    assert member.do(Freeze("moved to etcd")) == Ended()
    assert member.put("a", b"2") == Frozen("moved to etcd")
    assert member.put("a", b"2", request_id="r") == Replayed(1)
    assert member.do(Transact((), (("a", 2, b"1"),))) == Done(1), "comparing is no write"
    assert member.state.frozen() == "moved to etcd"
    member.do(Freeze(None))
    assert (member.put("a", b"2"), member.state.frozen()) == (Done(2, (1,)), None)


def test_a_transaction_without_operations_is_judged_without_the_log(member: Member) -> None:
    member.put("a", b"1")
    assert member.state.judge(Transact((), (("a", 2, b"1"),))) == Done(1)
    assert member.state.judge(Transact((), (("a", 2, b"2"),))) == Unmet((("a", b"1", 1, 1, None),), 1)


# -- leases --------------------------------------------------------------------------------------------


def test_a_lease_ends_as_one_transaction_of_all_its_keys(member: Member) -> None:
    assert member.do(Grant("l", 0.01)) == Granted(command.TTL_MIN_S)
    assert member.do(Grant("l", 60)) == Granted(command.TTL_MIN_S), "asked again it is the same lease"
    assert member.do(Grant("m", float("nan"))) == Granted(command.TTL_MIN_S)
    assert member.do(Grant("n", 1e12)) == Granted(command.TTL_MAX_S)
    member.put("b", b"", lease="l")
    member.put("a", b"", lease="l")
    assert member.state.leases() == {"l": 1.0, "m": 1.0, "n": command.TTL_MAX_S}
    assert member.do(Expire(("l", "m", "gone"))) == Ended()
    page = member.state.look("", 2)
    assert [(c.at.revision, c.removed) for c in page.changes] == [(3, ("a", "b"))]
    assert member.put("a", b"", lease="l") == LeaseGone("l")
    assert member.do(Revoke("n")) == Ended()
    assert (member.state.leases(), member.state.revision()) == ({}, 3)


# -- once, and only once -------------------------------------------------------------------------------


def test_a_command_sent_twice_is_done_once_and_answered_alike(member: Member) -> None:
    asked = Transact((("n", b"1", None),), (("n", 0, 0),))
    first = member.ask(asked, client=9, sequence=1)
    assert member.ask(asked, client=9, sequence=1) == first == (Done(1, (1,)),)
    member.state.close()
    member.state = State(member.state.path)
    assert member.ask(asked, client=9, sequence=1) == first, "also after a restart"
    assert member.ask(asked, client=9, sequence=2) == (Unmet((("n", b"1", 1, 1, None),), 1),)
    (late,) = member.ask(asked, client=9, sequence=1)
    assert isinstance(late, Late)
    (forgotten,) = member.ask(asked, client=10, sequence=5)
    assert isinstance(forgotten, Late) and "silent" in forgotten.sentence


def test_a_command_twice_in_one_batch_is_done_once(member: Member) -> None:
    data = command.pack([Transact((("n", b"1", None),))])
    entries = [Entry(1, n, Kind.COMMAND, data, 1 << 63 | 5, 1) for n in (1, 2, 3)]
    answers = member.state.apply(entries)
    assert answers[0] == answers[1] == answers[2]
    assert member.state.revision() == 1


def test_who_was_silent_longest_is_forgotten_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_writing, "CLIENTS_MAX", 3)
    assert CLIENTS_MAX > 3
    member = Member(tmp_path / "state.db")
    for client in (1, 2, 3):
        member.ask(Bump(), client=client, sequence=1)
    member.ask(Bump(), client=1, sequence=2)
    member.ask(Bump(), client=4, sequence=1)
    assert isinstance(member.ask(Bump(), client=2, sequence=1)[0], Raised), "it begins anew"
    assert isinstance(member.ask(Bump(), client=3, sequence=2)[0], Late)
    assert isinstance(member.ask(Bump(), client=1, sequence=3)[0], Raised)
    count = member.state.read(lambda c: c.execute("SELECT count(*) FROM atoll_session").get)
    assert count == 3
    member.state.close()


def test_an_answer_too_long_to_keep_is_late_when_asked_again(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_writing, "RESULT_BYTES_MAX", 100)
    member.put("a", b"x" * 500)
    asked = Transact((("a", None, None),))
    assert isinstance(member.ask(asked, client=1, sequence=1)[0], Done)
    assert isinstance(member.ask(asked, client=1, sequence=1)[0], Late)
    assert member.state.revision() == 2


# -- commands that cannot be applied -------------------------------------------------------------------

GARBAGE = [
    b"",
    b"\x01",
    b"\x02" + bytes(8) + b"\x90",
    b"\x01" + bytes(8) + b"\xc1",
    b"\x01" + bytes(8) + msgspec.msgpack.encode([[99, "x"]]),
    b"\x01" + bytes(8) + msgspec.msgpack.encode([[1, [["k", 5, None]]]]),
    b"\x01" + bytes(8) + b"\x91\x92\x03\xa2\xff\xfe",
]


@pytest.mark.parametrize("data", GARBAGE)
def test_garbage_has_an_error_as_its_result_and_the_log_goes_on(member: Member, data: bytes) -> None:
    before, good = member.entry(data), command.pack([Transact((("k", b"", None),))])
    answers = member.state.apply([before, Entry(1, 2, Kind.COMMAND, good)])
    (error,) = command.unpack_results(answers[0])
    assert isinstance(error, Error) and error.sentence.startswith("found")
    assert command.unpack_results(answers[1]) == (Done(1, (1,)),)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_command_that_raises_changes_nothing_and_the_others_are_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    real = state_writing.Book._write

    def raises(self: Any, asked: Transact) -> Result:
        found = real(self, asked)
        if asked.then[0][0] == "bad":
            raise ZeroDivisionError("as a fault in the state machine would")
        return found

    monkeypatch.setattr(state_writing.Book, "_write", raises)
    member = Member(tmp_path / "state.db")
    keys = ["a", "bad", "b", "bad", "c"]
    entries = [
        Entry(1, n, Kind.COMMAND, command.pack([Transact(((key, b"", None),))]), 1, n)
        for n, key in enumerate(keys, 1)
    ]
    answers: list[bytes] = []
    for low in range(0, 5, batch):
        answers += member.state.apply(entries[low : low + batch])
    kinds = [type(command.unpack_results(one)[0]).__name__ for one in answers]
    assert kinds == ["Done", "Error", "Done", "Error", "Done"]
    assert [one.key for one in member.state.range("", None, None, 9).entries] == ["a", "b", "c"]
    assert member.state.revision() == 3
    again = member.state.apply([Entry(1, 6, Kind.COMMAND, entries[4].data, 1, 5)])
    assert again == answers[4:], "its session goes on"
    member.state.close()


def test_numbers_that_no_table_holds_are_an_error_of_that_command_alone(member: Member) -> None:
    (found,) = member.ask(Bump((1 << 64) - 1))
    assert isinstance(found, Error)
    assert (member.state.epoch(), member.do(Bump())) == (1, Raised(2))


# -- the log's other entries ---------------------------------------------------------------------------


def test_entries_that_are_no_commands_move_the_index(member: Member) -> None:
    members = Membership(("a", "b"), ("c",), places={"a": "h:1"})
    change = Entry(2, 2, Kind.MEMBERSHIP, msgspec.msgpack.encode(members))
    assert member.state.apply([Entry(2, 1, Kind.EMPTY, b""), change]) == [b"", b""]
    state = member.state
    assert (state.applied, state.applied_term, state.membership) == (2, 2, members)
    assert state.apply([change]) == [b""], "what was applied is passed over"
    state.close()
    state = member.state = State(state.path)
    assert (state.applied, state.applied_term, state.membership) == (2, 2, members)


def test_the_hour_never_goes_back(member: Member) -> None:
    member.put("a", b"1")
    member.at -= 100
    member.put("a", b"2")
    member.at += 200
    member.put("a", b"3")
    hours = member.state.read(lambda c: [row[0] for row in c.execute("SELECT at FROM atoll_event")])
    assert hours == [HOUR, HOUR, HOUR + 100]


def test_history_is_kept_up_to_a_count_and_an_age(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_writing, "HISTORY_MAX", 100)
    for _ in range(200):
        member.put("a", b"1")
    assert member.state.look("", None).oldest == 192 - 100 + 1
    member.at += state_writing.HISTORY_S_MAX + 1
    for _ in range(56):
        member.put("a", b"1")
    assert member.state.look("", None).oldest == 201, "those before are too old"


def test_whoever_watches_is_told_what_a_batch_touched(member: Member) -> None:
    told: list[Notice] = []
    member.state.on_commit.append(told.append)
    member.put("a", b"1")
    member.do(Transact((("a", None, None), ("b", b"2" * 5000, None))))
    member.do(Bump())
    assert [(one.before, one.newest) for one in told] == [(0, 1), (1, 2)]
    assert told[0].lines is not None and told[1].lines is not None
    assert [(line.key, line.put, line.entry) for line in told[0].lines] == [
        ("a", True, Stored("a", b"1", 1, 1))
    ]
    assert [(line.key, line.put, line.entry) for line in told[1].lines] == [
        ("a", False, None),
        ("b", True, None),
    ]


def test_reading_goes_on_while_entries_are_applied(member: Member) -> None:
    """Every answer is one moment's: all keys of a transaction, or none of it."""
    stop, torn, reads = threading.Event(), [], 0

    def watch() -> None:
        nonlocal reads
        while not stop.is_set():
            found = member.state.range("", None, None, -1)
            reads += 1
            if len({one.value for one in found.entries}) > 1 or len(found.entries) not in (0, 5):
                torn.append(found)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        number = 0
        while number < 300 or reads < 20:
            number += 1
            member.do(Transact(tuple((f"k{n}", b"%d" % number, None) for n in range(5))))
            assert number < 100_000
    finally:
        stop.set()
        thread.join()
    assert torn == []


def test_a_state_of_the_future_is_refused(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")
    with state._connection:
        state._connection.execute("UPDATE atoll_format SET number = 99 WHERE part = 'raft'")
    state.close()
    with pytest.raises(FormatRefused, match="format 99"):
        State(tmp_path / "state.db")


# -- results as the port says them ---------------------------------------------------------------------


class Held:
    owner_key = "lock"
    token = Token(1, 5)

    def check(self) -> None: ...


def test_a_result_becomes_the_answer_or_error_of_the_store_port() -> None:
    then = [put("a", b"1", lease="l"), delete("b"), delete("c")]
    asked = command.transact(then, [absent("a"), equal_to("z", b"q")], Held(), "r")
    assert asked == Transact(
        (("a", b"1", "l"), ("b", None, None), ("c", None, None)),
        (("a", 0, 0), ("z", 2, b"q")),
        ("lock", 1, 5),
        "r",
    )
    row = ("b", b"2", 3, 3, None)
    assert command.applied(Done(7, (4, row, None)), asked, "raft://x") == Applied(
        7, (Stored("a", b"1", 7, 4, "l"), Stored("b", b"2", 3, 3), None)
    )
    assert command.applied(Replayed(7), asked, "raft://x") == Applied(7, replayed=True)
    found = command.applied(Unmet((("a", b"9", 2, 2, None),), 6), asked, "raft://x")
    assert found == UnmetAnswer({"a": Stored("a", b"9", 2, 2), "z": None}, 6)
    errors: Sequence[tuple[Result, type[Exception], str]] = [
        (GuardRefused(None, 1, 9), Refused, "nobody holds it"),
        (
            GuardRefused(("lock", b'{"owner": "two"}', 8, 8, None), 1, 9),
            Refused,
            "two holds it with token 1:8",
        ),
        (LeaseGone("l"), LeaseOver, "lease l"),
        (Frozen("moved"), ReadOnly, "moved"),
        (Error("found nonsense."), NotSent, "Nothing of it was applied"),
        (Late("too old."), OutcomeUnknown, "too old"),
        (Raised(4), OutcomeUnknown, "Raised"),
    ]
    for result, kind, words in errors:
        with pytest.raises(kind, match=words):
            command.applied(result, asked, "raft://x")


def test_a_stamp_changes_the_hour_alone() -> None:
    packed = command.pack([Bump(3), Freeze("x")])
    assert command.unpack(command.stamp(packed, 5.5)) == (5.5, (Bump(3), Freeze("x")))
    assert command.stamp(b"xy", 5.5) == b"xy"
