"""3.6: the MySQL store on MariaDB: one round trip a call, tables only when asked for, nothing cut short."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import Any

import pytest
from mysql_ways import account, database, do, name_of
from postgresql_ways import Porter

import atoll.urls
from atoll import ConfigurationError, FormatRefused, LimitReached, Lock, MissingExtra, NotApplied
from atoll.cli.main import main
from atoll.engines.mysql.options import StoreOptions
from atoll.ports.register import Applied
from atoll.ports.store import Durable, put
from atoll.verify.servers import mysql


@pytest.fixture
def port(shared: Any) -> int:
    return int(shared("mysql").facts["ports"][0])


async def test_a_call_is_one_round_trip(port: int) -> None:
    url = await database(port)
    async with Porter(port) as porter:
        async with atoll.urls.store(url.replace(f":{port}/", f":{porter.port}/")) as store:
            for call in (lambda: store.transact(put("k", b"1")), lambda: store.get("k"), store.range):
                await call()
                before = porter.turns
                for _ in range(10):
                    await call()
                assert porter.turns - before == 10


async def test_an_uncontended_lock_is_one_round_trip_to_take_and_one_to_give_back(port: int) -> None:
    url = await database(port)
    async with Porter(port) as porter:
        async with atoll.urls.store(url.replace(f":{port}/", f":{porter.port}/")) as store:
            for _ in range(5):  # the first one grants the lease
                async with Lock(store, "trips", ttl_s=60):
                    pass
            before = porter.turns
            async with Lock(store, "trips", ttl_s=60):
                taken = porter.turns - before
            assert (taken, porter.turns - before) == (1, 2)


async def test_writes_that_wait_together_leave_together(port: int) -> None:
    url = await database(port)
    async with Porter(port) as porter:
        async with atoll.urls.store(url.replace(f":{port}/", f":{porter.port}/")) as store:
            await store.transact(put("k", b""))
            before = porter.turns
            answers = await asyncio.gather(*(store.transact(put(f"k{n}", b"")) for n in range(100)))
            assert porter.turns - before <= 5
            assert len({answer.revision for answer in answers}) == 100


async def test_tables_are_never_made_by_surprise(port: int) -> None:
    url = await database(port, tables=False)
    store = atoll.urls.store(url)
    for call in (store.get("k"), store.transact(put("k", b""))):
        with pytest.raises(ConfigurationError, match=f"atoll schema {url}"):
            await call
    assert await do(port, url, "SHOW TABLES") == []
    async with atoll.urls.store(f"{url}?create=true") as made:
        await made.transact(put("k", b"1"))
    assert (await store.get("k")).entry is not None, "the handle that was refused works when there are tables"
    await store.close()


def test_atoll_schema_makes_them_once_and_prints_them(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    url = asyncio.run(database(port, tables=False))
    assert main(["schema", url, "--print"]) == 0
    printed = capsys.readouterr().out
    assert "CREATE TABLE IF NOT EXISTS atoll_entry" in printed and "AUTO_INCREMENT" not in printed
    assert asyncio.run(do(port, url, "SHOW TABLES")) == []
    assert main(["schema", url, "--json"]) == 0
    assert "atoll_counter" in json.loads(capsys.readouterr().out)["made"]
    assert main(["schema", url]) == 0
    assert "nothing to make" in capsys.readouterr().out

    async def use() -> None:
        async with atoll.urls.store(url) as store:
            assert isinstance(await store.transact(put("k", b"")), Applied)

    asyncio.run(use())
    asyncio.run(
        do(port, asyncio.run(database(port, tables=False)), *filter(str.strip, printed.split(";\n\n")))
    )


async def test_many_who_make_the_tables_at_once_make_them_once(port: int) -> None:
    url = await database(port, tables=False)
    stores = [atoll.urls.store(f"{url}?create=true") for _ in range(5)]
    await asyncio.gather(*(store.transact(put(f"k{n}", b"")) for n, store in enumerate(stores)))
    assert len((await stores[0].range("k")).entries) == 5
    assert len({store.met.identity for store in stores}) == 1
    for store in stores:
        await store.close()


async def test_tables_of_a_newer_atoll_are_refused(port: int) -> None:
    url = await database(port)
    await do(port, url, "UPDATE atoll_format SET number=99")
    for way in (url, f"{url}?create=true"):
        with pytest.raises(FormatRefused, match="format 99"):
            await atoll.urls.store(way).get("k")


async def test_tables_without_transactions_are_refused(port: int) -> None:
    url = await database(port)
    await do(port, url, "ALTER TABLE atoll_lease ENGINE=MyISAM")
    with pytest.raises(ConfigurationError, match=r"atoll_lease .* kept by MyISAM.*ALTER TABLE"):
        await atoll.urls.store(url).get("k")


async def test_the_longest_key_and_value_are_kept_whole_and_longer_ones_refused(port: int) -> None:
    url = await database(port)
    async with atoll.urls.store(f"{url}?key_bytes_max=3072&value_bytes_max=64MiB") as store:
        claims = await store.open()
        assert claims.key_bytes_max == 3072
        assert claims.value_bytes_max < 16 << 20, "the server's max_allowed_packet was not looked at"
        key, value = "k" * 3072, os.urandom(claims.value_bytes_max - (64 << 10))
        assert store.leasing is not None
        lease = (await store.leasing.grant(60)).lease
        await store.transact(put(key, value, lease=lease))
        await store.transact(put(key[:-1] + "l", b"2", lease=lease))
        found = (await store.range("k")).entries
        assert [(one.key[-1], one.value == value) for one in found] == [("k", True), ("l", False)]
        for longer in (put(key + "k", b""), put("k", bytes(claims.value_bytes_max + 1))):
            with pytest.raises(LimitReached):
                await store.transact(longer)
        with pytest.raises(LimitReached, match="max_allowed_packet"):
            await store.transact(put("a", bytes(7 << 20)), put("b", bytes(7 << 20)))
        await store.leasing.revoke(lease)
        assert (await store.range("k")).entries == ()


async def test_a_column_too_narrow_is_a_no_although_the_server_would_cut(port: int) -> None:
    """The trap: sql_mode='' lets MariaDB cut what is too long, with a warning that nobody reads."""
    url = await database(port)
    await mysql.ask(port, "SET GLOBAL sql_mode=''")
    try:
        await do(port, url, "ALTER TABLE atoll_entry MODIFY value TINYBLOB NOT NULL")
        await do(port, url, "INSERT INTO atoll_entry VALUES ('cut', REPEAT('x', 300), 1, 1, NULL)")
        [(kept,)] = await do(port, url, "SELECT LENGTH(value) FROM atoll_entry")
        assert kept == 255, "the server does not cut, so nothing was tested"
        async with atoll.urls.store(url) as store:
            with pytest.raises(NotApplied, match="Data too long"):
                await store.transact(put("k", bytes(300)))
            assert (await store.get("k")).entry is None
    finally:
        await mysql.ask(port, "SET GLOBAL sql_mode=DEFAULT")


async def test_a_server_that_does_not_listen_to_our_mode_is_refused(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atoll.engines.mysql import connecting

    monkeypatch.setattr(connecting, "_MANNERS", ("SET NAMES binary", "SET sql_mode=''", "DO 1"))
    with pytest.raises(ConfigurationError, match="swallows SET"):
        await atoll.urls.store(await database(port, tables=False)).get("k")


async def test_habits_of_the_server_change_no_answer(port: int) -> None:
    """autocommit off, COMMIT AND CHAIN, a local time zone, serializable: a session says what it wants."""
    url = await database(port)
    odd = {
        "autocommit": "0",
        "completion_type": "1",
        "time_zone": "'+13:00'",
        "tx_isolation": "'SERIALIZABLE'",
        "character_set_server": "'ucs2'",
    }
    for name, value in odd.items():
        await mysql.ask(port, f"SET GLOBAL {name}={value}")
    try:
        async with atoll.urls.store(url) as store, atoll.urls.store(url) as other:
            assert store.leasing is not None
            lease = await store.leasing.grant(30)
            await store.transact(put("ü", "ß".encode(), lease=lease.lease))
            entry = (await other.get("ü")).entry
            assert entry is not None and entry.value == "ß".encode()
            left = await other.leasing.remaining(lease.lease)  # type: ignore[union-attr]
            assert left is not None and 20 < left <= 30
            await asyncio.gather(*(one.transact(put("n", b"")) for one in (store, other) for _ in range(20)))
    finally:
        for name in odd:
            await mysql.ask(port, f"SET GLOBAL {name}=DEFAULT")


async def test_with_the_grants_of_the_page_a_plain_account_may_do_everything(port: int) -> None:
    url = await database(port)
    plain = await account(port, url, "SELECT, INSERT, UPDATE, DELETE")
    async with atoll.urls.store(plain) as store:
        assert store.leasing and store.moving and store.examining
        lease = await store.leasing.grant(5)
        await store.transact(put("k", b"", lease=lease.lease))
        await store.leasing.keep_alive(lease.lease)
        await store.leasing.revoke(lease.lease)
        await store.moving.bump()
        await store.moving.freeze("note")
        await store.moving.freeze(None)
        assert await store.examining.examine()
        assert await store.examining.damage() == []


async def test_a_request_id_of_any_length_is_remembered_whole(port: int) -> None:
    async with atoll.urls.store(await database(port)) as store:
        for id in ("short", "long" * 100, "long" * 100 + "er"):
            assert not (await store.transact(put("k", b""), request_id=id)).replayed
            assert (await store.transact(put("k", b""), request_id=id)).replayed
        with pytest.raises(ConfigurationError, match="request_id"):
            await store.transact(put("k", b""), request_id="\ud800")
        with pytest.raises(NotApplied, match="no living lease"):
            await store.transact(put("k", b"", lease="\ud800"))
        with pytest.raises(NotApplied, match="no living lease"):
            await store.transact(put("k", b"", lease="x" * 1000))


async def test_a_revision_beyond_all_numbers_holds_of_nothing(port: int) -> None:
    async with atoll.urls.store(await database(port)) as store:
        for revision in (1 << 63, 1 << 200, -5):
            assert not isinstance(await store.put_if("never", b"", revision), Applied)


async def test_who_resumes_too_late_is_told_what_is_kept(port: int) -> None:
    url = await database(port)
    async with atoll.urls.store(f"{url}?history_max=100") as store:
        assert store.history is not None
        start = await store.history.now()
        for _ in range(5):
            await asyncio.gather(*(store.transact(put("k", b"")) for _ in range(60)))
        [(kept,)] = await do(port, url, "SELECT COUNT(*) FROM atoll_event")
        assert kept < 100 + 2 * 64, "nothing was forgotten"
        with pytest.raises(atoll.Compacted) as gone:
            async for _ in store.history.changes("", start):
                pass
        assert gone.value.oldest > start.revision + 1


@pytest.mark.parametrize(("flush", "durable"), [(1, Durable.NODE), (2, Durable.NONE), (0, Durable.NONE)])
async def test_the_claim_of_durability_is_read_from_the_server(
    port: int, flush: int, durable: Durable
) -> None:
    url = await database(port)
    await mysql.ask(port, f"SET GLOBAL innodb_flush_log_at_trx_commit={flush}")
    try:
        async with atoll.urls.store(url) as store:
            claims = await store.open()
            assert claims.durable is durable and not claims.never_early
            assert store.examining is not None
            heaviest = (await store.examining.examine())[0]
            breaks = heaviest.setting == "innodb_flush_log_at_trx_commit"
            assert breaks == (durable is Durable.NONE)
    finally:
        await mysql.ask(port, "SET GLOBAL innodb_flush_log_at_trx_commit=1")


async def test_what_is_damaged_is_found(port: int) -> None:
    url = await database(port)
    async with atoll.urls.store(url) as store:
        assert store.examining is not None
        await store.transact(put("k", b""))
        assert await store.examining.damage() == []
        await do(port, url, "UPDATE atoll_entry SET revision=1000, lease='nobody'")
        assert len(await store.examining.damage()) == 2


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("kex_bytes_max=5", "kex_bytes_max.*knows"),
        ("key_bytes_max=5000", "at most 3072"),
        ("poll_s=0", "more than 0"),
        ("tls_ca=/x", "tls=true"),
    ],
)
def test_an_option_that_is_not_known_or_cannot_be_is_refused(words: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        atoll.urls.store(f"mysql://h/db?{words}")


def test_a_password_is_shown_nowhere() -> None:
    store = atoll.urls.store("mariadb://me:s3cret@h:1/db")
    assert "s3cret" not in repr(store) + str(store.url) + repr(vars(store))


def test_without_the_client_library_the_line_to_type_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.engines.mysql.store.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'pip install "atoll\[mysql\]"'):
        atoll.urls.store("mysql://h/db")


def test_options_are_checked_when_the_handle_is_made() -> None:
    with pytest.raises(ConfigurationError, match="connections_max"):
        StoreOptions(connections_max=0)


def test_a_handle_works_in_several_loops_and_in_a_forked_child(port: int) -> None:
    url = asyncio.run(database(port))
    store = atoll.urls.store(url)

    async def write(name: str) -> int:
        return int((await store.transact(put(name, b""))).revision)

    async def session() -> int:
        [rows] = await store.ask("a look", ("SELECT CONNECTION_ID()",), commits=1)
        return int(rows[0][0])

    async def both() -> int:
        await write("parent")
        mine = await session()
        child = os.fork()
        if child == 0:
            os._exit(_in_child(write))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert await session() == mine, "the child closed its parent's connection"
        return code

    async def whole() -> None:
        first = await write("here")
        assert await asyncio.to_thread(lambda: asyncio.run(write("elsewhere"))) == first + 1
        assert await asyncio.to_thread(lambda: asyncio.run(both())) == 0
        assert [entry.key for entry in (await store.range()).entries] == "child elsewhere here parent".split()
        await store.close()

    asyncio.run(whole())
    assert name_of(url) in store.url


def _in_child(write: Any) -> int:
    failed: list[BaseException] = []

    def body() -> None:
        try:
            asyncio.run(write("child"))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(30)
    return int(bool(failed) or thread.is_alive())
