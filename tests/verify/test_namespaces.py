"""3.4: partitions by dropped packets, in a network namespace of the clients' own."""

from __future__ import annotations

import asyncio
import os

import pytest

import servers
from atoll.verify import namespaces
from atoll.verify.run import Wish, run
from atoll.verify.scenario import Hardship
from atoll.verify.staging import Start

WHY = namespaces.no_namespaces(Start(product="redis")) or asyncio.run(namespaces.tried())
needs_namespaces = pytest.mark.skipif(bool(WHY), reason=WHY or "-")


@needs_namespaces
async def test_a_network_drops_what_it_is_told_counts_it_heals_and_goes() -> None:
    async with namespaces.network() as net:

        async def ping() -> int:
            child = await asyncio.create_subprocess_exec(
                *net.within(),
                *(
                    "python3",
                    "-c",
                    "import socket, sys; socket.create_connection((sys.argv[1], 9), timeout=0.5)",
                ),
                net.near,
                stderr=asyncio.subprocess.PIPE,
            )
            _, said = await child.communicate()
            return 1 if b"refused" in said else 0

        assert await ping() == 1, "an answer, although it is a no"
        for chains in (["OUTPUT"], ["INPUT"], ["INPUT", "OUTPUT"]):
            await net.drop(chains)
            assert await ping() == 0, "no answer at all"
            assert await net.heal() > 0
        assert await ping() == 1
        name = net.name
    assert not os.path.exists(f"/var/run/netns/{name}")


@needs_namespaces
async def test_redis_keeps_one_order_through_partitions() -> None:
    servers.expect("redis")
    [line] = (await run(Wish(start="redis", workloads=("partition",), seconds=4, seed=4))).lines
    assert line.verdict == "held", line.figures
    assert [b.times > 0 for b in line.bites if b.hardship is Hardship.NAMESPACE] == [True]


async def test_without_the_means_it_is_not_run_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    servers.expect("redis")
    monkeypatch.setattr(namespaces, "lacking", lambda *capabilities: "this needs root with CAP_NET_ADMIN")
    [line] = (await run(Wish(start="redis", workloads=("partition",), seconds=1, seed=4))).lines
    assert (line.verdict, "needs root" in line.figures) == ("not run", True)
