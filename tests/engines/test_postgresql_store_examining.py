"""3.11: what is found on a PostgreSQL server is weighed by its cost; each weakness is told from its cure."""

from __future__ import annotations

from typing import Any

import pytest
from postgresql_ways import database

import atoll.urls
from atoll.engines.postgresql import examining
from atoll.engines.postgresql.connecting import Met
from atoll.ports.examining import Finding, Weight
from atoll.verify.servers import postgresql
from servers import server

SOUND = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "synchronous_standby_names": "ANY 1 (*)",
    "standbys": "2",
    "max_connections": "200",
    "connections": "20",
    "idle_in_transaction_session_timeout": "60000",
    "oldest transaction": "0",
    "wal_level": "replica",
    "default_transaction_isolation": "read committed",
    "statement_timeout": "0",
    "server_version": "15.18",
}


def found(**changes: str) -> dict[str, Finding]:
    said = {**SOUND, **{name.replace("__", " "): value for name, value in changes.items()}}
    return {finding.setting: finding for finding in examining.judged(said, Met(direct=True))}


def test_a_sound_server_has_nothing_worse_than_a_note() -> None:
    assert {f.weight for f in found().values()} <= {Weight.NOTE, Weight.FINE}


@pytest.mark.parametrize(
    ("changes", "setting", "weight"),
    [
        ({"fsync": "off"}, "fsync", Weight.BREAKS),
        ({"synchronous_commit": "off"}, "synchronous_commit", Weight.BREAKS),
        ({"synchronous_commit": "local"}, "synchronous_commit", Weight.COSTS),
        ({"synchronous_commit": "local", "synchronous_standby_names": ""}, "synchronous_commit", Weight.FINE),
        ({"full_page_writes": "off"}, "full_page_writes", Weight.COSTS),
        ({"standbys": "0"}, "synchronous_standby_names", Weight.COSTS),
        ({"synchronous_standby_names": ""}, "standbys", Weight.COSTS),
        ({"synchronous_standby_names": "", "standbys": "0"}, "standbys", Weight.NOTE),
        ({"connections": "190"}, "max_connections", Weight.COSTS),
        ({"oldest__transaction": "600"}, "idle_in_transaction_session_timeout", Weight.COSTS),
        ({"idle_in_transaction_session_timeout": "0"}, "idle_in_transaction_session_timeout", Weight.NOTE),
        ({"default_transaction_isolation": "serializable"}, "default_transaction_isolation", Weight.COSTS),
        ({"statement_timeout": "50"}, "statement_timeout", Weight.COSTS),
        ({"wal_level": "minimal"}, "wal_level", Weight.NOTE),
    ],
)
def test_each_weakness_has_its_weight_and_its_cure(
    changes: dict[str, str], setting: str, weight: Weight
) -> None:
    finding = found(**changes)[setting]
    assert finding.weight is weight
    assert finding.fix or weight in (Weight.FINE, Weight.NOTE)
    assert finding.cost.endswith(".")


async def test_a_server_that_forgets_is_told_from_one_that_does_not(shared: Any) -> None:
    async with server("postgresql", fsync=False, config={"full_page_writes": "off"}) as cluster:
        async with atoll.urls.store(cluster.url) as store:
            assert store.examining is not None
            first, second, *_ = await store.examining.examine()
            assert (first.setting, first.weight) == ("fsync", Weight.BREAKS)
            assert (second.setting, second.weight) == ("full_page_writes", Weight.COSTS)
    async with atoll.urls.store(shared("postgresql").url) as store:
        assert store.examining is not None
        assert all(f.weight is not Weight.BREAKS for f in await store.examining.examine())


async def test_the_settings_of_the_role_and_database_are_what_is_judged(shared: Any) -> None:
    port = shared("postgresql").facts["ports"][0]
    url = await database(port)
    await postgresql.ask(port, f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = off")
    async with atoll.urls.store(url) as store:
        assert store.examining is not None
        worst = (await store.examining.examine())[0]
        assert (worst.setting, worst.value, worst.weight) == ("synchronous_commit", "off", Weight.BREAKS)
