"""A2: every port of the design is a file, and the page "engine by verb" answers for each of its verbs."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/decisions/0002-engine-by-verb.md").read_text()

PORTS = "register store joined broker log tier participant registry compute observer".split()
ENGINES = "postgres redis etcd zookeeper consul nats rabbitmq kafka memcached mongodb raft".split()
# Where the verbs of a port are named on the page; `open`, `close` and the like are everybody's.
VERBS = {
    "register.Register": "get put_if delete_if observe",
    "store.Store": "range transact epoch",
    "store.Leasing": "grant",
    "store.History": "changes",
    "broker.Broker": "put take give_back bury",
    "broker.Leased": "extend",
    "tier.Tier": "fill increment",
    "joined.Joined": "once fence put",
    "participant.Participant": "prepare finish in_doubt",
}


@pytest.mark.parametrize("name", PORTS)
def test_each_port_of_the_design_is_a_file(name: str) -> None:
    assert inspect.getdoc(importlib.import_module(f"atoll.ports.{name}"))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_page_answers_for_each_engine(engine: str) -> None:
    assert engine in PAGE.lower()


@pytest.mark.parametrize("port", VERBS)
def test_the_page_answers_for_each_verb(port: str) -> None:
    said = set(re.findall(r"`(?:lease\.)?(\w+)", PAGE))
    assert [verb for verb in VERBS[port].split() if verb not in said] == []


def test_every_row_has_an_answer_for_every_engine_of_its_table() -> None:
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.M):
        rows = [row.strip().strip("|").split(" | ") for row in table.strip().splitlines()]
        assert {len(row) for row in rows if not set("".join(row)) <= set("-|")} == {len(rows[0])}, rows[0]
        assert all(cell.strip() for row in rows for cell in row), rows[0]


def test_a_port_says_no_by_an_attribute_that_is_none_never_by_raising() -> None:
    for name in PORTS:
        source = inspect.getsource(importlib.import_module(f"atoll.ports.{name}"))
        assert "NotImplementedError" not in source and "runtime_checkable" not in source
