"""3.6, bad luck: each misfortune of a MySQL store is its own error, in its family, by the deadline."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from servers import server

sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))
from mysql_ways import account, database, do, name_of
from postgresql_ways import Porter

import atoll.urls
from atoll import (
    ConfigurationError,
    EpochUncertain,
    NotApplied,
    NotSent,
    OutcomeUnknown,
    Overloaded,
    ReadOnly,
    deadline,
)
from atoll.ports.register import Applied
from atoll.ports.store import put
from atoll.verify.servers import mysql
from atoll.verify.servers.process import free_port


@pytest.fixture
def port(shared: Any) -> int:
    return int(shared("mysql").facts["ports"][0])


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


async def test_a_wrong_password_is_said_and_not_shown(port: int) -> None:
    url = f"mysql://{mysql.USER}:wr0ng@127.0.0.1:{port}/{mysql.DATABASE}"
    assert "wr0ng" not in str(await raises(url, ConfigurationError, "Access denied.*password"))


async def test_a_database_that_is_not_there_or_not_named_is_said(port: int) -> None:
    await raises(f"mysql://root@127.0.0.1:{port}/nowhere", ConfigurationError, "Unknown database 'nowhere'")
    await raises(f"mysql://root@127.0.0.1:{port}", ConfigurationError, "names no database")


async def test_nobody_listening_is_not_sent() -> None:
    await raises(f"mysql://root@127.0.0.1:{free_port()}/x", NotSent, "cannot be reached")


async def test_a_server_that_never_greets_is_not_sent() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    mute = listening.sockets[0].getsockname()[1]
    store = atoll.urls.store(f"mysql://root@127.0.0.1:{mute}/x")
    async with by_the_deadline(0.5):
        with pytest.raises(NotSent):
            await store.get("k")
    listening.close()


async def test_an_account_without_rights_is_told_the_grants(port: int) -> None:
    url = await database(port)
    reader = await account(port, url, "SELECT")
    store = atoll.urls.store(reader)
    assert (await store.get("k")).entry is None
    with pytest.raises(ConfigurationError, match="GRANT SELECT, INSERT, UPDATE, DELETE"):
        await store.transact(put("k", b""))
    await store.close()
    await raises(await account(port, url), ConfigurationError, "Access denied.*to database")


async def test_too_many_connections_are_overload(port: int) -> None:
    url = await database(port)
    narrow = await account(
        port, url, "SELECT, INSERT, UPDATE, DELETE", words="WITH MAX_CONNECTIONS_PER_HOUR 1"
    )
    async with atoll.urls.store(narrow):
        await raises(narrow, Overloaded, "max_connections_per_hour")


async def test_a_server_that_turns_read_only_is_read_no_more() -> None:
    async with server("mysql") as cluster, atoll.urls.store(cluster.url) as store:
        port = cluster.facts["ports"][0]
        root = atoll.urls.store(f"mysql://root@127.0.0.1:{port}/{mysql.DATABASE}")
        for one in (store, root):
            await one.transact(put("k", b"1"))
        await mysql.ask(port, "SET GLOBAL read_only = 1")
        for one in (store, root):  # root may write all the same, and would be alone with it
            for call in (one.get("k"), one.transact(put("k", b"2")), one.leasing.grant(5)):
                with pytest.raises(ReadOnly):
                    await call
        await raises(cluster.url, ReadOnly, "takes no writes")
        await mysql.ask(port, "SET GLOBAL read_only = 0")
        entry = (await store.get("k")).entry
        assert entry is not None and entry.value == b"1"
        await root.close()


async def test_dropped_tables_are_missed_by_name(port: int) -> None:
    url = await database(port)
    async with atoll.urls.store(url) as store:
        await store.transact(put("k", b""))
        await do(port, url, "DROP TABLE atoll_entry")
        for call in (store.get("k"), store.transact(put("k", b""))):
            with pytest.raises(ConfigurationError, match="atoll schema"):
                await call
        await do(port, url, "DELETE FROM atoll_counter")
        with pytest.raises(ConfigurationError, match="no row in atoll_counter"):
            await store.epoch()


@asynccontextmanager
async def a_rival(port: int, url: str) -> AsyncIterator[Any]:
    """Somebody who has the counter's row and does not let go."""
    import asyncmy

    rival = await asyncmy.connect(
        host="127.0.0.1", port=port, user="root", database=name_of(url), autocommit=False
    )
    async with rival.cursor() as cursor:
        await cursor.execute("SELECT * FROM atoll_counter FOR UPDATE")
    try:
        yield rival
    finally:
        await rival.rollback()
        rival.close()


