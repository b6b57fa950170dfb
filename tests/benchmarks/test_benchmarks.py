"""The benchmarks run, and say what RESULTS.md shows; no figure is judged here."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from benchmarks.measure import TINY, Result, Spread, forced, table

from benchmarks import __main__ as bench
from benchmarks import lock


@pytest.mark.parametrize("name", bench.NAMES)
def test_each_benchmark_runs_and_its_tables_hold_a_figure_for_atoll(name: str, tmp_path: Path) -> None:
    result: Result = importlib.import_module(f"benchmarks.{name}").run(tmp_path, TINY)
    text = result.text()
    print(text)
    assert text.startswith(f"## {name.capitalize()}")
    assert result.tables and all(rows for _, rows in result.tables)


def test_the_whole_report_names_the_machine_the_disk_and_what_was_expected(tmp_path: Path) -> None:
    output = tmp_path / "RESULTS.md"
    assert bench.main(["imports", "--rounds", "1", "--output", str(output)]) == 0
    text = output.read_text()
    assert "cores" in text and "SQLite" in text and "fsync" in text and "| expected" in text


def test_a_name_that_is_no_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["locks"])
    assert "found locks; expected names of store" in capsys.readouterr().err


async def test_forced_writes_are_counted(tmp_path: Path) -> None:
    from atoll.engines.sqlite.store import SqliteStore
    from atoll.ports.store import put

    with forced() as counting:
        async with SqliteStore(str(tmp_path / "state.db")) as store:
            await store.transact(put("k", b"v"))
            before = counting.count
            await store.get("k")
            assert counting.count == before
            await store.transact(put("k", b"w"))
            assert counting.count == before + 1


def test_two_holders_at_once_are_not_taken_for_a_quick_hand_over() -> None:
    with pytest.raises(AssertionError, match="two held it"):
        lock.handed_over_ms([(0.0, 2.0), (1.0, 3.0)])


def test_a_table_lines_up_and_a_spread_shows_its_ends() -> None:
    assert str(Spread.of([3.0, 1.0, 2.0])) == "2.00 (1.00 - 3.00)"
    assert table(("", "a"), [("row", 12)]) == "|     |  a |\n|-----|---:|\n| row | 12 |"
