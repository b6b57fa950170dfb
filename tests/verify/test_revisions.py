"""A6: the revisions checker says yes to a true store and no to each broken one."""

from __future__ import annotations

import asyncio
import os
import random
import time
from dataclasses import replace
from typing import Any

import pytest

from atoll import clock
from atoll.engines.memory import MemoryStore
from atoll.engines.memory.knobs import StoreKnobs
from atoll.engines.memory.world import Lease, Request, StoreWorld
from atoll.errors import NotSent, OutcomeUnknown
from atoll.ports.register import Applied, Entry, Got, Observation, Unmet
from atoll.ports.store import Bookmark, Change, Granted, Put, Ranged, absent, delete, put
from atoll.verify import revisions
from atoll.verify.history import CALLS_MAX, Call, History, Span, Stream, Transaction, Type, load
from atoll.verify.judgement import Answer, Judgement
from atoll.verify.recorder import RecordingStore
from atoll.verify.scenario import Worker
from atoll.verify.workloads.keys import LEASES, OBSERVE, REGISTER, TRANSACT


async def play(store: Any, work: Any, *, seconds: float = 0.4, clients: int = 3, seed: int = 1) -> History:
    """A short run of a workload over one store."""
    book = History()
    until = clock.lease_now() + seconds
    await asyncio.gather(
        *(
            work(
                Worker(
                    handle=RecordingStore(store, book, f"p{n}"),
                    book=book,
                    process=f"p{n}",
                    prefix="v/",
                    dice=random.Random(seed * 100 + n),
                    until=until,
                    ttl_s=0.3,
                )
            )
            for n in range(clients)
        )
    )
    return book


def told(judgement: Judgement) -> str:
    return "\n".join(f"{v}\n  " + "\n  ".join(map(str, v.calls)) for v in judgement.violations[:3])


@pytest.mark.parametrize("workload", [REGISTER, TRANSACT, OBSERVE, LEASES], ids=lambda w: w.name)
@pytest.mark.parametrize(
    "knobs",
    [
        StoreKnobs(),
        StoreKnobs(latency_s=0.001, reply_loss=0.1, request_loss=0.1, ceiling_s=0.02),
        StoreKnobs(expiry_late_s=0.2, granted_ttl_factor=1.5, latency_s=0.001),
    ],
    ids=["true", "lossy", "late"],
)
async def test_a_true_store_is_never_accused(workload: Any, knobs: StoreKnobs) -> None:
    store = MemoryStore(knobs=knobs)
    history = await play(store, workload.work, seconds=0.9 if workload is LEASES else 0.4)
    judgement = revisions.judge(history, claims=await store.open())
    assert judgement.answer is Answer.YES, told(judgement)
    assert judgement.counts["writes"] > 5
    if knobs.reply_loss and workload is not LEASES:
        assert judgement.counts["without answer"] > 0
        assert judgement.counts["of them seen"] > 0
    if workload is LEASES:
        assert judgement.counts["leases ended"] > 0
    if workload is OBSERVE:
        assert judgement.counts["stream items"] > 20


class Forgets(StoreWorld):
    """Forgets one write in thirty."""

    def _write(self, operation: Put) -> Entry:
        entry = super()._write(operation)
        if self.revision % 30 == 0:
            self._remove(operation.key)
        return entry


class ForgetsHalf(StoreWorld):
    """Applies only the first operation of some transactions."""

    def apply(self, then: Any) -> tuple[Entry | None, ...]:
        if self.revision % 20 == 7 and len(then) > 1:
            kept = super().apply(then[:1])
            lie = [
                Entry(op.key, op.value, self.revision, self.revision)
                for op in then[1:]
                if isinstance(op, Put)
            ]
            return (*kept, *lie, *([None] * (len(then) - 1 - len(lie))))
        return super().apply(then)


class TornRange(StoreWorld):
    """Reads the second half of a range later than the first."""

    def __init__(self, knobs: StoreKnobs) -> None:
        super().__init__(knobs)
        self.before: tuple[Entry, ...] = ()

    def range(self, prefix: str, start: str | None, end: str | None, limit: int) -> Ranged:
        now = super().range(prefix, start, end, limit)
        half = len(now.entries) // 2
        old = {e.key: e for e in self.before}
        torn = tuple(old.get(e.key, e) for e in now.entries[:half]) + now.entries[half:]
        self.before = now.entries
        return Ranged(torn, now.revision, now.more)