async def end_the_waiting(port: int, url: str, verb: str) -> None:
    """KILL, of the query or the connection, whoever waits for the row."""
    waiting = (
        "SELECT t.trx_mysql_thread_id FROM information_schema.innodb_trx t JOIN "
        "information_schema.processlist p ON p.id = t.trx_mysql_thread_id "
        f"WHERE t.trx_state = 'LOCK WAIT' AND p.db = '{name_of(url)}'"
    )
    async with asyncio.timeout(20):
        while not (rows := await mysql.ask(port, waiting)):
            await asyncio.sleep(0.15)  # asked more often, MariaDB repeats its last answer
    await mysql.ask(port, f"KILL {verb} {rows[0][0]}")


async def test_waiting_behind_another_writer_ends_with_a_plain_no(port: int) -> None:
    """The server itself gives up before the caller does, so the outcome is known."""
    url = await database(port)
    async with atoll.urls.store(url) as store:
        revision = (await store.transact(put("k", b"1"))).revision
        async with a_rival(port, url):
            async with by_the_deadline(0.5):
                with pytest.raises(Overloaded, match="other writers had their turn"):
                    await store.transact(put("k", b"2"))
            assert (await store.get("k")).revision == revision, "readers wait for no writer"
        assert isinstance(await store.transact(put("k", b"3")), Applied)


async def test_a_killed_query_did_not_happen(port: int) -> None:
    url = await database(port)
    async with atoll.urls.store(url) as store:
        await store.transact(put("k", b"1"))
        async with a_rival(port, url):
            call = asyncio.ensure_future(store.transact(put("k", b"2")))
            await end_the_waiting(port, url, "QUERY")
            with pytest.raises(Overloaded, match="killed the query"):
                await call
        entry = (await store.get("k")).entry
        assert entry is not None and entry.value == b"1"


async def test_a_killed_session_leaves_its_call_unknown_and_the_next_one_works(port: int) -> None:
    url = await database(port)
    async with atoll.urls.store(url) as store:
        await store.transact(put("k", b"1"))
        async with a_rival(port, url):
            call = asyncio.ensure_future(store.transact(put("k", b"2"), request_id="r"))
            await end_the_waiting(port, url, "CONNECTION")
            with pytest.raises(OutcomeUnknown) as unknown:
                await call
            assert unknown.value.id == "r"
        assert isinstance(await store.transact(put("k", b"3")), Applied)


async def test_a_cancelled_caller_leaves_a_connection_that_nobody_uses_again(port: int) -> None:
    url = await database(port)
    async with atoll.urls.store(f"{url}?connections_max=1") as store:
        await store.transact(put("k", b"1"))
        async with a_rival(port, url):
            call = asyncio.ensure_future(store.transact(put("k", b"2")))
            await asyncio.sleep(0.05)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        looks = [asyncio.ensure_future(store.get("k")) for _ in range(20)]
        await asyncio.sleep(0)
        for look in looks[::2]:
            look.cancel()
        found = await asyncio.gather(*looks, return_exceptions=True)
        assert all(one.entry is not None and one.entry.key == "k" for one in found[1::2])


async def test_a_reply_that_is_lost_is_unknown_and_its_request_id_asks_again(port: int) -> None:
    url = await database(port)
    async with (
        Porter(port) as porter,
        atoll.urls.store(url.replace(f":{port}/", f":{porter.port}/")) as store,
    ):
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
    url = await database(port)
    async with (
        Porter(port) as porter,
        atoll.urls.store(url.replace(f":{port}/", f":{porter.port}/")) as store,
    ):
        for number in range(5):
            porter.cut()
            await asyncio.sleep(0.05)
            assert isinstance(await store.transact(put("k", b"%d" % number)), Applied)


async def test_a_stopped_server_leaves_calls_unknown_and_later_ones_not_sent() -> None:
    async with server("mysql") as cluster, atoll.urls.store(cluster.url) as store:
        await store.transact(put("k", b""))
        cluster.members[0].pause()
        for call in (lambda: store.get("k"), lambda: store.transact(put("k", b""))):
            async with by_the_deadline(0.5):
                with pytest.raises((OutcomeUnknown, NotSent)):
                    await call()
        fresh = atoll.urls.store(cluster.url)
        async with by_the_deadline(0.5):
            with pytest.raises(NotSent):
                await fresh.get("k")
        cluster.members[0].resume()
        async with by_the_deadline(20):
            assert (await store.get("k")).entry is not None


