"""4.5: a CASPaxos register on files and on Redis servers: what it survives, what it says where it cannot."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import caspaxos_crowd as crowd
from caspaxos_crowd import SUM, Recorded, expect_held, files, register

import atoll.urls
from atoll import clock
from atoll.engines.caspaxos import CasPaxosOptions, CasPaxosRegister
from atoll.engines.caspaxos.records import LINEAGE_MAX, NEVER, State
from atoll.engines.caspaxos.register import Decision
from atoll.engines.memory import MemoryStore
from atoll.errors import (
    ConfigurationError,
    EpochUncertain,
    FormatRefused,
    NotApplied,
    NotSent,
    OutcomeUnknown,
    WatchLost,
)
from atoll.ports.register import ABSENT, Applied, Got, Unmet
from atoll.ports.store import Durable, Observing, StoreClaims, put
from atoll.verify.history import History
from atoll.verify.judgement import Answer
from atoll.verify.revisions import judge
from atoll.verify.servers.redis import client_of
from servers import server


def applied(answer: Applied | Unmet) -> Applied:
    assert isinstance(answer, Applied), answer
    return answer


async def value_of(one: CasPaxosRegister, key: str) -> bytes | None:
    entry = (await one.get(key)).entry
    return None if entry is None else entry.value


class Gone(MemoryStore):
    """A place where nobody answers."""

    async def open(self) -> StoreClaims:
        raise NotSent("nobody is there")


def memories(name: str, count: int = 3, kind: type[MemoryStore] = MemoryStore) -> list[MemoryStore]:
    return [kind(name=f"{name}-{n}") for n in range(count)]


def on(stores: Any, **options: Any) -> CasPaxosRegister:
    return CasPaxosRegister(stores, options=CasPaxosOptions(best_effort=True, **options))


# -- several processes -------------------------------------------------------------------------------------


def test_the_increments_of_several_processes_are_exact_and_every_answer_is_one_register_s(
    tmp_path: Path,
) -> None:
    """Three processes, three files on three disks; the checker of revisions judges all that was answered."""
    changes, urls = 25, files(tmp_path)
    added = unknown = 0
    script = [sys.executable, crowd.__file__]
    children = [
        subprocess.Popen(
            [*script, f"p{n}", str(tmp_path / f"p{n}.history"), str(changes), *urls],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]
    try:
        for child in children:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        for child in children:
            assert child.stdout is not None
            _, told, doubtful = child.stdout.readline().split()
            added, unknown = added + int(told), unknown + int(doubtful)
    finally:
        for child in children:
            child.kill()
            child.communicate()
    histories = [tmp_path / f"p{n}.history" for n in range(3)]
    judgement = crowd.judged(histories)
    expect_held(judgement)
    assert judgement.counts["writes"] > 3 * changes

    async def total() -> bytes:
        async with register(urls) as one:
            return await value_of(one, SUM) or b""

    assert added + unknown == 3 * changes and added > 2 * changes
    assert added <= int(asyncio.run(total()).split()[0]) <= added + unknown


async def test_a_register_of_which_half_suffices_is_caught_by_the_checker() -> None:
    """The negative control: two handles, each content with one acceptor, disagree; the checker sees it."""
    stores = memories("half")
    book = History()
    async with on(stores) as one, on(stores) as two:
        for handle, order in ((one, (0, 1, 2)), (two, (2, 1, 0))):
            driver = (await handle._opening.get()).driver
            quorums = driver.quorums
            object.__setattr__(quorums, "prepare_needs", 1)
            object.__setattr__(quorums, "accept_needs", 1)
            lone = str(order[0])
            object.__setattr__(quorums, "prepare", (lone,))
            object.__setattr__(quorums, "accept", (lone,))
        mine, other = Recorded(one, book, "one"), Recorded(two, book, "two")
        for _ in range(3):
            await crowd.add(mine)
            await crowd.add(other)
    assert judge(book).answer is Answer.NO


async def test_revisions_rise_over_all_keys_and_handles() -> None:
    stores = memories("rising")
    async with on(stores) as one, on(stores) as two:
        seen: list[int] = []
        for n in range(10):
            handle = (one, two)[n % 2]
            seen.append(applied(await handle.put_if(f"k{n}", b"", ABSENT)).revision)
            seen.append((await handle.get("nothing")).revision)
        assert seen == sorted(set(seen))


# -- Redis servers that die --------------------------------------------------------------------------------


@asynccontextmanager
async def three_redis(**settings: Any) -> AsyncIterator[tuple[list[str], list[Any]]]:
    async with AsyncExitStack() as stack:
        opening = [stack.enter_async_context(server("redis", **settings)) for _ in range(3)]
        clusters = [await one for one in opening]
        yield [one.url for one in clusters], [one.members[0] for one in clusters]


async def test_three_redis_servers_are_one_register_while_each_of_them_dies_in_turn() -> None:
    book = History()
    async with three_redis() as (urls, members), AsyncExitStack() as stack:
        handles = [await stack.enter_async_context(register(urls, ceiling_s=20.0)) for _ in range(3)]
        crowd_of = [Recorded(one, book, f"p{n}") for n, one in enumerate(handles)]
        added, unknown, over = [0], [0], asyncio.Event()

        async def keep_adding(mine: Recorded) -> None:
            while not over.is_set():
                if await crowd.add(mine):
                    added[0] += 1
                else:
                    unknown[0] += 1

        adding = [asyncio.create_task(keep_adding(mine)) for mine in crowd_of]
        for member in members:
            await more(added, 8)
            member.kill()
            await more(added, 8)
            await member.start()
        await more(added, 8)
        over.set()
        await asyncio.gather(*adding)
        total = int((await value_of(handles[0], SUM) or b"0").split()[0])
        assert added[0] <= total <= added[0] + unknown[0]
    expect_held(judge(book))


async def more(counter: list[int], much: int) -> None:
    """Until it has risen by so much."""
    start = counter[0]
    async with asyncio.timeout(60):
        while counter[0] < start + much:
            await asyncio.sleep(0.01)


async def test_with_two_of_three_dead_nothing_is_sent_and_when_one_is_back_all_is_there() -> None:
    async with three_redis() as (urls, members), register(urls) as one:
        entry = applied(await one.put_if("k", b"1", ABSENT)).results[0]
        assert entry is not None
        for member in members[:2]:
            member.kill()
        with pytest.raises(NotSent, match="no majority"), clock.deadline(1.0):
            await one.get("k")
        with pytest.raises(NotSent, match="Nothing happened"), clock.deadline(1.0):
            await one.put_if("k", b"2", entry.revision)
        await members[0].start()
        assert await value_of(one, "k") == b"1"
        applied(await one.put_if("k", b"3", entry.revision))


async def test_with_two_of_three_frozen_a_call_ends_by_its_deadline() -> None:
    async with three_redis() as (urls, members), register(urls, acceptor_s=1.0) as one:
        await one.get("k")
        for member in members[:2]:
            member.pause()
        try:
            async with asyncio.timeout(30):
                with pytest.raises((NotSent, OutcomeUnknown)), clock.deadline(1.0):
                    await one.put_if("k", b"1", ABSENT)
        finally:
            for member in members[:2]:
                member.resume()
        found = await value_of(one, "k")
        assert found in (None, b"1")


async def test_redis_that_does_not_force_writes_is_refused() -> None:
    async with three_redis(appendfsync="everysec") as (urls, _):
        with pytest.raises(ConfigurationError, match=r"may lose what it acknowledged.*best_effort"):
            await register(urls).open()
        async with register(urls, best_effort=True) as weak:
            claims = await weak.open()
            assert claims.durable is Durable.NONE and claims.forgets_at_failover and not claims.linearizable


# -- what it claims and refuses ----------------------------------------------------------------------------


async def test_files_on_three_disks_claim_the_loss_of_one(tmp_path: Path) -> None:
    async with register(files(tmp_path)) as one:
        claims = await one.open()
        assert claims.durable is Durable.QUORUM and claims.linearizable and not claims.forgets_at_failover
        assert claims.observe is Observing.COALESCED and claims.operations_max == 1


async def test_memory_is_no_acceptor_without_best_effort() -> None:
    with pytest.raises(ConfigurationError, match="forgets a promise"):
        await CasPaxosRegister(memories("weak")).open()


def test_an_even_number_of_acceptors_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="found 2 acceptors; expected 3, 5 or 7"):
        CasPaxosRegister(memories("even", 2))
    with pytest.raises(ConfigurationError, match="found 4 acceptors"):
        CasPaxosRegister(memories("even", 4))


async def test_one_place_named_twice_is_refused(tmp_path: Path) -> None:
    one, two, _ = files(tmp_path)
    with pytest.raises(ConfigurationError, match="named twice"):
        await register([one, two, one]).open()


async def test_other_acceptors_than_everybody_s_are_refused(tmp_path: Path) -> None:
    urls = files(tmp_path, 5)
    async with register(urls[:3]) as one:
        await one.put_if("k", b"1", ABSENT)
    with pytest.raises(ConfigurationError, match="another register among those"):
        await register(urls).open()
    async with register([urls[2], urls[0], urls[1]]) as same:
        assert await value_of(same, "k") == b"1", "their order does not matter"


async def test_the_first_time_all_must_be_there(tmp_path: Path) -> None:
    urls = [*files(tmp_path)[:2], Gone()]
    with pytest.raises(NotSent, match="The first time all acceptors must be there"):
        await register(urls).open()


async def test_another_register_on_the_same_acceptors_has_keys_of_its_own(tmp_path: Path) -> None:
    urls = files(tmp_path)
    async with register(urls) as one, register(urls, name="other") as other:
        await one.put_if("k", b"1", ABSENT)
        assert await value_of(other, "k") is None


@pytest.mark.parametrize(
    "record",
    [
        b"\x94\x02\x92\x01\xa1p\x92\x01\xa1p\xc0",
        b"\x94\x01\x92\x01\xa1\xff\x92\x01\xa1p\xc0",
        b"\x95\x01\x92\x01\xa1p\x92\x01\xa1p\xc0" + b"\x91" * 5000,
        b"garbage",
    ],
    ids=["newer", "no text", "nested", "garbage"],
)
async def test_a_cell_that_this_release_cannot_read_is_refused(record: bytes) -> None:
    stores = memories(f"newer-{record[:6].hex()}")
    async with on(stores) as one:
        for store in stores:
            await store.transact(put("caspaxos/atoll/k/k", record))
        with pytest.raises(FormatRefused, match="cannot read"), clock.deadline(20):
            await one.get("k")


# -- its URL -----------------------------------------------------------------------------------------------


async def test_a_url_names_the_acceptors_and_the_options_of_both(tmp_path: Path) -> None:
    files(tmp_path)
    paths = ",".join(f"{tmp_path}/disk{n}/state.db" for n in range(3))
    url = f"caspaxos+sqlite:///{paths}?name=shop&ceiling_s=5&history_max=50"
    one = atoll.urls.register(url)
    assert isinstance(one, CasPaxosRegister)
    assert (one.options.name, one.options.ceiling_s) == ("shop", 5.0)
    assert one.places[1].url == f"sqlite:///{tmp_path}/disk1/state.db?history_max=50"
    async with one:
        await one.put_if("k", b"1", ABSENT)
    async with register(files(tmp_path), name="shop") as same:
        assert await value_of(same, "k") == b"1"


def test_servers_share_the_login_and_the_path() -> None:
    one = atoll.urls.register("caspaxos+redis://:secret@a:1,b:2,c/3?best_effort=true")
    assert isinstance(one, CasPaxosRegister)
    assert [place.url for place in one.places] == [
        "redis://:***@a:1/3" if ":***@" in place.url and n == 0 else place.url
        for n, place in enumerate(one.places)
    ]
    assert [host in place.url for host, place in zip(("a:1", "b:2", "c"), one.places, strict=True)] == [
        True
    ] * 3
    assert "secret" not in repr(one) and one.options.best_effort


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("caspaxos+memory://a,b", "found 2 acceptors"),
        ("caspaxos+nothing://a,b,c", "found the scheme nothing://"),
        ("caspaxos+memory://a,b,c?colour=red", "knows"),
        ("caspaxos+memory://a,b,c?acceptor_s=0", "more than 0"),
        ("caspaxos+memory://a,b,c?name=", "some text"),
    ],
)
def test_a_url_that_cannot_be_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        atoll.urls.register(url)


def test_a_register_is_no_store() -> None:
    with pytest.raises(ConfigurationError, match="is no store; it is a register"):
        atoll.urls.store("caspaxos+memory://a,b,c")


# -- an acceptor that lost everything ----------------------------------------------------------------------


async def written_while_one_was_away(tmp_path: Path) -> list[str]:
    """Three acceptors; "k" is on the first two alone, because the third was away."""
    urls = files(tmp_path)
    async with register(urls) as one:
        await one.get("k")
    away = [*urls[:2], Gone()]
    async with register(away) as one:
        applied(await one.put_if("k", b"acknowledged", ABSENT))
    return urls


def wipe(tmp_path: Path, n: int) -> None:
    shutil.rmtree(tmp_path / f"disk{n}")
    (tmp_path / f"disk{n}").mkdir()


async def test_a_wiped_acceptor_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    urls = await written_while_one_was_away(tmp_path)
    wipe(tmp_path, 1)
    async with register(urls) as one:
        assert await value_of(one, "k") == b"acknowledged"
        applied(await one.put_if("other", b"1", ABSENT))


async def test_a_redis_server_that_is_emptied_under_way_is_left_out_and_admitted_again() -> None:
    async with three_redis() as (urls, members), register(urls) as one:
        applied(await one.put_if("k", b"1", ABSENT))
        client = client_of(int(urls[0].rpartition(":")[2]))
        await client.flushall()
        await client.aclose()
        last = applied(await one.put_if("l", b"1", ABSENT)).revision
        assert await value_of(one, "k") == b"1"
        with pytest.raises(EpochUncertain, match="emptied"):
            await one.admit(one.places[0])
        async with atoll.urls.store(urls[0]) as store:
            assert store.moving is not None
            await store.moving.bump()
        await one.admit(one.places[0])
        members[1].kill()
        assert await value_of(one, "k") == b"1"
        assert applied(await one.put_if("m", b"1", ABSENT)).revision > last


async def test_an_acceptor_that_was_restored_and_bumped_is_left_out_until_it_is_admitted(
    tmp_path: Path,
) -> None:
    """Copied back, it has its card and old promises; the epoch on the card tells."""
    urls = files(tmp_path)
    async with register(urls) as one:
        await one.get("k")
    shutil.copytree(tmp_path / "disk1", tmp_path / "backup")
    async with register([*urls[:2], Gone()]) as one:
        applied(await one.put_if("k", b"acknowledged", ABSENT))
    shutil.rmtree(tmp_path / "disk1")
    shutil.copytree(tmp_path / "backup", tmp_path / "disk1")
    async with atoll.urls.store(urls[1]) as store:
        assert store.moving is not None
        await store.moving.bump()
    with pytest.raises(NotSent, match="found 1 of the 3"):
        await register([Gone(), *urls[1:]]).open()
    async with register(urls) as one:
        await one.admit(one.places[1])
    async with register([Gone(), *urls[1:]]) as one:
        assert await value_of(one, "k") == b"acknowledged"


async def test_a_damaged_acceptor_is_as_good_as_gone(tmp_path: Path) -> None:
    urls = files(tmp_path)
    async with register(urls) as one:
        applied(await one.put_if("k", b"1", ABSENT))
    for file in (tmp_path / "disk1").iterdir():
        file.unlink()
    (tmp_path / "disk1" / "state.db").write_bytes(b"this was a database" * 500)
    async with register(urls) as one:
        assert await value_of(one, "k") == b"1"
        applied(await one.put_if("l", b"1", ABSENT))


async def test_a_wiped_acceptor_and_one_away_are_no_majority(tmp_path: Path) -> None:
    urls = await written_while_one_was_away(tmp_path)
    wipe(tmp_path, 1)
    with pytest.raises(NotSent, match="found 1 of the 3 acceptors"):
        await register([Gone(), *urls[1:]]).open()


async def test_two_wiped_acceptors_are_refused_and_not_taken_for_a_new_register(tmp_path: Path) -> None:
    urls = await written_while_one_was_away(tmp_path)
    wipe(tmp_path, 1)
    wipe(tmp_path, 2)
    with pytest.raises(NotSent, match=r"found 1 of the 3 acceptors.*lost their cards"):
        await register(urls).open()


async def test_an_acceptor_that_forgets_in_secret_loses_an_acknowledged_write(tmp_path: Path) -> None:
    """The negative control: the same loss, with the card put back, is what the card protects from."""
    urls = await written_while_one_was_away(tmp_path)
    async with atoll.urls.register(urls[1]) as place:
        card = (await place.get("caspaxos/atoll/acceptor")).entry
        assert card is not None
    wipe(tmp_path, 1)
    async with atoll.urls.register(urls[1]) as place:
        await place.put_if("caspaxos/atoll/acceptor", card.value, ABSENT)
    async with register([Gone(), *urls[1:]]) as one:
        assert await value_of(one, "k") is None


async def test_admitting_brings_a_wiped_acceptor_back_to_full_strength(tmp_path: Path) -> None:
    urls = await written_while_one_was_away(tmp_path)
    wipe(tmp_path, 1)
    async with register(urls) as old, register(urls) as one:
        assert await old.admit(old.places[1]) == 1
        assert await value_of(one, "k") == b"acknowledged", "a handle of before opens anew by itself"
        last = applied(await one.put_if("new", b"1", ABSENT)).revision
    async with register([Gone(), *urls[1:]]) as rest:
        assert await value_of(rest, "k") == b"acknowledged"
        assert await value_of(rest, "new") == b"1"
        assert applied(await rest.put_if("newer", b"1", ABSENT)).revision > last


async def test_only_an_empty_place_of_the_register_is_admitted(tmp_path: Path) -> None:
    urls = files(tmp_path)
    async with register(urls) as one:
        with pytest.raises(ConfigurationError, match="It takes part already"):
            await one.admit(one.places[0])
        with pytest.raises(ConfigurationError, match="none of the places"):
            await one.admit(atoll.urls.register(f"sqlite:///{tmp_path}/x.db"))


async def test_nobody_is_admitted_while_another_is_away(tmp_path: Path) -> None:
    urls = files(tmp_path)
    async with register(urls) as one:
        await one.put_if("k", b"1", ABSENT)
    wipe(tmp_path, 0)
    async with register(urls) as one:
        shutil.rmtree(tmp_path / "disk2")
        with pytest.raises((NotApplied, OutcomeUnknown, ConfigurationError)):
            await one.admit(one.places[0])


# -- what is in doubt --------------------------------------------------------------------------------------


class Mute(MemoryStore):
    """Does what it is asked and, while `mute`, says nothing of what it wrote."""

    mute = False

    async def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
        answer = await super().put_if(key, value, revision)
        if self.mute and isinstance(answer, Applied):
            raise OutcomeUnknown("mute")
        return answer


class Late(MemoryStore):
    """Answers promises, and from the moment `late` is set takes no votes in."""

    late = False

    async def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
        if self.late and b"acknowledge me" in value:
            raise OutcomeUnknown("late")
        return await super().put_if(key, value, revision)


async def test_a_write_sent_to_be_accepted_without_a_majority_is_unknown_by_the_deadline() -> None:
    stores = memories("late", kind=Late)
    async with on(stores) as one:
        await one.get("k")
        for store in stores[:2]:
            store.late = True  # type: ignore[attr-defined]
        with pytest.raises(OutcomeUnknown, match="may have happened"), clock.deadline(2.0):
            await one.put_if("k", b"acknowledge me", ABSENT)
        for store in stores[:2]:
            store.late = False  # type: ignore[attr-defined]
        found = (await one.get("k")).entry
        assert found is None or found.value == b"acknowledge me"


async def test_a_read_in_doubt_is_not_sent_because_nothing_can_have_happened() -> None:
    stores = memories("mute", kind=Mute)
    async with on(stores) as one:
        await one.get("k")
        for store in stores[:2]:
            store.mute = True  # type: ignore[attr-defined]
        with pytest.raises(NotSent, match="no majority"), clock.deadline(0.3):
            await one.get("k")


async def test_a_write_whose_answers_were_lost_finds_itself_and_is_applied_once() -> None:
    """All fall silent after they wrote; the write tries again, and must not meet itself as a rival."""
    stores = memories("silent", kind=Mute)
    async with on(stores) as one:
        await one.get("k")

        async def speak() -> None:
            await asyncio.sleep(0.05)
            for store in stores:
                store.mute = False  # type: ignore[attr-defined]

        for store in stores:
            store.mute = True  # type: ignore[attr-defined]
        speaking = asyncio.create_task(speak())
        entry = applied(await one.put_if("k", b"1", ABSENT)).results[0]
        await speaking
        assert (await one.get("k")).entry == entry


def state(revision: int, *past: int) -> State:
    return State(True, b"x", revision, revision, revision, past)


def test_a_change_knows_its_own_earlier_attempt() -> None:
    change = Decision(lambda found: State(True, b"mine"))
    tried = change(NEVER, 10)
    again = change(tried, 20)
    assert again.revision == 10 and again.seen == 20 and change.done == tried


def test_a_change_knows_its_own_earlier_attempt_under_the_writes_of_others() -> None:
    change = Decision(lambda found: State(True, b"mine") if not found.present else None)
    change(NEVER, 10)
    change(state(30, 20, 10), 40)
    assert change.done is not None and change.done.revision == 10


def test_a_change_that_others_came_before_is_decided_anew() -> None:
    change = Decision(lambda found: State(True, b"mine") if not found.present else None)
    change(NEVER, 10)
    change(state(20), 40)
    assert change.done is None


def test_a_change_that_cannot_see_whether_it_happened_says_so() -> None:
    change = Decision(lambda found: State(True, b"mine"))
    change(state(5), 10)
    with pytest.raises(OutcomeUnknown, match="cannot be seen"):
        change(state(100, *range(99, 99 - LINEAGE_MAX, -1)), 200)


# -- watching ----------------------------------------------------------------------------------------------


async def test_a_change_half_done_is_finished_by_whoever_watches() -> None:
    stores = memories("half-done", kind=Late)
    async with on(stores) as one, on(stores) as two:
        await one.get("k")
        for store in stores[1:]:
            store.late = True  # type: ignore[attr-defined]
        with pytest.raises(OutcomeUnknown), clock.deadline(2.0):
            await one.put_if("k", b"acknowledge me", ABSENT)
        for store in stores[1:]:
            store.late = False  # type: ignore[attr-defined]
        items = two.observe("")
        first = await anext(items)
        assert first.reset
        assert {e.key for e in first.changed} == ({"k"} if (await two.get("k")).entry else set())
        await items.aclose()  # type: ignore[attr-defined]


async def test_a_watch_goes_on_with_one_acceptor_dead_and_ends_with_two() -> None:
    async with three_redis() as (urls, members), register(urls, liveness_s=2.0) as one:
        items = one.observe("k")
        assert (await anext(items)).reset
        members[0].kill()
        entry = applied(await one.put_if("k1", b"1", ABSENT)).results[0]
        async with asyncio.timeout(20):
            while True:
                item = await anext(items)
                if entry in item.changed:
                    break
        members[1].kill()
        with pytest.raises(WatchLost, match="no majority"):
            async with asyncio.timeout(30):
                while True:
                    await anext(items)


async def test_an_idle_watch_writes_nothing() -> None:
    stores = memories("idle")
    async with on(stores) as one:
        await one.put_if("k", b"1", ABSENT)
        items = one.observe("")
        await anext(items)
        before = [(await store.get("x")).revision for store in stores]
        waiting = asyncio.ensure_future(anext(items))
        await asyncio.wait([waiting], timeout=0.5)
        assert [(await store.get("x")).revision for store in stores] == before
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting


# -- costs, counted ----------------------------------------------------------------------------------------


class Counted(MemoryStore):
    """Counts what it is asked."""

    def __init__(self, *, name: str) -> None:
        super().__init__(name=name)
        self.writes = self.reads = 0

    async def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
        self.writes += 1
        return await super().put_if(key, value, revision)

    async def get(self, key: str) -> Got:
        self.reads += 1
        return await super().get(key)


async def test_a_call_costs_each_acceptor_three_writes() -> None:
    """A promise, a vote, and the clock beside the vote: what the page says of the cost."""
    stores = memories("counted", kind=Counted)
    async with on(stores) as one:
        await one.put_if("k", b"1", ABSENT)
        before = [store.writes for store in stores]  # type: ignore[attr-defined]
        for _ in range(10):
            await one.get("k")
        await one.get("k")
        after = [store.writes for store in stores]  # type: ignore[attr-defined]
        assert all(30 <= now - then <= 33 for then, now in zip(before, after, strict=True))


async def test_a_closed_register_answers_again_when_it_is_asked() -> None:
    stores = memories("reopened")
    one = on(stores)
    applied(await one.put_if("k", b"1", ABSENT))
    await one.close()
    assert await value_of(one, "k") == b"1"
    await one.close()


async def test_an_acceptor_that_comes_late_takes_part_again(tmp_path: Path) -> None:
    async with three_redis() as (urls, members):
        async with register(urls) as first:
            applied(await first.put_if("k", b"1", ABSENT))
        members[2].kill()
        async with register(urls) as one:
            assert await value_of(one, "k") == b"1"
            await members[2].start()
            members[0].kill()
            assert await value_of(one, "k") == b"1"


def test_every_option_has_its_row() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/reference/caspaxos.md").read_text()
    missing = [field.name for field in fields(CasPaxosOptions) if f"| `{field.name}` |" not in page]
    assert missing == []