class StaleRead(StoreWorld):
    """Answers some reads from a copy that lags behind, with the copy's own honest revision."""

    def __init__(self, knobs: StoreKnobs) -> None:
        super().__init__(knobs)
        self.copy: tuple[dict[str, Entry], int] = ({}, 0)
        self.asked = 0

    def get(self, key: str) -> Got:
        self.asked += 1
        if self.asked % 50 == 0:
            self.copy = (dict(self.entries), self.revision)
        if self.asked % 5 == 0:
            return Got(self.copy[0].get(key), self.copy[1])
        return super().get(key)


class RevisionReused(StoreWorld):
    """Two transactions share a revision now and then."""

    def apply(self, then: Any) -> tuple[Entry | None, ...]:
        if self.revision % 25 == 9:
            self.revision -= 1
        return super().apply(then)


class Dirty(StoreWorld):
    """Writes although a comparison did not hold."""

    def transact(self, request: Request) -> Applied | Unmet:
        answer = super().transact(request)
        if isinstance(answer, Unmet) and self.revision % 3 == 0:
            results = self.apply(request.then)
            return Applied(self.revision, results)
        return answer


class RefusesWrongly(StoreWorld):
    """Says Unmet of a comparison that holds."""

    def transact(self, request: Request) -> Applied | Unmet:
        if request.compare and self.revision % 20 == 3:
            return Unmet({c.key: self.entries.get(c.key) for c in request.compare}, self.revision)
        return super().transact(request)


class EarlySweep(StoreWorld):
    """Counts a renewal from the grant, not from the renewal."""

    def keep_alive(self, lease: str) -> float:
        return self._living(lease).ttl_s


class TwoSweeps(StoreWorld):
    """Removes the keys of a lease one transaction after the other."""

    def end(self, lease: Lease) -> None:
        for key in sorted(lease.keys)[:-1]:
            half = Lease(lease.id, lease.ttl_s, lease.due, {key})
            lease.keys.discard(key)
            super().end(half)
            self.leases[lease.id] = lease
        super().end(lease)


class NeverSweeps(StoreWorld):
    """Lets the keys of a lease stand."""

    def sweep(self) -> None:
        pass


class ComesBack(StoreWorld):
    """Renews a lease that is over."""

    def keep_alive(self, lease: str) -> float:
        if lease not in self.leases:
            return 1.0
        return super().keep_alive(lease)


class KeepsRevoked(StoreWorld):
    """Answers a revocation and does nothing."""

    def revoke(self, lease: str) -> None:
        pass


class LostDelete(StoreWorld):
    """Observers are not told of some removals."""

    def _tell(self, change: Change) -> None:
        self.history.append(change)
        heard = replace(change, removed=()) if change.at.revision % 5 == 0 else change
        for feed in tuple(self.feeds):
            if feed.prefix:
                feed.offer(heard)


class Gap(StoreWorld):
    """The changes skip a transaction now and then."""

    def changes_after(self, after: Bookmark) -> list[Change]:
        return [c for c in super().changes_after(after) if c.at.revision % 15]


class TornChange(StoreWorld):
    """The changes tell half of a transaction."""

    def changes_after(self, after: Bookmark) -> list[Change]:
        return [
            replace(c, changed=c.changed[:1]) if c.at.revision % 4 == 0 else c
            for c in super().changes_after(after)
        ]


class Twice(StoreWorld):
    """Applies a request again when it is asked again."""

    def _remembered(self, request_id: str | None) -> int | None:
        return None


BROKEN: list[tuple[type[StoreWorld], Any, set[str]]] = [
    (Forgets, REGISTER, {"write forgotten"}),
    (ForgetsHalf, TRANSACT, {"write forgotten", "removed key seen", "stale read"}),
    (TornRange, TRANSACT, {"stale read", "write forgotten", "removed key seen"}),
    (StaleRead, REGISTER, {"stale answer"}),
    (RevisionReused, REGISTER, {"revision reused", "revision not rising with time"}),
    (Dirty, TRANSACT, {"transaction on a false comparison", "write forgotten"}),
    (RefusesWrongly, REGISTER, {"refused without a reason"}),
    (EarlySweep, LEASES, {"early sweep"}),
    (TwoSweeps, LEASES, {"removed key seen", "removed in two transactions"}),
    (NeverSweeps, LEASES, {"late sweep"}),
    (ComesBack, LEASES, {"lease came back"}),
    (KeepsRevoked, LEASES, {"revoked lease stands"}),
    (LostDelete, OBSERVE, {"removal not observed"}),
    (Gap, OBSERVE, {"gap in the changes"}),
    (TornChange, OBSERVE, {"torn change"}),
    (Twice, TRANSACT, {"request applied twice"}),
]


