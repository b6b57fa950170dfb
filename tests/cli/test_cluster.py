"""4.4: `atoll cluster` as its users see it: who stands how, who comes and goes, what is left."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import atoll
import atoll.urls
from atoll.cli.main import main
from atoll.errors import AtollError, NotApplied, OutcomeUnknown, Refused
from atoll.ports.store import Token, put
from engines.raft_ways import Held, another_leader, until
from servers import server

Said = pytest.CaptureFixture[str]


async def run(*words: str, code: int = 0) -> None:
    """The verb, in a thread of its own as it has a loop of its own."""
    assert await asyncio.to_thread(main, ["cluster", *words]) == code, words


async def test_a_member_comes_leads_and_goes(capsys: Said) -> None:
    async with server("raft", nodes=3) as cluster, atoll.urls.store(cluster.url) as store:
        await store.transact(put("k", b"1"))
        one = f"raft://{cluster.addresses[0]}"
        await run("status", one)
        said = capsys.readouterr().out
        head, *rows = said.splitlines()
        assert head.split() == "NAME ROLE TERM LOG COMMITTED APPLIED BEHIND ADDRESS".split()
        assert [row.split()[0] for row in rows[:3]] == ["a", "b", "c"]
        assert sum(" leader " in row for row in rows) == 1
        assert "any 1 of 3 voters may fail" in said

        await cluster.facts["join"]()
        address = cluster.facts["status"]
        place = (await address(3))["place"]
        await run("add", one, f"d={place}")
        shown = capsys.readouterr()
        assert "d is a learner" in shown.err and f"d at {place} votes" in shown.out
        await run("add", one, f"d={place}")  # again: nothing happens
        capsys.readouterr()
        await run("status", one, "--json", code=1)
        told = json.loads(capsys.readouterr().out)
        assert [member["name"] for member in told["members"] if member["votes"]] == ["a", "b", "c", "d"]
        assert "4 voters" in told["look"][0]

        await run("transfer", one, "d")
        assert capsys.readouterr().out == "d leads\n"
        assert await cluster.leader() == 3
        await store.transact(put("k", b"2"))
        await run("snapshot", one, "a")
        assert capsys.readouterr().out.startswith("a: the log begins at ")
        await run("remove", one, "d")
        shown = capsys.readouterr()
        assert "d leads: it hands over first" in shown.err and "d is a member no more" in shown.out
        cluster.members[3].kill()
        await store.transact(put("k", b"3"))
        await run("status", one)
        assert "127.0.0.1" in capsys.readouterr().out


async def test_a_learner_that_is_not_started_is_waited_for_and_not_made_to_vote(capsys: Said) -> None:
    async with server("raft") as cluster:
        await run("add", cluster.url, "b=127.0.0.1:1", "--wait", "0.5", code=1)
        assert "has not caught up in 0.5 s" in capsys.readouterr().out
        await run("status", cluster.url, "--json", code=1)
        told = json.loads(capsys.readouterr().out)
        assert [(one["name"], one["votes"]) for one in told["members"]] == [("a", True), ("b", False)]
        async with atoll.urls.store(cluster.url) as store:
            await store.transact(put("k", b"1"))  # a learner that is not there stops nothing
        await run("remove", cluster.url, "b")


async def test_who_is_down_is_named_and_without_a_majority_it_is_said(capsys: Said) -> None:
    async with server("raft", nodes=3) as cluster:
        first = await cluster.leader()
        cluster.members[first].kill()
        await another_leader(cluster, first)
        await run("status", cluster.url, code=1)
        said = capsys.readouterr().out
        name = "abc"[first]
        assert f"{name} does not answer" in said and " silent " in said and "nobody leads" not in said
        second = await cluster.leader()
        cluster.members[second].kill()
        await run("status", cluster.url, code=1)
        assert "1 of 3 voters answer and 2 are needed" in capsys.readouterr().out
        cluster.members[3 - first - second].kill()
        await run("status", f"{cluster.url}?ceiling_s=1", code=3)
        assert "could not be reached" in capsys.readouterr().err


async def test_one_folder_out_of_three_goes_on_at_a_higher_epoch(capsys: Said) -> None:
    async with server("raft", nodes=3) as cluster:
        old = atoll.urls.store(cluster.url)
        await old.transact(*(put(f"k{n}", b"%d" % n) for n in range(100)))
        owner = (await old.transact(put("owner", b"{}"))).results[0]  # type: ignore[union-attr]
        token = Token(await old.epoch(), owner.revision)
        watched = old.observe("k")
        assert len((await anext(watched)).changed) == 100
        leader = await cluster.leader()
        for member in cluster.members:
            member.kill()
        for n in range(3):
            if n != leader:
                shutil.rmtree(cluster.members[n].folder / "data")
        data = cluster.members[leader].folder / "data"
        await run("recover", str(data), code=2)
        assert "is lost" in (said := capsys.readouterr().err) and "--yes" in said
        await run("recover", str(data), "--yes", "--json")
        told = json.loads(capsys.readouterr().out)
        assert told["epoch"] == 2 and told["generation"] == 2 and Path(told["kept"]).is_dir()

        process = cluster.members[leader]
        await process.start()
        async with atoll.urls.store(f"raft://{cluster.addresses[2 * leader]}") as store:
            assert await store.epoch() == 2
            assert len((await store.range("k")).entries) == 100
            with pytest.raises(Refused):
                await store.transact(put("k0", b"late"), guard=Held("owner", token))
            await store.transact(put("k0", b"anew"))
            assert (await store.open()).incarnation.endswith(".2")

        async def goes_on() -> Any:
            try:
                return await old.epoch()
            except (NotApplied, OutcomeUnknown):
                return 0

        assert await until(goes_on, "a handle of before finds the recovered cluster") == 2
        async with asyncio.timeout(20):
            while not any(entry.value == b"anew" for entry in (await anext(watched)).changed):
                pass
        await old.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("status", "sqlite:///x.db"), "raft://"),
        (("add", "raft://127.0.0.1:1?ceiling_s=1"), "could not be reached"),
        (("recover", "/nowhere"), "no member's data"),
        (("dance", "raft://127.0.0.1:1"), "invalid choice"),
    ],
)
async def test_wrong_words_are_told_what_is_expected(words: tuple[str, ...], said: str, capsys: Said) -> None:
    try:
        code = await asyncio.to_thread(main, ["cluster", *words])
    except SystemExit as error:
        code = int(str(error.code))
    assert code in (2, 3)
    assert said in capsys.readouterr().err


async def test_an_address_that_makes_no_sense_is_refused(capsys: Said) -> None:
    async with server("raft") as cluster:
        for words, said in [
            (("add", cluster.url, "d"), "NAME=HOST:PORT"),
            (("add", cluster.url, f"d={cluster.addresses[0]}"), "another address"),
            (("remove", cluster.url), "found no name"),
            (("remove", cluster.url, "zz"), "found no member 'zz'"),
            (("remove", cluster.url, "a"), "would remain"),
            (("transfer", cluster.url, "zz"), "found no voter 'zz'"),
        ]:
            code = await asyncio.to_thread(main, ["cluster", *words])
            assert code in (2, 3), words
            assert said in (shown := capsys.readouterr().err), (words, shown)
    assert AtollError