async def test_two_stores_behind_one_url_are_told_apart(port: int) -> None:
    url = await database(port)
    async with server("mysql") as other, Porter(port) as porter:
        there = other.facts["ports"][0]
        await mysql.ask(there, f"CREATE DATABASE {name_of(url)}")
        await atoll.urls.store(f"{url.replace(f':{port}/', f':{there}/')}?create=true").open()
        async with atoll.urls.store(url.replace(f":{port}/", f":{porter.port}/")) as store:
            await store.transact(put("k", b""))
            porter._port = there
            porter.cut()
            await asyncio.sleep(0.05)
            for call in (store.epoch(), store.get("k"), store.transact(put("k", b""))):
                with pytest.raises(EpochUncertain, match="two databases answer behind one name"):
                    await call
            await store.close()
            assert (await store.get("k")).entry is None, "opened anew it takes what the name leads to"


async def test_tables_that_were_dumped_and_restored_are_uncertain_until_somebody_bumps(port: int) -> None:
    """As after any restore: the counter may have gone back, and an old token could look new."""
    url = await database(port)
    async with atoll.urls.store(url) as store:
        epoch = await store.epoch()
        await asyncio.sleep(1.1)  # what tells them apart has the grain of a second
        dump = "CREATE TABLE kept LIKE atoll_counter", "INSERT INTO kept SELECT * FROM atoll_counter"
        await do(port, url, *dump, "DROP TABLE atoll_counter", "RENAME TABLE kept TO atoll_counter")
        with pytest.raises(EpochUncertain, match="atoll store bump"):
            await store.epoch()  # also on a connection that was there before
        fresh = atoll.urls.store(url)
        assert store.leasing is not None and fresh.leasing is not None and store.moving is not None
        for one in (store, fresh):
            with pytest.raises(EpochUncertain, match="restored"):
                await one.leasing.grant(5)
        assert isinstance(await fresh.transact(put("free", b"")), Applied)
        assert await store.moving.bump() == epoch + 1
        await fresh.leasing.grant(5)
        await fresh.close()


async def test_one_bad_call_does_not_take_the_others_along(port: int) -> None:
    url = await database(port)
    await do(port, url, "ALTER TABLE atoll_entry ADD CONSTRAINT picky CHECK (value <> 'bad')")
    async with atoll.urls.store(url) as store:
        await store.transact(put("k", b""))
        values = [b"bad" if number == 7 else b"good" for number in range(20)]
        answers = await asyncio.gather(
            *(store.transact(put(f"k{n}", value)) for n, value in enumerate(values)), return_exceptions=True
        )
        assert isinstance(answers[7], NotApplied) and "picky" in str(answers[7])
        assert sum(isinstance(answer, Applied) for answer in answers) == 19
        assert len((await store.range("k")).entries) == 20


async def test_a_server_that_copies_statements_is_refused_with_what_to_say() -> None:
    async with server("mysql", binlog=True, tables=False, config={"binlog-format": "STATEMENT"}) as cluster:
        await raises(f"{cluster.url}?create=true", ConfigurationError, "binlog_format = 'MIXED'")
        await mysql.ask(cluster.facts["ports"][0], "SET GLOBAL binlog_format = 'MIXED'")
        async with atoll.urls.store(f"{cluster.url}?create=true") as store:
            assert isinstance(await store.transact(put("k", b"")), Applied)


def certificate(folder: Path) -> None:
    """One that signs itself, for 127.0.0.1."""
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=atoll"
    files = [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(folder / "key.pem"),
        "-out",
        str(folder / "cert.pem"),
    ]
    subprocess.run([*words.split(), *files], check=True, capture_output=True)
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, mysql.ACCOUNT)


async def test_tls_is_spoken_and_with_a_ca_the_server_must_be_the_one_that_was_meant(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("openssl") is None:
        pytest.skip("needs openssl, and to be root")
    with tempfile.TemporaryDirectory() as right, tempfile.TemporaryDirectory() as other:
        for folder in (right, other):
            certificate(Path(folder))
        config = {"ssl-cert": f"{right}/cert.pem", "ssl-key": f"{right}/key.pem"}
        async with server("mysql", config=config) as cluster:
            for words in ("tls=true", f"tls=true&tls_ca={right}/cert.pem"):
                async with atoll.urls.store(f"{cluster.url}?{words}") as store:
                    [rows] = await store.ask("a look", ("SHOW STATUS LIKE 'Ssl_cipher'",), commits=1)
                    assert rows[0][1], "nothing was hidden"
            await raises(f"{cluster.url}?tls=true&tls_ca={other}/cert.pem", NotSent, "certificate")
        async with server("mysql") as plain:
            await raises(f"{plain.url}?tls=true", NotSent, "(?i)ssl")