@pytest.mark.parametrize(("world", "workload", "rules"), BROKEN, ids=[b[0].__name__ for b in BROKEN])
async def test_each_broken_store_is_caught(world: type[StoreWorld], workload: Any, rules: set[str]) -> None:
    class Broken(MemoryStore):
        world_type = world

    store = Broken(knobs=StoreKnobs(latency_s=0.0005))
    history = await play(store, workload.work, seconds=1.5 if workload is LEASES else 0.5)
    judgement = revisions.judge(history, claims=await store.open(), late_slack_s=0.1)
    assert judgement.answer is Answer.NO
    assert judgement.rules() & rules, str(judgement.rules()) + told(judgement)
    assert all(v.calls for v in judgement.violations), "a violation shows the calls that break it"


async def test_a_lost_reply_that_is_called_not_applied_is_caught() -> None:
    class Liar(MemoryStore):
        async def transact(self, *then: Any, **more: Any) -> Any:
            try:
                return await super().transact(*then, **more)
            except OutcomeUnknown as error:
                raise NotSent("nothing happened, or so this engine says") from error

    history = await play(Liar(knobs=StoreKnobs(reply_loss=0.2, ceiling_s=0.01)), REGISTER.work)
    judgement = revisions.judge(history)
    assert "not applied, yet seen" in judgement.rules(), told(judgement)


async def test_a_duplicated_request_is_caught() -> None:
    class Doubled(MemoryStore):
        turns = 0

        async def transact(self, *then: Any, **more: Any) -> Any:
            answer = await super().transact(*then, **more)
            self.turns += 1
            if self.turns % 10 == 0 and not more.get("request_id"):
                await super().transact(*then, **more)
            return answer

    history = await play(Doubled(), REGISTER.work)
    assert revisions.judge(history).answer is Answer.NO


def test_a_history_that_was_cut_short_or_saw_nothing_is_no_pass() -> None:
    assert revisions.judge(History()).answer is Answer.NOT_KNOWN
    book = History(calls_max=2)
    for number in range(3):
        book.note("p", "get", "k", Got(None, 0), revision=0)
        assert book.truncated is (number == 2)
    judgement = revisions.judge(book)
    assert judgement.answer is Answer.NOT_KNOWN
    assert "cut short" in judgement.note


async def test_a_history_survives_the_file_and_is_judged_the_same(tmp_path: Any) -> None:
    path = tmp_path / "p.jsonl"
    book = History(path=path)
    knobs = StoreKnobs(reply_loss=0.3, ceiling_s=0.01)
    lease = MemoryStore(name="file", knobs=knobs).world.grant(5.0).lease
    store = RecordingStore(MemoryStore(name="file", knobs=knobs), book, "p")
    for number in range(40):
        try:
            await store.transact(
                put("k", b"\xff%d" % number), put("l", b"x%d" % number, lease=lease), compare=[absent("m")]
            )
            await store.range("", limit=3)
            await store.transact(delete("k"))
        except OutcomeUnknown:
            pass
    book.close()
    with open(path, "ab") as file:
        file.write(b'{"torn by a ki')
    again = load([path])
    assert [str(call) for call in again.calls] == [str(call) for call in book.calls]
    assert list(again.lines()) == list(book.lines())
    assert revisions.judge(again).counts == revisions.judge(book).counts


def test_files_of_several_processes_are_put_in_order_of_time(tmp_path: Any) -> None:
    first, second = History(path=tmp_path / "a"), History(path=tmp_path / "b")
    a = first.begin("a", "get", "k")
    b = second.begin("b", "get", "k")
    first.end(a, Type.OK, Got(None, 0), revision=0)
    second.begin("b", "get", "never answered")
    second.end(b, Type.OK, Got(None, 0), revision=0)
    merged = load([tmp_path / "a", tmp_path / "b"])
    assert [call.process for call in merged.calls] == ["a", "b", "b"]
    assert merged.calls[2].ended is None
    assert merged.calls[2].type is Type.INFO


