"""4.10: members feed discovery: who announces a service is resolved and observed on all, until it is gone."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest
from members_crowd import QUICK, Crowd, until_here

from atoll.algorithms.swim.settings import Settings
from atoll.blocks import Members, MembersRegistry, Peer
from atoll.errors import ConfigurationError, Taken
from atoll.ports.registry import Instance, Registry

SETTINGS = Settings(**QUICK)  # type: ignore[arg-type]


def member(name: str, *seeds: str, **more: Any) -> Members:
    return Members(name, **{"listen": "127.0.0.1:0", "seeds": seeds, "settings": SETTINGS, **more})


def instance(id: str, **more: Any) -> Instance:
    return Instance(service="shop", id=id, url=f"http://10.0.0.7:8000/{id}", **more)


async def test_what_is_announced_is_resolved_on_all_until_it_is_taken_back() -> None:
    async with member("a", metadata={"zone": "1"}) as a, member("b", a.address) as b:
        here: Registry = MembersRegistry(a)
        there: Registry = MembersRegistry(b)
        shop = instance("api-1", weight=3, labels={"version": "2"})
        async with here.announce(shop), aclosing(there.observe("shop")) as news:  # type: ignore[type-var]
            found: list[Instance] = []
            while not found:
                found = list(await anext(news))
            assert found == [shop] == list(await here.resolve("shop")) == list(await there.resolve("shop"))
            assert list(await there.resolve("stock")) == []
        await until_here(lambda: (peer := b.peer("a")) is not None and peer.metadata == {"zone": "1"})
        assert list(await there.resolve("shop")) == []


async def test_a_member_sees_its_own_announcement_at_once() -> None:
    async with member("a") as a, aclosing(MembersRegistry(a).observe("shop")) as news:
        assert list(await anext(news)) == []
        async with MembersRegistry(a).announce(instance("api-1")):
            assert [one.id for one in await anext(news)] == ["api-1"]
            async with MembersRegistry(a).announce(Instance(service="stock", id="s", url="http://x")):
                assert [one.id for one in await MembersRegistry(a).resolve("stock")] == ["s"]
                assert [one.id for one in await MembersRegistry(a).resolve("shop")] == ["api-1"]
        assert list(await anext(news)) == []


@pytest.fixture
def crowds() -> Iterator[list[Crowd]]:
    found: list[Crowd] = []
    yield found
    for crowd in found:
        crowd.end()


async def test_who_is_suspected_gets_nothing_new_and_who_died_is_gone(crowds: list[Crowd]) -> None:
    async with member("a") as a, member("b", a.address) as b:
        plate = '["api-1","http://10.0.0.7:8000",5,{}]'
        crowds.append(Crowd("c", seeds=[a.address], metadata={"@shop": plate}))
        registry = MembersRegistry(b)
        async with aclosing(registry.observe("shop")) as news:
            weights = [-1]
            async for found in news:
                weights.append(found[0].weight if found else -1)
                if weights[-1] == 5:
                    crowds[0].signal(signal.SIGKILL)
                if weights[-1] == -1 and 5 in weights:
                    break
    assert 5 in weights and weights[-2:] == [0, -1]


async def test_garbage_where_an_announcement_should_stand_is_nobody() -> None:
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(member("a"))
        for number, garbage in enumerate(("", "{", "[1,2]", "null", '["x"]', '["x","y",1,{"z":1}]')):
            name = f"bad{number}"
            await stack.enter_async_context(member(name, a.address, metadata={"@shop": garbage}))
        await until_here(lambda: len(a.alive()) == 7)
        assert list(await MembersRegistry(a).resolve("shop")) == []


async def test_an_announcement_nested_beyond_all_measure_is_nobody() -> None:
    class Group:
        """As another group's member may be set: with more metadata than here."""

        def alive(self) -> list[Peer]:
            bad = '["x","y",1,{},' + "[" * 5000
            return [
                Peer("bad", "", {"@shop": bad}, "alive"),
                Peer("a", "", {"@shop": '["one","u"]'}, "alive"),
            ]

    registry = MembersRegistry(Group())  # type: ignore[arg-type]
    assert [one.id for one in await registry.resolve("shop")] == ["one"]


async def test_what_has_no_room_or_is_there_already_is_refused() -> None:
    async with member("a") as a:
        registry = MembersRegistry(a)
        with pytest.raises(ConfigurationError, match="at most 512"):
            async with registry.announce(instance("x" * 600)):
                pass
        async with registry.announce(instance("one")):
            with pytest.raises(Taken, match="one instance a member"):
                async with registry.announce(instance("two")):
                    pass
        assert a.metadata == {}


async def test_the_claims_grow_with_the_group() -> None:
    async with member("a") as a:
        alone = await MembersRegistry(a).open()
        async with member("b", a.address), member("c", a.address):
            await until_here(lambda: len(a.alive()) == 3)
            three = await MembersRegistry(a).open()
    assert alone.announces and three.disappears_max_s > alone.disappears_max_s > alone.appears_max_s > 0
