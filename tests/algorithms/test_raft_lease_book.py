"""4.4: the leader's book of leases: never early, a whole time after an election, silent once deposed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.algorithms.raft.lease_book import LeaseBook


def test_a_new_leader_gives_every_lease_its_whole_time() -> None:
    book = LeaseBook()
    book.lead(100.0, {"a": 10.0, "b": 5.0})
    assert (book.remaining("a", 101.0), book.next_due) == (9.0, 105.0)
    assert book.due(104.9) == []
    assert book.due(105.0) == ["b"]
    assert book.due(106.0) == [], "each is told once"
    assert book.due(110.0) == ["a"]


def test_a_renewal_counts_from_when_leadership_was_confirmed() -> None:
    book = LeaseBook()
    book.lead(0.0, {"a": 10.0})
    assert book.renew("a", 8.0) == 10.0
    assert book.due(17.9) == []
    assert book.remaining("a", 17.0) == 1.0
    assert book.renew("a", 3.0) == 10.0, "an answer that was late takes nothing away"
    assert book.due(18.0) == ["a"]


def test_a_lease_whose_end_was_proposed_is_not_renewed() -> None:
    book = LeaseBook()
    book.lead(0.0, {"a": 1.0})
    assert book.due(1.0) == ["a"]
    assert (book.ending("a"), book.renew("a", 1.1), book.remaining("a", 1.1)) == (True, None, 0.0)
    book.ended("a")
    assert (book.ending("a"), book.renew("a", 1.2), book.remaining("a", 1.2)) == (False, None, None)


def test_an_end_that_was_not_taken_is_proposed_again_unless_renewed() -> None:
    book = LeaseBook()
    book.lead(0.0, {"a": 1.0, "b": 1.0})
    assert sorted(book.due(1.0)) == ["a", "b"]
    book.withdraw(["a", "b", "gone"])
    assert book.renew("b", 1.5) == 1.0
    assert book.due(1.6) == ["a"]
    assert book.due(2.5) == ["b"]


def test_who_is_deposed_knows_nothing() -> None:
    book = LeaseBook()
    book.lead(0.0, {"a": 1.0})
    book.depose()
    assert not book.leading
    assert (book.renew("a", 0.5), book.remaining("a", 0.5), book.due(9.0)) == (None, None, [])
    book.granted("b", 5.0, 1.0)
    assert book.remaining("b", 1.0) is None
    book.withdraw(["a"])
    assert book.next_due == float("inf")


def test_a_grant_counts_from_when_it_was_applied() -> None:
    book = LeaseBook()
    book.lead(0.0, {})
    book.granted("a", 2.0, 5.0)
    book.granted("a", 2.0, 6.0)
    assert (book.remaining("a", 5.0), book.next_due) == (2.0, 7.0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["grant", "renew", "due", "ended", "withdraw", "lead", "depose"]),
        st.sampled_from("abc"),
        st.floats(0.0, 5.0),
    ),
    max_size=60,
)


def _earliest(steps: list[tuple[str, str, float]], book: LeaseBook) -> list[str]:
    """Run `book`, and say where it ended a lease before the time that somebody was promised."""
    now, wrong = 0.0, []
    promised: dict[str, float] = {}
    stands: dict[str, float] = {}
    for act, lease, wait in steps:
        now += wait
        match act:
            case "grant":
                stands.setdefault(lease, 2.0)
                book.granted(lease, stands[lease], now)
                if book.leading:
                    promised.setdefault(lease, now + 2.0)
            case "renew":
                if (ttl_s := book.renew(lease, now)) is not None:
                    promised[lease] = now + ttl_s
            case "due":
                wrong += [one for one in book.due(now) if now < promised[one]]
            case "ended":
                stands.pop(lease, None)
                promised.pop(lease, None)
                book.ended(lease)
            case "withdraw":
                book.withdraw([lease])
            case "lead":
                book.lead(now, stands)
                promised |= {one: now + ttl_s for one, ttl_s in stands.items()}
            case "depose":
                book.depose()
    return wrong


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_no_lease_is_ended_before_its_time(steps: list[tuple[str, str, float]]) -> None:
    assert _earliest(steps, LeaseBook()) == []


class Hasty(LeaseBook):
    """Renews without writing it down."""

    def renew(self, lease: str, now: float) -> float | None:
        return self._ttl.get(lease)


def test_a_book_that_forgets_a_renewal_is_caught() -> None:
    """Negative control."""
    steps = [("lead", "a", 0.0), ("grant", "a", 0.0), ("renew", "a", 1.5), ("due", "a", 1.0)]
    assert _earliest(steps, Hasty()) == ["a"]