def synthetic(calls: int) -> History:
    """A true history made without a store: puts, reads, ranges and transactions on many keys."""
    book, dice = History(), random.Random(7)
    state: dict[str, Entry] = {}
    revision, place = 0, 0
    for number in range(calls):
        key = f"k/{dice.randrange(200):03d}"
        kind = dice.random()
        if kind < 0.4:
            revision += 1
            before = state.get(key)
            entry = Entry(key, b"%d" % number, revision, before.create_revision if before else revision)
            state[key] = entry
            asked: Any = Transaction((Put(key, entry.value),))
            call = Call("p", "transact", asked, place, place * 1e-6, Type.OK, place + 1, place * 1e-6 + 1e-7)
            call.answer = Applied(revision, (entry,))
        elif kind < 0.45:
            asked = Span("k/00", None, None, 1000)
            call = Call("p", "range", asked, place, place * 1e-6, Type.OK, place + 1, place * 1e-6 + 1e-7)
            found = tuple(state[k] for k in sorted(state) if k.startswith("k/00"))
            call.answer = Ranged(found, revision)
        else:
            call = Call("p", "get", key, place, place * 1e-6, Type.OK, place + 1, place * 1e-6 + 1e-7)
            call.answer = Got(state.get(key), revision)
        call.revision = revision
        book.calls.append(call)
        place += 2
    return book


def test_a_hundred_thousand_operations_are_judged() -> None:
    judgement = revisions.judge(synthetic(100_000))
    assert judgement.answer is Answer.YES, told(judgement)
    assert judgement.counts["calls"] == 100_000


@pytest.mark.long
@pytest.mark.skipif(os.environ.get("ATOLL_LONG") != "1", reason="long: set ATOLL_LONG=1")
def test_a_million_operations_are_judged_within_a_minute() -> None:
    assert CALLS_MAX >= 1_000_000
    history = synthetic(1_000_000)
    started = time.process_time()
    assert revisions.judge(history).answer is Answer.YES
    assert time.process_time() - started < 60


def notes(*items: tuple[str, Any, Any, int]) -> History:
    """A history of calls one after the other: (f, asked, answer, revision)."""
    book = History()
    for f, asked, answer, revision in items:
        book.note("p", f, asked, answer, revision=revision)
    return book


def wrote(key: str, value: bytes, revision: int, create: int | None = None, lease: str | None = None) -> Any:
    entry = Entry(key, value, revision, revision if create is None else create, lease)
    return "transact", Transaction((Put(key, value, lease),)), Applied(revision, (entry,)), revision


def test_an_observation_must_begin_with_a_reset_and_not_go_back() -> None:
    stream = Stream("s", "k")
    book = notes(
        wrote("k", b"1", 1),
        ("observation", stream, Observation(False, (Entry("k", b"1", 1, 1),), (), 1), 1),
    )
    assert revisions.judge(book).rules() == {"first item is no reset"}
    book = notes(
        wrote("k", b"1", 1),
        wrote("k", b"2", 2, 1),
        ("observation", stream, Observation(True, (Entry("k", b"2", 2, 1),), (), 2), 2),
        ("observation", stream, Observation(True, (Entry("k", b"1", 1, 1),), (), 1), 1),
    )
    assert "stream went back" in revisions.judge(book).rules()


def test_a_lease_that_ends_before_its_time_is_told_apart_from_one_that_was_revoked() -> None:
    def history(*, revoked: bool) -> History:
        book = History()
        book.note("p", "grant", 60.0, Granted("L", 60.0))
        book.note("p", *wrote("k", b"1", 1, lease="L")[:3], revision=1)
        if revoked:
            book.note("p", "revoke", "L", None)
        book.note("p", "get", "k", Got(None, 2), revision=2)
        return book

    assert revisions.judge(history(revoked=True)).answer is Answer.YES
    assert revisions.judge(history(revoked=False)).rules() == {"early sweep"}


def test_an_unanswered_delete_explains_an_absence_and_nothing_else_does() -> None:
    def history(*, asked: bool) -> History:
        book = notes(wrote("k", b"1", 1))
        if asked:
            call = book.begin("p", "transact", Transaction((delete("k"),)))
            book.end(call, Type.INFO, error="OutcomeUnknown")
        book.note("p", "get", "k", Got(None, 2), revision=2)
        return book

    assert revisions.judge(history(asked=True)).answer is Answer.YES
    assert revisions.judge(history(asked=False)).rules() == {"write forgotten"}
