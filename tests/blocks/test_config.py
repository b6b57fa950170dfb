"""A config: typed, watched, versioned, rolled back; and no two writers on one version."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import msgspec
import pydantic
import pytest
from recipe_weather import LONG, STORMS, WEAK, keys, until

import atoll
from atoll import ConfigurationError, Conflict, FormatRefused, NotReady, NotSent, OutcomeUnknown
from atoll.blocks import Config
from atoll.testing import Duplicated, ReplyLost, RequestLost, World, simulated, through


@dataclass
class Limits:
    rate: int = 100
    banner: str = ""


class Struct(msgspec.Struct):
    rate: int


class Model(pydantic.BaseModel):
    rate: int


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Limits, Limits(5, "hi")),
        (Struct, Struct(5)),
        (Model, Model(rate=5)),
        (dict[str, int], {"a": 1}),
        (int, 7),
    ],
)
async def test_what_was_set_is_read_in_its_own_type(kind: type, value: object) -> None:
    store = atoll.store("memory://")
    assert await Config(store, "x", kind).set(value) == 1
    assert await Config(store, "x", kind).get() == value


async def test_before_anything_is_set_there_is_the_default_or_a_sentence() -> None:
    store = atoll.store("memory://")
    assert await Config(store, "x", Limits, default=Limits(3)).get() == Limits(3)
    assert await Config(store, "x", Limits).version() is None
    with pytest.raises(NotReady, match="never set"):
        await Config(store, "x", Limits).get()


async def test_versions_are_counted_kept_so_many_and_rolled_back() -> None:
    config = Config(atoll.store("memory://"), "x", Limits, versions_max=5)
    for n in range(1, 9):
        assert await config.set(Limits(n), by="ann") == n
    history = await config.history()
    assert [(v.number, v.value, v.by) for v in history] == [(n, Limits(n), "ann") for n in range(4, 9)]
    assert await config.roll_back(5, by="bob") == 9
    now = await config.version()
    assert now is not None and (now.number, now.value, now.by) == (9, Limits(5), "bob")
    with pytest.raises(NotReady, match="version 3 of x is not kept"):
        await config.roll_back(3)
    assert len(await keys(config.store)) == 6


async def test_of_two_writers_on_one_version_one_is_told() -> None:
    config = Config(atoll.store("memory://"), "x", Limits)
    results = await asyncio.gather(
        *[config.set(Limits(n), expected=0) for n in range(5)], return_exceptions=True
    )
    assert sorted(str(type(r).__name__) for r in results) == ["Conflict"] * 4 + ["int"]
    with pytest.raises(Conflict, match=r"x is at version 1, expected 7: somebody else set it"):
        await config.set(Limits(), expected=7)
    with pytest.raises(Conflict):
        await config.roll_back(1, expected=7)
    assert len(await config.history()) == 1


@pytest.mark.parametrize("storm", STORMS)
def test_every_version_answered_is_there_once_when(storm: str) -> None:
    @simulated(seeds=10 * LONG, weather=STORMS[storm])
    async def run(world: World) -> None:
        answered: dict[int, int] = {}
        perhaps: set[int] = set()

        async def write(base: int) -> None:
            config = Config(world.store(knobs=WEAK), "x", int, versions_max=500)
            for n in range(base, base + 8):
                try:
                    number = await config.set(n)
                    assert number not in answered, "two were answered with one version"
                    answered[number] = n
                except OutcomeUnknown:
                    perhaps.add(n)
                except (NotSent, Conflict):
                    pass

        await asyncio.gather(*[world.process(f"p{b}").run(write(b)) for b in (0, 100, 200)])
        history = await world.process("calm").run(Config(world.store(), "x", int, versions_max=500).history())
        there = {version.number: version.value for version in history}
        assert list(there) == list(range(1, len(there) + 1))
        assert answered.items() <= there.items()
        values = [v for v in there.values() if v not in perhaps]
        assert len(values) == len(set(values)), "one set made two versions"
        assert len(answered) >= 15

    run()


@pytest.mark.parametrize("fault", [ReplyLost, RequestLost, Duplicated])
async def test_the_fate_of_each_lost_call_is_found_out(fault: type) -> None:
    for nth in range(1, 5):
        store = atoll.store("memory://")
        config = Config(through(store, fault("transact", "get", nth=nth)), "x", int)
        assert [await config.set(n, expected=n) for n in range(6)] == [1, 2, 3, 4, 5, 6]
        assert [version.value for version in await config.history()] == [0, 1, 2, 3, 4, 5]


async def test_watchers_see_the_default_and_each_new_value() -> None:
    store, seen = atoll.store("memory://?observe=coalesced"), []
    config = Config(store, "x", Limits, default=Limits(1))

    async def watch() -> None:
        async for limits in Config(store, "x", Limits, default=Limits(1)).watch():
            seen.append(limits.rate)

    watching = asyncio.create_task(watch())
    await until(lambda: seen == [1])
    for n in (2, 3):
        await config.set(Limits(n))
        await until(lambda n=n: seen[-1] == n)
    watching.cancel()
    assert seen == [1, 2, 3]


@simulated(seeds=20)
async def test_a_watcher_far_away_ends_with_the_newest_value(world: World) -> None:
    seen: list[int] = []

    async def watch() -> None:
        async for number in Config(world.store(knobs=WEAK), "x", int).watch():
            seen.append(number)

    world.process("w").run(watch())
    for n in range(20):
        await Config(world.store(), "x", int).set(n)
        if n == 10:
            world.cut("w")
        if n == 15:
            world.heal("w")
    async with asyncio.timeout(60):
        while seen[-1:] != [19]:
            await asyncio.sleep(0.1)
    assert seen == sorted(set(seen))


async def test_what_a_newer_program_wrote_is_refused_by_get_and_passed_over_by_watch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, seen = atoll.store("memory://"), []
    mine, theirs = Config(store, "x", Limits), Config(store, "x", dict[str, str])
    await mine.set(Limits(1))

    async def watch() -> None:
        async for limits in mine.watch():
            seen.append(limits.rate)

    watching = asyncio.create_task(watch())
    await until(lambda: seen == [1])
    with caplog.at_level(logging.ERROR, "atoll.config"):
        await theirs.set({"rate": "fast"})
        await until(lambda: "version 2 is unreadable; the one before stays" in caplog.text)
    with pytest.raises(FormatRefused, match=r"version 2 of x, set by .*, is not a Limits"):
        await mine.get()
    assert [version.value for version in await mine.history()] == [Limits(1), None]
    with pytest.raises(FormatRefused):
        await mine.roll_back(2)
    await mine.roll_back(1)
    watching.cancel()
    assert await mine.get() == Limits(1)


async def test_a_value_that_could_not_be_read_again_is_not_set() -> None:
    config = Config(atoll.store("memory://"), "x", Limits)
    with pytest.raises(ConfigurationError, match="found a dict; x is a Limits"):
        await config.set({"rate": 5})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="Not set"):
        await config.set(Limits(rate="fast"))  # type: ignore[arg-type]
    assert await config.version() is None
    with pytest.raises(ConfigurationError, match="1 or more"):
        Config(config.store, "x", Limits, versions_max=0)
    await config.store.transact(atoll.put("config/x/current", b"scribble"))
    with pytest.raises(FormatRefused, match="holds no version"):
        await config.get()
