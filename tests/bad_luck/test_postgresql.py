"""3.1, bad luck: each misfortune of a PostgreSQL store is its own error, in its family, by the deadline."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from servers import server

sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))
from postgresql_ways import Porter, database, handed

import atoll.urls
from atoll import (
    ConfigurationError,
    DiskFull,
    EpochUncertain,
    NotApplied,
    NotSent,
    OutcomeUnknown,
    Overloaded,
    ReadOnly,
    deadline,
)
from atoll.engines.postgresql.functions import LOCK
from atoll.ports.register import Applied
from atoll.ports.store import put
from atoll.verify.servers import postgresql
from atoll.verify.servers.process import free_port


@pytest.fixture
def port(shared: Any) -> int:
    return int(shared("postgresql").facts["ports"][0])


@asynccontextmanager
async def by_the_deadline(seconds: float, slack_s: float = 3.0) -> AsyncIterator[None]:
    """Whatever happens inside ends with the deadline; the slack is this machine's."""
    began = time.monotonic()
    with deadline(seconds):
        yield
    assert time.monotonic() - began < seconds + slack_s, "it hung past its deadline"


async def raises(url: str, kind: type[Exception], match: str) -> Exception:
    """A get and a put on `url` end in `kind`, both."""
    store = atoll.urls.store(url)
    async with by_the_deadline(5):
        with pytest.raises(kind, match=match):
            await store.get("k")
        with pytest.raises(kind, match=match) as found:
            await store.transact(put("k", b""))
    assert type(found.value) is kind
    await store.close()
    return found.value


def place(port: int) -> str:
    """The database that these tests share."""
    return f"postgresql://postgres@127.0.0.1:{port}/postgres"


async def role(port: int, words: str) -> str:
    """A new role that may log in, with `words`; its name."""
    name = f"r{time.monotonic_ns()}"
    await postgresql.ask(port, f"CREATE ROLE {name} LOGIN {words}")
    return name


