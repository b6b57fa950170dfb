"""4.1: exactly once by (client, sequence): a repeated command is not done again and gets its first result."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.algorithms.raft.sessions import FORMAT, Book, Line, Sessions, Verdict, verdict


class Counter:
    """A state that a command done twice would show: every command adds one and answers the sum."""

    def __init__(self, clients_max: int = 3) -> None:
        self.sum = 0
        self.sessions = Sessions(clients_max)

    def apply(self, client: int, sequence: int) -> str | int:
        found, result = self.sessions.judge(client, sequence)
        if found is Verdict.REPEATED:
            return int(result)
        if found is not Verdict.NEW:
            return found.value
        self.sum += 1
        self.sessions.remember(client, sequence, b"%d" % self.sum)
        return self.sum


def test_a_repeated_command_gets_its_first_result_and_is_not_done_again() -> None:
    state = Counter()
    assert [state.apply(1, 1), state.apply(2, 1), state.apply(1, 1), state.apply(2, 2)] == [1, 2, 1, 3]
    assert state.sum == 3


def test_a_sequence_lower_than_the_newest_is_late_and_never_done() -> None:
    state = Counter()
    state.apply(1, 1)
    state.apply(1, 5)
    assert [state.apply(1, 1), state.apply(1, 3), state.sum] == ["late", "late", 2]


def test_a_client_that_asks_for_no_session_has_each_command_done() -> None:
    state = Counter()
    assert [state.apply(0, 0), state.apply(0, 0)] == [1, 2]
    assert len(state.sessions) == 0


def test_who_was_silent_longest_is_forgotten_first_and_what_it_asks_again_is_not_done() -> None:
    state = Counter(clients_max=2)
    for client, sequence in [(1, 1), (2, 1), (1, 2), (3, 1)]:
        state.apply(client, sequence)
    assert state.apply(2, 2) == "forgotten"
    assert state.apply(1, 2) == 3
    assert state.sum == 4
    assert state.apply(2, 1) == 5, "a first command begins a session anew: a client must not reuse its id"


def test_a_repeated_command_does_not_make_its_client_younger() -> None:
    """Else two members, one of which saw a snapshot between, might forget different clients."""
    state = Counter(clients_max=2)
    for client, sequence in [(1, 1), (2, 1), (1, 1), (3, 1)]:
        state.apply(client, sequence)
    assert state.apply(1, 2) == "forgotten"


def test_a_result_that_is_too_long_is_not_kept_and_its_command_not_done_again() -> None:
    sessions = Sessions(result_bytes_max=4)
    sessions.remember(1, 1, b"12345")
    assert sessions.judge(1, 1) == (Verdict.LATE, b"")
    sessions.remember(1, 2, b"1234")
    assert sessions.judge(1, 2) == (Verdict.REPEATED, b"1234")


@pytest.mark.parametrize(
    ("last", "sequence", "expected"),
    [
        (0, 1, Verdict.NEW),
        (0, 2, Verdict.FORGOTTEN),
        (4, 5, Verdict.NEW),
        (4, 9, Verdict.NEW),
        (4, 4, Verdict.REPEATED),
        (4, 3, Verdict.LATE),
    ],
)
def test_the_verdict_is_by_the_newest_sequence(last: int, sequence: int, expected: Verdict) -> None:
    assert verdict(last, sequence) is expected


commands = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=60)


@given(commands, st.integers(0, 60))
def test_a_member_made_from_a_snapshot_answers_as_the_others_do(
    asked: list[tuple[int, int]], cut: int
) -> None:
    whole, early = Counter(), Counter()
    for command in asked[:cut]:
        assert whole.apply(*command) == early.apply(*command)
    late = Counter()
    late.sum = early.sum
    late.sessions.unpack(early.sessions.pack())
    for command in asked[cut:]:
        assert whole.apply(*command) == late.apply(*command)
    assert whole.sessions.pack() == late.sessions.pack()
    assert len(whole.sessions) <= 3


@given(commands)
def test_no_command_of_a_living_session_is_done_twice(asked: list[tuple[int, int]]) -> None:
    state = Counter(clients_max=100)
    done: list[tuple[int, int]] = []
    for client, sequence in asked:
        before = state.sum
        state.apply(client, sequence)
        if client and state.sum > before:
            assert (client, sequence) not in done
            done.append((client, sequence))


def test_what_is_no_book_of_sessions_is_refused() -> None:
    sessions = Sessions()
    sessions.remember(1, 1, b"x")
    later = msgspec.msgpack.encode(Book(FORMAT + 1, [Line(1, 1, b"")]))
    for packed in (later, b"", b"\xc1", sessions.pack()[:-1]):
        with pytest.raises(ValueError):
            sessions.unpack(packed)
    assert sessions.judge(1, 1) == (Verdict.REPEATED, b"x"), "a refused book changes nothing"
