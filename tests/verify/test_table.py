"""3.4: the table of guarantees is made from results of runs; what was not run says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from atoll.errors import ConfigurationError
from atoll.verify import table

ROOT = Path(__file__).resolve().parents[2]
PAGE, RESULTS = ROOT / "docs" / "guarantees.md", ROOT / "docs" / "guarantees.json"


def run(engine: str, **verdicts: str) -> dict[str, Any]:
    claims = [
        {
            "claim": name.replace("_", " "),
            "workload": "x",
            "verdict": verdict,
            "figures": "3 lost of 10" if verdict != "held" else "0 lost of 10",
            "faults": {} if verdict == "not run" else {"kill -9": 2, "delay": 1, "several processes": 3},
        }
        for name, verdict in verdicts.items()
    ]
    return {"engine": engine, "seed": 1, "claims": claims}


def test_what_was_not_run_says_so() -> None:
    text = table.markdown([run("a", one="held"), run("b", two="not promised", one="not run")])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == "| guarantee | `a` | `b` |"
    assert rows[2] == "| one | held, 2 faults | not run |"
    assert rows[3] == "| two | not run | not promised, 2 faults |"
    assert "| delay | 1 | 1 |" in rows
    assert "- `b`, two: not promised (3 lost of 10)" in text


def test_an_engine_with_few_claims_tried_is_told_of_in_a_list() -> None:
    many = run("a", one="held", two="held", three="held", four="held")
    text = table.markdown([many, run("a?x=1", one="not promised")])
    assert "| guarantee | `a` |" in text
    assert "- `a?x=1`, one: not promised (3 lost of 10)" in text


def test_of_two_runs_the_worse_counts_and_the_faults_are_added() -> None:
    text = table.markdown([run("a", one="held"), run("a", one="broken")])
    assert "| one | broken, 2 faults |" in text
    assert "| kill -9 | 4 |" in text


def test_the_command_prints_it_from_saved_results(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(run("a", one="held")))
    command = [sys.executable, "-m", "atoll", "verify", "--table", str(tmp_path / "r.json")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode, "| one | held, 2 faults |" in said.stdout) == (0, True), said.stderr


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"claims": []}', "nonsense"])
def test_what_is_no_result_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"r\.json"):
        table.read([tmp_path / "r.json"])


def test_the_page_shows_the_recorded_results_and_nothing_else() -> None:
    page = PAGE.read_text()
    assert table.within(page, table.markdown(table.read([RESULTS]))) == page, (
        "make the table again: python scripts/guarantees.py RESULT..."
    )


def test_a_page_that_says_more_than_the_results_is_caught() -> None:
    page = PAGE.read_text().replace("| not promised", "| held", 1)
    assert table.within(page, table.markdown(table.read([RESULTS]))) != page


def test_every_recorded_run_names_its_seed_and_what_bit() -> None:
    for recorded in table.read([RESULTS]):
        assert recorded["seed"] > 0
        assert recorded["when"] > "2026"
        for claim in recorded["claims"]:
            if claim["verdict"] == "held" and recorded["engine"] != "memory":  # which lives in one process
                assert sum((claim.get("faults") or {}).values()) > 1, claim
