"""Negative controls: each broken store is caught by the case that asks about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from atoll.engines.memory import MemoryStore, StoreKnobs
from atoll.engines.memory.world import Lease, Request, StoreWorld
from atoll.errors import Refused
from atoll.ports.register import Applied, Entry, Got, Observation, Unmet
from atoll.ports.store import Bookmark, Change, Delete, Granted, Operation, Put, Ranged
from atoll.verify import conformance, conformance_moving, conformance_store

CASES = dict(conformance_store.CASES)


class ForgetsAWrite(StoreWorld):
    def apply(self, then: Sequence[Operation]) -> tuple[Entry | None, ...]:
        results = super().apply(then)
        if self.revision % 7 == 0 and isinstance(then[0], Put):
            self._remove(then[0].key)
        return results


class AnswersOldReads(StoreWorld):
    def get(self, key: str) -> Got:
        got = super().get(key)
        if got.entry is not None and got.entry.revision == self.revision:
            return Got(None, self.revision - 1)
        return got


class UsesARevisionTwice(StoreWorld):
    def apply(self, then: Sequence[Operation]) -> tuple[Entry | None, ...]:
        if self.revision % 5 == 4:
            self.revision -= 1
        return super().apply(then)


class KeepsTheOldLife(StoreWorld):
    def _remove(self, key: str) -> Entry | None:
        gone = super()._remove(key)
        if gone is not None:
            self.lives = {**getattr(self, "lives", {}), key: gone.create_revision}
        return gone

    def _write(self, operation: Put) -> Entry:
        entry = super()._write(operation)
        life = getattr(self, "lives", {}).get(operation.key, entry.create_revision)
        self.entries[entry.key] = Entry(entry.key, entry.value, entry.revision, life, entry.lease)
        return self.entries[entry.key]


class AppliesHalf(StoreWorld):
    def transact(self, request: Request) -> Applied | Unmet:
        answer = super().transact(request)
        if isinstance(answer, Unmet) and request.then:
            self.apply(request.then[:1])
        return answer


class ShowsOneKeyOfUnmet(StoreWorld):
    def transact(self, request: Request) -> Applied | Unmet:
        answer = super().transact(request)
        return Unmet(dict(list(answer.entries.items())[:1]), 0) if isinstance(answer, Unmet) else answer


class WritesBeforeItAsksForTheLease(StoreWorld):
    def transact(self, request: Request) -> Applied | Unmet:
        free = [part for part in request.then if isinstance(part, Put) and part.lease is None]
        if free and len(free) < len(request.then):
            self.apply(free)
        return super().transact(request)


class ForgetsRequests(StoreWorld):
    def _remember(self, request_id: str | None) -> None:
        return None


class RemembersRefusals(StoreWorld):
    def transact(self, request: Request) -> Applied | Unmet:
        answer = super().transact(request)
        if isinstance(answer, Unmet):
            self._remember(request.request_id)
        return answer


class EndsLeasesEarly(StoreWorld):
    def grant(self, ttl_s: float) -> Granted:
        granted = super().grant(ttl_s)
        self.leases[granted.lease].due -= 0.1
        self.next_due -= 0.1
        return granted


class NeverEndsLeases(StoreWorld):
    def sweep(self) -> None:
        return None


class EndsLeasesOnlyWhenAsked(StoreWorld):
    def arm(self) -> None:
        return None


class BringsLeasesBack(StoreWorld):
    def keep_alive(self, lease: str) -> float:
        if lease not in self.leases:
            self.leases[lease] = Lease(lease, 1.0, self.clock.lease_now() + 1.0)
        return super().keep_alive(lease)


class TakesAnyLease(StoreWorld):
    def _living(self, id: str) -> Lease:
        return self.leases.setdefault(id, Lease(id, 9.0, self.clock.lease_now() + 9.0))


class EndsALeaseKeyByKey(StoreWorld):
    def end(self, lease: Lease) -> None:
        for key in sorted(lease.keys):
            super().apply([Delete(key)])
        super().end(lease)


class EndsHalfALease(StoreWorld):
    def end(self, lease: Lease) -> None:
        if len(lease.keys) > 1:
            later = set(sorted(lease.keys)[1:])
            lease.keys -= later
            self.leases[lease.id + "'"] = Lease(lease.id + "'", 1.0, lease.due + 0.1, later)
        super().end(lease)


class KeepsTheOldLease(StoreWorld):
    def _write(self, operation: Put) -> Entry:
        before = self.entries.get(operation.key)
        entry = super()._write(operation)
        if before is not None and before.lease in self.leases:
            self.leases[before.lease].keys.add(operation.key)
        return entry


class TellsNoDeletes(StoreWorld):
    def _tell(self, change: Change) -> None:
        super()._tell(Change(change.at, change.changed, ()))


class TellsInParts(StoreWorld):
    def _tell(self, change: Change) -> None:
        for entry in change.changed:
            super()._tell(Change(change.at, (entry,), ()))
        super()._tell(Change(change.at, (), change.removed))


class SkipsSomeNews(StoreWorld):
    def _tell(self, change: Change) -> None:
        if change.at.revision % 10 != 3:
            super()._tell(change)


class SkipsAChange(StoreWorld):
    def changes_after(self, after: Bookmark) -> list[Change]:
        return [change for change in super().changes_after(after) if change.at.revision % 40 != 5]


class StartsWhereItCan(StoreWorld):
    def changes_after(self, after: Bookmark) -> list[Change]:
        oldest = self.revision - len(self.history)
        return super().changes_after(Bookmark(self.epoch, max(after.revision, oldest)))


class MixesCases(StoreWorld):
    def _write(self, operation: Put) -> Entry:
        return super()._write(Put(operation.key.lower(), operation.value, operation.lease))


class OrdersByUtf16(StoreWorld):
    def range(self, prefix: str, start: str | None, end: str | None, limit: int) -> Ranged:
        ranged = super().range(prefix, start, end, limit)
        found = sorted(ranged.entries, key=lambda entry: entry.key.encode("utf-16-be", "surrogatepass"))
        return Ranged(tuple(found), ranged.revision, ranged.more)


class ReadsPrefixesAsPatterns(StoreWorld):
    def range(self, prefix: str, start: str | None, end: str | None, limit: int) -> Ranged:
        if prefix.endswith(("%", "*")):
            prefix = prefix[:-1]
        return super().range(prefix, start, end, limit)


class IncludesTheEnd(StoreWorld):
    def range(self, prefix: str, start: str | None, end: str | None, limit: int) -> Ranged:
        return super().range(prefix, start, end + "\0" if end else end, limit)


class NeverSaysMore(StoreWorld):
    def range(self, prefix: str, start: str | None, end: str | None, limit: int) -> Ranged:
        return super().range(prefix, start, end, limit)._replace(more=False)


class StopsAtThousand(StoreWorld):
    def range(self, prefix: str, start: str | None, end: str | None, limit: int) -> Ranged:
        return super().range(prefix, start, end, min(limit, 1000))


class TearsRanges(MemoryStore):
    async def range(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int = 1000
    ) -> Ranged:
        first = await super().range(prefix, start=start, end=end, limit=limit)
        await asyncio.sleep(0)
        second = await super().range(prefix, start=start, end=end, limit=limit)
        return second._replace(entries=(*first.entries[:10], *second.entries[10:]))


class ChecksTheGuardBefore(MemoryStore):
    async def transact(self, *then: Operation, **asked: Any) -> Applied | Unmet:
        guard = asked.pop("guard", None)
        if guard is not None:
            owner = (await self.get(guard.owner_key)).entry
            if owner is None or guard.token != (await self.epoch(), owner.revision):
                raise Refused(f"{guard.owner_key} has another owner")
        return await super().transact(*then, **asked)


class IgnoresGuards(MemoryStore):
    async def transact(self, *then: Operation, **asked: Any) -> Applied | Unmet:
        asked.pop("guard", None)
        return await super().transact(*then, **asked)


class ComparesBefore(MemoryStore):
    async def transact(self, *then: Operation, **asked: Any) -> Applied | Unmet:
        judged = await super().transact(compare=asked.pop("compare", ()))
        return judged if isinstance(judged, Unmet) else await super().transact(*then, **asked)


class SkipsTheSnapshot(MemoryStore):
    async def observe(self, prefix: str) -> AsyncIterator[Observation]:
        async for item in super().observe(prefix):
            yield Observation(item.reset, () if item.reset else item.changed, item.removed, item.revision)


class TellsEverybodyEverything(MemoryStore):
    async def observe(self, prefix: str) -> AsyncIterator[Observation]:
        async for item in super().observe(prefix.rpartition("/")[0].rpartition("/")[0]):
            yield item


class IgnoresLimits(MemoryStore):
    def __init__(self) -> None:
        super().__init__(knobs=StoreKnobs(key_bytes_max=10_000, value_bytes_max=10_000))

    async def open(self) -> Any:
        import dataclasses

        return dataclasses.replace(await super().open(), key_bytes_max=200, value_bytes_max=300)


def world(kind: type[StoreWorld], knobs: StoreKnobs | None = None) -> Callable[[], MemoryStore]:
    return lambda: type("Broken", (MemoryStore,), {"world_type": kind})(knobs=knobs)


SHORT = StoreKnobs(history_max=10)
CONTROLS: list[tuple[Callable[[], MemoryStore], str]] = [
    (world(ForgetsAWrite), "what_was_answered_is_there"),
    (world(AnswersOldReads), "a_put_answers_the_entry_as_it_stands"),
    (world(AnswersOldReads), "what_was_answered_is_there"),
    (world(UsesARevisionTwice), "a_revision_names_one_transaction"),
    (world(KeepsTheOldLife), "a_recreated_key_lives_a_new_life"),
    (world(KeepsTheOldLife), "a_key_recreated_shows_its_new_life"),
    (world(AppliesHalf), "a_transaction_happens_whole_or_not_at_all"),
    (world(AppliesHalf), "put_if_and_delete_if_compare_the_revision"),
    (world(ShowsOneKeyOfUnmet), "a_transaction_happens_whole_or_not_at_all"),
    (world(WritesBeforeItAsksForTheLease), "a_put_under_an_ended_lease_writes_nothing"),
    (world(ForgetsRequests), "a_request_id_makes_a_retry_exact"),
    (world(ForgetsRequests), "one_request_id_at_once_is_applied_once"),
    (world(RemembersRefusals), "a_request_id_makes_a_retry_exact"),
    (world(EndsLeasesEarly), "a_lease_stands_as_long_as_it_was_granted_for"),
    (world(NeverEndsLeases), "a_lease_that_nobody_renews_ends_in_time"),
    (world(NeverEndsLeases), "no_reader_sees_half_of_an_ended_lease"),
    (world(EndsLeasesOnlyWhenAsked), "an_observer_hears_of_an_end_though_nobody_calls"),
    (world(BringsLeasesBack), "renewing_keeps_a_lease_and_its_end_is_final"),
    (world(BringsLeasesBack), "a_lease_unknown_or_revoked_is_over"),
    (world(TakesAnyLease), "a_lease_unknown_or_revoked_is_over"),
    (world(TakesAnyLease), "a_put_under_an_ended_lease_writes_nothing"),
    (world(EndsALeaseKeyByKey), "the_keys_of_a_lease_go_in_one_transaction"),
    (world(EndsHalfALease), "no_reader_sees_half_of_an_ended_lease"),
    (world(EndsHalfALease), "revoking_removes_the_keys_and_may_be_repeated"),
    (world(KeepsTheOldLease), "a_key_follows_its_last_put"),
    (world(TellsNoDeletes), "an_observer_sees_puts_overwrites_and_deletes"),
    (world(TellsNoDeletes), "an_observer_ends_up_with_the_picture_that_is_there"),
    (world(TellsNoDeletes), "an_observer_hears_of_an_end_though_nobody_calls"),
    (world(TellsInParts), "a_prompt_observer_hears_every_transaction_whole"),
    (world(TellsInParts), "changes_are_one_item_per_transaction"),
    (world(SkipsSomeNews), "a_prompt_observer_hears_every_transaction_whole"),
    (world(SkipsSomeNews), "many_observers_hear_the_same"),
    (world(SkipsAChange), "no_change_is_skipped_among_many"),
    (world(StartsWhereItCan, SHORT), "an_old_bookmark_is_compacted_or_complete"),
    (world(StartsWhereItCan, SHORT), "a_bookmark_of_another_epoch_is_refused"),
    (world(MixesCases), "keys_are_ordered_bytewise_and_none_are_confused"),
    (world(OrdersByUtf16), "keys_are_ordered_bytewise_and_none_are_confused"),
    (world(ReadsPrefixesAsPatterns), "a_prefix_means_itself"),
    (world(IncludesTheEnd), "a_range_includes_its_start_and_not_its_end"),
    (world(NeverSaysMore), "pages_join_without_a_gap"),
    (world(StopsAtThousand), "ten_thousand_children_are_listed"),
    (TearsRanges, "a_range_is_one_snapshot"),
    (ChecksTheGuardBefore, "a_guard_is_judged_inside_the_transaction"),
    (IgnoresGuards, "a_guard_is_judged_inside_the_transaction"),
    (IgnoresGuards, "a_guard_lets_only_the_owner_write"),
    (ComparesBefore, "nothing_is_written_twice_or_lost_by_many_writers"),
    (SkipsTheSnapshot, "the_first_observation_is_the_whole_state"),
    (TellsEverybodyEverything, "an_observer_hears_of_its_prefix_only"),
    (IgnoresLimits, "limits_are_kept_exactly"),
]


def title(control: Any) -> str:
    make, name = control
    kind = make.__closure__[0].cell_contents if not isinstance(make, type) else make
    return f"{kind.__name__}-{name}"


@pytest.mark.parametrize("control", [pytest.param(control, id=title(control)) for control in CONTROLS])
async def test_a_broken_store_is_caught(control: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make, name = control
    monkeypatch.setattr(conformance, "PATIENCE_S", 0.8)
    with pytest.raises(conformance.Violation) as caught:
        await CASES[name](make)
    assert len(str(caught.value)) > 15


def test_nearly_every_case_has_a_broken_store_to_catch() -> None:
    moving = {name for name, _ in conformance_moving.CASES}  # test_moving.py has theirs
    without = set(CASES) - moving - {name for _, name in CONTROLS}
    assert without == {
        "a_miss_carries_the_revision_too",
        "values_are_any_bytes",
        "results_come_in_the_order_of_the_operations",
        "each_comparison_says_what_it_says",
        "a_transaction_without_operations_only_looks",
        "a_key_is_written_once_in_a_transaction",
        "an_empty_key_is_refused",
        "the_epoch_is_one_or_more",
        "a_handle_is_inert_and_opens_by_itself",
        "a_handle_works_from_another_event_loop",
        "an_empty_range_carries_the_revision",
        "an_observed_key_is_itself_and_all_below",
        "one_transaction_has_one_lease",
        "an_idle_observation_is_not_lost",
    }
