"""Negative controls: each broken broker and tier is caught by the case that asks about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from atoll.engines.memory import BrokerKnobs, MemoryBroker, MemoryTier, TierKnobs
from atoll.engines.memory.counter import Counter, End, Item, Line
from atoll.engines.memory.tier import Shelf
from atoll.errors import LimitReached
from atoll.ports.broker import Accepted, Dead, Message, Settled, Taken
from atoll.ports.tier import Hit, Miss
from atoll.verify import conformance, conformance_broker, conformance_rack, conformance_tier

CASES = {**dict(conformance_broker.CASES), **dict(conformance_tier.CASES)}


class AcceptsLateAcknowledgements(Counter):
    def acknowledge_one(self, queue: str, receipt: str) -> Settled:
        settled = super().acknowledge_one(queue, receipt)
        return Settled.ACKED if settled is Settled.LATE else settled


class DropsWhatIsAcknowledgedLate(Counter):
    def acknowledge_one(self, queue: str, receipt: str) -> Settled:
        settled = super().acknowledge_one(queue, receipt)
        if settled is Settled.LATE:
            self.lines[queue].waiting.clear()
        return settled


class CountsAttemptsAfterwards(Counter):
    def _let_go(self, line: Line, item: Item, end: End) -> None:
        if end is End.OVER:
            item.attempts -= 1
        super()._let_go(line, item, end)


class TakesNoAttemptBack(Counter):
    def give_back(self, queue: str, receipt: str, delay_s: float, counted: bool = True) -> Settled:
        return super().give_back(queue, receipt, delay_s)


class TakesBackEachTimeItIsAsked(Counter):
    def give_back(self, queue: str, receipt: str, delay_s: float, counted: bool = True) -> Settled:
        settled = super().give_back(queue, receipt, delay_s)
        for item in self.lines[queue].items.values():
            item.attempts -= not counted
        return settled


class CountsNothingGivenBack(Counter):
    def give_back(self, queue: str, receipt: str, delay_s: float, counted: bool = True) -> Settled:
        return super().give_back(queue, receipt, delay_s, False)


class LosesWhatItsWorkerHeld(Counter):
    def sweep(self, line: Line) -> None:
        line.leases.clear()


class EndsLeasesEarly(Counter):
    def _hand_out(self, line: Line, queue: str, item: Item, lease_s: float, sent: float) -> Taken:
        return super()._hand_out(line, queue, item, lease_s / 2, sent + lease_s / 2)


class HandsOutTwice(Counter):
    def take(self, queue: str, most: int, lease_s: float, sent: float) -> Sequence[Taken]:
        taken = super().take(queue, most, lease_s, sent)
        for each in taken[:1]:
            self.give_back(queue, each.receipt, 0)
        return taken


class NoticesNoDuplicates(Counter):
    def _put_one(self, line: Line, message: Message) -> Accepted:
        line.seen.clear()
        return super()._put_one(line, message)


class ForgetsTheDone(Counter):
    def acknowledge_one(self, queue: str, receipt: str) -> Settled:
        settled = super().acknowledge_one(queue, receipt)
        if queue in self.lines:
            self.lines[queue].seen.clear()
            self.lines[queue].ended.clear()
        return settled


class KeepsNoDelay(Counter):
    def _put_one(self, line: Line, message: Message) -> Accepted:
        now = Message(id=message.id, body=message.body, key=message.key, headers=message.headers)
        return super()._put_one(line, now)


class LosesTheHeaders(Counter):
    def _put_one(self, line: Line, message: Message) -> Accepted:
        return super()._put_one(line, Message(id=message.id, body=message.body, key=message.key))


class BuriesWithoutATrace(Counter):
    def bury(self, queue: str, receipt: str, reason: str) -> Settled:
        settled = super().bury(queue, receipt, reason)
        if queue in self.lines:
            self.lines[queue].dead.clear()
        return settled


class RevivesWithOldAttempts(Counter):
    def revive(self, queue: str, ids: Sequence[str]) -> int:
        before: list[Dead] = list(self.dead(queue, 99))
        count = super().revive(queue, ids)
        for item in self.lines[queue].items.values():
            item.attempts = next((d.attempts for d in before if d.message.id == item.message.id), 0)
        return count


class DoesNotExtend(Counter):
    def extend(self, queue: str, receipt: str, lease_s: float) -> float | None:
        return lease_s


class CountsNoDepths(Counter):
    def _hand_out(self, line: Line, queue: str, item: Item, lease_s: float, sent: float) -> Taken:
        taken = super()._hand_out(line, queue, item, lease_s, sent)
        line.waiting.append((self.clock.lease_now() + 1e6, item.number))
        return taken


class PutsTheFirstOnes(MemoryBroker):
    async def put(self, queue: str, messages: Sequence[Message]) -> Sequence[Accepted]:
        try:
            return await super().put(queue, messages)
        except LimitReached:
            await super().put(queue, messages[:1])
            raise


class TakesMoreThanAsked(MemoryBroker):
    async def take(self, queue: str, most: int, *, lease_s: float, wait_s: float = 0.0) -> Sequence[Taken]:
        return await super().take(queue, most and most + 1, lease_s=lease_s, wait_s=wait_s)


class FillsWithAnySlip(Shelf):
    def _open_slip(self, key: str) -> str | None:
        return next((slip for slip, _ in [self.slips.get(key, ("", 0))] if slip), None) or self.last

    def _slip(self, key: str) -> str:
        self.last: str | None = super()._slip(key)
        return self.last

    last = None

    def invalidate_many(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._drop(key)


class InvalidatesOnlyTheCopy(Shelf):
    def invalidate_many(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._drop(key)


class InvalidatesOnlyTheSlip(Shelf):
    def invalidate_many(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.slips.pop(key, None)


class InvalidatesEverything(Shelf):
    def invalidate_many(self, keys: Sequence[str]) -> None:
        super().invalidate_many([*self.copies, *keys])


class KeepsNothing(Shelf):
    def fill(self, key: str, token: str, value: bytes, ttl_s: float) -> bool:
        return False


class KeepsForEver(Shelf):
    def fill(self, key: str, token: str, value: bytes, ttl_s: float) -> bool:
        return super().fill(key, token, value, 1e9)


class CountsNoVersions(Shelf):
    def _get(self, key: str) -> Hit | Miss:
        found = super()._get(key)
        return Hit(found.value, 1, found.age_s) if isinstance(found, Hit) else found


class EvictsNothing(Shelf):
    def fill(self, key: str, token: str, value: bytes, ttl_s: float) -> bool:
        filled = super().fill(key, token, value, ttl_s)
        self.bytes = 0
        return filled


class ExtendsCounters(Shelf):
    def increment(self, key: str, by: int, ttl_s: float) -> int:
        total = super().increment(key, by, ttl_s)
        self.counters[key] = (total, self.clock.lease_now() + ttl_s)
        return total


class CountsInTwoSteps(MemoryTier):
    async def increment(self, key: str, by: int, ttl_s: float) -> int:
        before = await super().increment(key, 0, ttl_s)
        self.world.counters[key] = (before + by, self.world.counters[key][1])
        return before + by


def broker(kind: type[Counter], knobs: BrokerKnobs | None = None) -> Callable[[], MemoryBroker]:
    return lambda: type("Broken", (MemoryBroker,), {"world_type": kind})(knobs=knobs)


def tier(kind: type[Shelf], knobs: TierKnobs | None = None) -> Callable[[], MemoryTier]:
    return lambda: type("Broken", (MemoryTier,), {"world_type": kind})(knobs=knobs)


CONTROLS: list[tuple[Callable[[], Any], str]] = [
    (broker(AcceptsLateAcknowledgements), "a_late_acknowledgement_is_late_though_nobody_took_it"),
    (broker(AcceptsLateAcknowledgements), "a_lease_that_ends_gives_the_message_to_somebody_else"),
    (broker(AcceptsLateAcknowledgements), "a_message_given_back_comes_again"),
    (broker(DropsWhatIsAcknowledgedLate), "a_late_acknowledgement_is_late_though_nobody_took_it"),
    (broker(CountsAttemptsAfterwards), "an_attempt_counts_though_its_worker_died"),
    (broker(TakesNoAttemptBack), "an_attempt_is_taken_back_when_it_shall_not_count"),
    (broker(TakesBackEachTimeItIsAsked), "an_attempt_is_taken_back_when_it_shall_not_count"),
    (broker(CountsNothingGivenBack), "an_attempt_is_taken_back_when_it_shall_not_count"),
    (broker(TakesBackEachTimeItIsAsked), "who_is_late_takes_no_attempt_back"),
    (broker(LosesWhatItsWorkerHeld), "an_attempt_counts_though_its_worker_died"),
    (broker(EndsLeasesEarly), "a_lease_that_ends_gives_the_message_to_somebody_else"),
    (broker(HandsOutTwice), "every_message_is_handed_out_once"),
    (broker(HandsOutTwice), "a_message_in_hand_is_nobody_elses"),
    (broker(NoticesNoDuplicates), "a_duplicate_is_noticed"),
    (broker(NoticesNoDuplicates), "a_duplicate_inside_one_put_is_noticed"),
    (broker(ForgetsTheDone), "a_duplicate_is_noticed_after_its_message_is_done"),
    (broker(ForgetsTheDone), "acknowledging_twice_says_the_same"),
    (broker(KeepsNoDelay), "a_delay_is_kept"),
    (broker(LosesTheHeaders), "a_message_comes_as_it_was_put"),
    (broker(BuriesWithoutATrace), "the_buried_stay_buried_until_revived"),
    (broker(RevivesWithOldAttempts), "the_buried_stay_buried_until_revived"),
    (broker(DoesNotExtend), "extending_keeps_a_message"),
    (broker(CountsNoDepths), "depths_tell_what_waits"),
    (PutsTheFirstOnes, "a_put_is_all_or_none_within_its_limits"),
    (TakesMoreThanAsked, "every_message_is_handed_out_once"),
    (tier(FillsWithAnySlip), "a_slip_is_for_one_key"),
    (tier(InvalidatesOnlyTheCopy), "an_invalidation_wins_over_a_fill"),
    (tier(InvalidatesOnlyTheCopy), "a_slip_after_the_invalidation_fills"),
    (tier(InvalidatesOnlyTheCopy), "many_loaders_never_leave_a_stale_copy"),
    (tier(InvalidatesOnlyTheSlip), "an_invalidation_wins_over_a_fill"),
    (tier(InvalidatesOnlyTheSlip), "an_invalidation_reaches_many_and_only_those"),
    (tier(InvalidatesEverything), "an_invalidation_reaches_many_and_only_those"),
    (tier(KeepsNothing), "a_filled_copy_is_found"),
    (tier(KeepsForEver), "a_copy_is_gone_after_its_time"),
    (tier(CountsNoVersions), "versions_rise_with_each_fill"),
    (tier(EvictsNothing, TierKnobs(bytes_max=2000)), "it_holds_no_more_than_it_claims"),
    (tier(ExtendsCounters), "a_counter_counts_and_is_forgotten"),
    (CountsInTwoSteps, "a_counter_counts_and_is_forgotten"),
]


def title(control: Any) -> str:
    make, name = control
    if isinstance(make, type):
        return f"{make.__name__}-{name}"
    kind = next(c.cell_contents for c in make.__closure__ if isinstance(c.cell_contents, type))
    return f"{kind.__name__}-{name}"


@pytest.mark.parametrize("control", [pytest.param(control, id=title(control)) for control in CONTROLS])
async def test_a_broken_engine_is_caught(control: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make, name = control
    monkeypatch.setattr(conformance_rack, "WAIT_S", 1.0)
    with pytest.raises(conformance.Violation) as caught:
        async with asyncio.timeout(30):
            await CASES[name](make)
    assert len(str(caught.value)) > 15