async def test_a_wrong_password_is_said_and_not_shown(port: int) -> None:
    await postgresql.ask(
        port,
        "DO $$ BEGIN CREATE ROLE locked LOGIN PASSWORD 'right'; "
        "EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    )
    url = f"postgresql://locked:wr0ng@127.0.0.1:{port}/postgres"
    error = await raises(url, ConfigurationError, "password authentication failed")
    assert "wr0ng" not in str(error)


async def test_a_database_or_role_that_is_not_there_is_named(port: int) -> None:
    await raises(f"postgresql://postgres@127.0.0.1:{port}/nowhere", ConfigurationError, '"nowhere" does not')
    await raises(f"postgresql://nobody@127.0.0.1:{port}/postgres", ConfigurationError, '"nobody" does not')


async def test_nobody_listening_is_not_sent() -> None:
    await raises(f"postgresql://postgres@127.0.0.1:{free_port()}/x", NotSent, "cannot be reached")


async def test_a_server_that_never_greets_is_not_sent() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    mute = listening.sockets[0].getsockname()[1]
    store = atoll.urls.store(f"postgresql://postgres@127.0.0.1:{mute}/x")
    async with by_the_deadline(0.5):
        with pytest.raises(NotSent):
            await store.get("k")
    listening.close()


async def test_a_role_without_rights_is_told_the_grants(port: int) -> None:
    url, name = await database(port), await role(port, "")
    error = await raises(url.replace("postgres@", f"{name}@"), ConfigurationError, "permission denied")
    assert "GRANT USAGE ON SCHEMA atoll" in str(error)


async def test_with_the_grants_of_the_page_a_plain_role_may_do_everything(port: int) -> None:
    url, name = await database(port), await role(port, "")
    for grant in (
        "USAGE ON SCHEMA atoll",
        "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA atoll",
        "EXECUTE ON ALL FUNCTIONS IN SCHEMA atoll",
    ):
        await postgresql.ask(port, f"GRANT {grant} TO {name}", url.rpartition("/")[2])
    async with atoll.urls.store(url.replace("postgres@", f"{name}@")) as store:
        assert store.leasing and store.moving and store.examining
        lease = await store.leasing.grant(5)
        await store.transact(put("k", b"", lease=lease.lease))
        await store.leasing.keep_alive(lease.lease)
        await store.leasing.revoke(lease.lease)
        await store.moving.bump()
        assert await store.examining.examine()


async def test_too_many_connections_are_overload(port: int) -> None:
    url, name = place(port), await role(port, "CONNECTION LIMIT 0")
    await raises(url.replace("postgres@", f"{name}@"), Overloaded, "too many connections")


async def test_a_read_only_role_reads_and_may_not_write(port: int) -> None:
    url = await database(port)
    await postgresql.ask(
        port, f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on"
    )
    async with atoll.urls.store(url) as store:
        assert (await store.get("k")).entry is None
        with pytest.raises(ReadOnly, match="read-only transaction"):
            await store.transact(put("k", b""))


async def test_dropped_tables_are_missed_by_name(port: int) -> None:
    url = await database(port)
    async with atoll.urls.store(url) as store:
        await store.transact(put("k", b""))
        await postgresql.ask(port, "DROP SCHEMA atoll CASCADE", url.rpartition("/")[2])
        for call in (store.get("k"), store.transact(put("k", b""))):
            with pytest.raises(ConfigurationError, match="atoll schema"):
                await call


async def test_waiting_behind_another_writer_ends_with_a_plain_no(port: int) -> None:
    """The server itself gives up before the caller does, so the outcome is known."""
    import psycopg

    url = place(port)
    async with atoll.urls.store(url) as store, await psycopg.AsyncConnection.connect(url) as rival:
        revision = (await store.transact(put("k", b"1"))).revision
        await rival.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        async with by_the_deadline(0.5):
            with pytest.raises(Overloaded, match="other writers had their turn"):
                await store.transact(put("k", b"2"))
        await rival.rollback()
        assert (await store.get("k")).revision == revision
        assert isinstance(await store.transact(put("k", b"3")), Applied)


async def test_a_cancelled_statement_did_not_happen(port: int) -> None:
    import psycopg

    url = place(port)
    async with atoll.urls.store(url) as store, await psycopg.AsyncConnection.connect(url) as rival:
        await store.transact(put("k", b"1"))
        await rival.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        call = asyncio.ensure_future(store.transact(put("k", b"2")))
        await _end_the_waiting(port, url, "pg_cancel_backend")
        with pytest.raises(Overloaded, match="canceling statement"):
            await call
        await rival.rollback()
        entry = (await store.get("k")).entry
        assert entry is not None and entry.value == b"1"


async def test_a_terminated_session_leaves_its_call_unknown_and_the_next_one_works(port: int) -> None:
    import psycopg

    url = place(port)
    async with atoll.urls.store(url) as store, await psycopg.AsyncConnection.connect(url) as rival:
        await store.transact(put("k", b"1"))
        await rival.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        call = asyncio.ensure_future(store.transact(put("k", b"2"), request_id="r"))
        await _end_the_waiting(port, url, "pg_terminate_backend")
        with pytest.raises(OutcomeUnknown) as unknown:
            await call
        assert unknown.value.id == "r"
        await rival.rollback()
        assert isinstance(await store.transact(put("k", b"3")), Applied)


async def _end_the_waiting(port: int, url: str, verb: str) -> None:
    """Cancel, or terminate, who waits for the writers' lock."""
    async with asyncio.timeout(20):
        while not await postgresql.ask(
            port,
            f"SELECT {verb}(pid) FROM pg_stat_activity WHERE datname = '{url.rpartition('/')[2]}' "
            "AND wait_event = 'advisory'",
        ):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", ["psycopg_pool", "asyncpg", "sqlalchemy+asyncpg", "sqlalchemy+psycopg"])
async def test_handed_pools_answer_by_the_deadline_too(kind: str, port: int) -> None:
    url = place(port)
    async with Porter(port) as porter:
        way = url.replace(f":{port}/", f":{porter.port}/")
        async with handed(kind, way) as store:
            await store.transact(put("k", b"1"))
            porter.hold.clear()
            async with by_the_deadline(0.5):
                with pytest.raises(OutcomeUnknown):
                    await store.transact(put("k", b"2"))
            porter.hold.set()
            async with by_the_deadline(10):
                assert isinstance(await store.transact(put("k", b"3")), Applied)


async def test_a_reply_that_is_lost_is_unknown_and_its_request_id_asks_again(port: int) -> None:
    url = place(port)
    async with Porter(port) as porter:
        way = f"{url.replace(f':{port}/', f':{porter.port}/')}?notify=off"
        async with atoll.urls.store(way) as store:
            await store.transact(put("k", b"1"))
            porter.hold.clear()
            async with by_the_deadline(0.5):
                with pytest.raises(OutcomeUnknown) as unknown:
                    await store.transact(put("k", b"2"), request_id="again")
            assert unknown.value.id == "again"
            porter.cut()
            porter.hold.set()
            again = await store.transact(put("k", b"2"), request_id="again")
            assert isinstance(again, Applied) and again.replayed, "it had happened"


async def test_a_line_cut_before_the_request_is_not_a_doubt(port: int) -> None:
    """A server that hung up while nobody spoke is noticed before anything is sent."""
    url = place(port)
    async with Porter(port) as porter:
        way = f"{url.replace(f':{port}/', f':{porter.port}/')}?notify=off"
        async with atoll.urls.store(way) as store:
            for number in range(5):
                porter.cut()
                await asyncio.sleep(0.05)
                assert isinstance(await store.transact(put("k", b"%d" % number)), Applied)


async def test_a_stopped_server_leaves_calls_unknown_and_later_ones_not_sent() -> None:
    async with server("postgresql") as cluster, atoll.urls.store(cluster.url) as store:
        await store.transact(put("k", b""))
        cluster.members[0].pause()
        for call in (lambda: store.get("k"), lambda: store.transact(put("k", b""))):
            async with by_the_deadline(0.5):
                with pytest.raises(OutcomeUnknown):
                    await call()
        fresh = atoll.urls.store(cluster.url)
        async with by_the_deadline(0.5):
            with pytest.raises(NotSent):
                await fresh.get("k")
        cluster.members[0].resume()
        async with by_the_deadline(20):
            assert (await store.get("k")).entry is not None


async def test_a_commit_that_no_standby_confirms_is_unknown_also_when_it_is_cancelled() -> None:
    """The trap: a cancelled wait for the standby is answered as a success, with a warning beside it."""
    async with server("postgresql", nodes=2, sync=True) as cluster:
        async with atoll.urls.store(cluster.url) as store:
            port = cluster.facts["ports"][0]
            await store.transact(put("k", b"1"))
            cluster.members[1].pause()
            async with by_the_deadline(0.5):
                with pytest.raises(OutcomeUnknown):
                    await store.transact(put("k", b"2"))
            for verb, word in (
                ("pg_cancel_backend", "perhaps on no other"),
                ("pg_terminate_backend", "lost"),
            ):
                call = asyncio.ensure_future(store.transact(put(f"k/{verb}", b"3")))
                async with asyncio.timeout(20):
                    while not call.done():
                        await postgresql.ask(
                            port, f"SELECT {verb}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                        )
                        await asyncio.sleep(0.05)
                with pytest.raises(OutcomeUnknown, match=word):
                    await call
            cluster.members[1].resume()
            assert isinstance(await store.transact(put("k", b"4")), Applied)


async def test_two_clusters_behind_one_url_are_told_apart(port: int) -> None:
    async with server("postgresql") as other, Porter(port) as porter:
        url = f"postgresql://postgres@127.0.0.1:{porter.port}/postgres?notify=off"
        async with atoll.urls.store(url) as store:
            await store.transact(put("two/k", b""))
            porter._port = other.facts["ports"][0]
            porter.cut()
            for call in (
                lambda: store.epoch(),
                lambda: store.get("two/k"),
                lambda: store.transact(put("k", b"")),
            ):
                with pytest.raises(EpochUncertain, match="two clusters answer behind one name"):
                    await call()
            await store.close()
            assert (await store.get("two/k")).entry is None, "opened anew it takes what the name leads to"


async def test_one_bad_call_does_not_take_the_others_along(port: int) -> None:
    url = await database(port)
    name = url.rpartition("/")[2]
    await postgresql.ask(
        port, "ALTER TABLE atoll.entry ADD CONSTRAINT picky CHECK (value <> 'bad'::bytea)", name
    )
    async with atoll.urls.store(url) as store:
        await store.transact(put("k", b""))
        values = [b"bad" if number == 7 else b"good" for number in range(20)]
        answers = await asyncio.gather(
            *(store.transact(put(f"k{n}", value)) for n, value in enumerate(values)), return_exceptions=True
        )
        assert isinstance(answers[7], NotApplied) and "picky" in str(answers[7])
        assert sum(isinstance(answer, Applied) for answer in answers) == 19
        assert len((await store.range("k")).entries) == 20


@pytest.mark.parametrize("id", ["a\0b", "\ud800"])
async def test_text_that_postgresql_cannot_hold_is_refused_before_it_is_sent(id: str, port: int) -> None:
    async with atoll.urls.store(place(port)) as store:
        with pytest.raises(ConfigurationError, match="request_id"):
            await store.transact(put("k", b""), request_id=id)
        with pytest.raises(NotApplied, match="no living lease"):
            await store.transact(put("k", b"", lease=id))


async def test_a_revision_beyond_all_numbers_holds_of_nothing(port: int) -> None:
    async with atoll.urls.store(place(port)) as store:
        for revision in (1 << 63, 1 << 200, -5):
            assert not isinstance(await store.put_if("never", b"", revision), Applied)


@contextmanager
def a_small_disk(bytes_max: int) -> Iterator[Path]:
    """A file system of its own; skips where we may not mount one."""
    folder = Path(tempfile.mkdtemp(prefix="atoll-small-"))
    words = ["mount", "-t", "tmpfs", "-o", f"size={bytes_max}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode:
        folder.rmdir()
        pytest.skip("may not mount a small file system here")
    try:
        shutil.chown(folder, postgresql.ACCOUNT)
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


async def test_a_full_disk_is_a_plain_no_and_all_that_was_answered_is_there() -> None:
    with a_small_disk(24 << 20) as disk:
        async with server("postgresql") as cluster:
            port = cluster.facts["ports"][0]
            await postgresql.ask(port, f"CREATE TABLESPACE small LOCATION '{disk}'")
            await postgresql.ask(port, "CREATE DATABASE small TABLESPACE small")
            async with atoll.urls.store(f"postgresql://postgres@127.0.0.1:{port}/small?create=true") as store:
                await store.transact(put("first", b""))
                filler = "SELECT md5(n::text) FROM generate_series(1, 40000) n"
                await postgresql.ask(port, f"CREATE TABLE public.filler AS {filler}", "small")
                await postgresql.ask(port, "CHECKPOINT")  # what is there has its room
                answered: dict[str, int] = {}
                with pytest.raises(DiskFull, match="No space left"):
                    for number in range(100):
                        value = random.Random(number).randbytes(1 << 20)
                        answer = await store.transact(put(f"k{number:03}", value))
                        answered[f"k{number:03}"] = answer.revision
                assert answered, "it was full from the start, so nothing was tested"
                there = {entry.key: entry.revision for entry in (await store.range("k")).entries}
                assert there == answered
                await postgresql.ask(port, "DROP TABLE public.filler", "small")  # somebody makes room
                assert isinstance(await store.transact(put("again", b"")), Applied)
