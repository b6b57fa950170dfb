"""A counter is exact: no add lost, none done twice, whatever is lost on the way."""

from __future__ import annotations

import asyncio

import pytest
from recipe_weather import LONG, STORMS, WEAK

import atoll
from atoll import ConfigurationError, Conflict, FormatRefused, OutcomeUnknown, put
from atoll.blocks import Counter
from atoll.blocks import counter as counters
from atoll.blocks.session import again
from atoll.ports.store import Store, unchanged
from atoll.testing import Duplicated, ReplyLost, RequestLost, Weather, World, simulated, through


class Book:
    """What was answered, and what may have been added besides."""

    def __init__(self) -> None:
        self.sure = 0
        self.perhaps = 0


async def add(world: World, book: Book, times: int) -> None:
    counter = Counter(world.store(knobs=WEAK), "x")
    for n in range(times):
        number = n % 3 + 1
        try:
            await counter.add(number)
            book.sure += number
        except OutcomeUnknown:
            book.perhaps += number
        except atoll.NotApplied:
            pass


@pytest.mark.parametrize("storm", STORMS)
def test_no_add_is_lost_and_none_is_done_twice_when(storm: str) -> None:
    @simulated(seeds=12 * LONG, weather=STORMS[storm])
    async def run(world: World) -> None:
        book = Book()
        await asyncio.gather(*[world.process(f"p{n}").run(add(world, book, 12)) for n in range(5)])
        world.weather = Weather()
        await asyncio.sleep(5)  # what comes late has come
        total = await world.process("calm").run(Counter(world.store(), "x").get())
        assert book.sure <= total <= book.sure + book.perhaps
        assert book.sure >= 60
        if storm == "requests arrive twice":
            assert book.perhaps == 0

    run()


@pytest.mark.parametrize("fault", [ReplyLost, RequestLost, Duplicated])
async def test_the_fate_of_each_lost_call_is_found_out(fault: type) -> None:
    for nth in range(1, 6):
        store = atoll.store("memory://")
        faulty: Store = through(store, fault("transact", "get", nth=nth))
        for n in range(1, 8):
            assert await Counter(faulty, "x").add() == n, (nth, n)
        assert await Counter(store, "x").get() == 7


async def test_a_lost_answer_is_found_out_behind_the_adds_of_others() -> None:
    store = atoll.store("memory://")
    lossy = through(store, ReplyLost("transact", nth=1))
    get = lossy.get
    seen = 0

    async def others_first(key: str) -> object:
        nonlocal seen
        seen += 1
        if seen == 2:  # our first try was applied and its answer lost: now 31 others
            for _ in range(counters.RECENT - 1):
                await Counter(store, "x").add()
        return await get(key)

    lossy.get = others_first  # type: ignore[method-assign, assignment]
    assert await Counter(lossy, "x").add(5) == 5
    assert await Counter(store, "x").get() == 5 + counters.RECENT - 1


async def test_what_cannot_be_found_out_any_more_is_said_to_be_unknown() -> None:
    store = atoll.store("memory://")
    lossy = through(store, ReplyLost("transact", nth=1))
    get = lossy.get
    seen = 0

    async def others_first(key: str) -> object:
        nonlocal seen
        seen += 1
        if seen == 2:
            for _ in range(counters.RECENT):
                await Counter(store, "x").add()
        return await get(key)

    lossy.get = others_first  # type: ignore[method-assign, assignment]
    with pytest.raises(OutcomeUnknown, match="Read it and decide") as unknown:
        await Counter(lossy, "x").add(5)
    assert unknown.value.id


async def test_who_is_always_beaten_is_told_that_nothing_was_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "ATTEMPTS", 5)
    store = atoll.store("memory://")
    get = store.get

    async def beaten(key: str) -> object:
        answer = await get(key)
        await store.transact(put(key, b'{"value":7}'))
        return answer

    store.get = beaten  # type: ignore[method-assign, assignment]
    with pytest.raises(Conflict, match="Nothing of ours was counted"):
        await Counter(store, "x").add()


async def test_it_starts_at_zero_counts_down_too_and_is_watched() -> None:
    counter, seen = Counter(atoll.store("memory://"), "x"), []
    assert await counter.get() == 0

    async def watch() -> None:
        async for number in counter.watch():
            seen.append(number)
            if number == -2:
                return

    watching = asyncio.create_task(watch())
    assert [await counter.add(3), await counter.add(-5)] == [3, -2]
    async with asyncio.timeout(10):
        await watching
    assert seen[-1] == -2
    assert await Counter(counter.store, "other").get() == 0


async def test_many_in_one_process_are_all_counted() -> None:
    counter = Counter(atoll.store("memory://"), "x")
    async with asyncio.timeout(60):
        numbers = await asyncio.gather(*[counter.add() for _ in range(30)])
    assert sorted(numbers) == list(range(1, 31))


async def test_what_is_no_number_is_refused() -> None:
    store = atoll.store("memory://")
    with pytest.raises(ConfigurationError, match="whole number"):
        await Counter(store, "x").add(1.5)  # type: ignore[arg-type]
    await store.transact(put("counter/x/value", b"seven"))
    with pytest.raises(FormatRefused, match="holds no number"):
        await Counter(store, "x").get()
    await store.transact(put("counter/x/value", b'{"value":7,"format":2}'))
    with pytest.raises(FormatRefused, match="Upgrade"):
        await Counter(store, "x").add()


async def naive(store: Store, number: int) -> None:
    """Negative control: reads, adds, writes if unchanged, and asks again when the answer was lost."""
    while True:
        entry = (await again(lambda: store.get("counter/x/value"))).entry
        tally = counters.read_tally(entry)
        text = counters.msgspec.json.encode(counters.Tally(value=(tally.value if tally else 0) + number))
        try:
            same = unchanged("counter/x/value", entry.revision if entry else 0)
            answer = await store.transact(put("counter/x/value", text), compare=[same])
        except OutcomeUnknown:
            continue
        if hasattr(answer, "results"):
            return


@simulated(seeds=3, weather=Weather(reply_lost=0.1))
async def test_the_sum_catches_a_counter_that_asks_again_blindly(world: World) -> None:
    store = world.store(knobs=WEAK)
    for _ in range(100):
        await naive(store, 1)
    assert await Counter(world.store(), "x").get() > 100
