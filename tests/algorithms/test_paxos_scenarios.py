"""4.5: Paxos told as stories, which a person can read and a change would rewrite."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import scenario_file
from paxos_table import Table

STORIES = sorted((Path(__file__).parent / "testdata" / "paxos").glob("*.txt"))


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_the_story_is_as_it_was_told(story: Path) -> None:
    table = Table()
    scenario_file.check(story, table)
    if table.kind != "register":
        assert table.safe


def test_another_ending_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "changed.txt"
    monkeypatch.delenv("REWRITE", raising=False)
    changed.write_text(STORIES[0].read_text().replace("p learns tea", "p learns coffee"))
    with pytest.raises(AssertionError, match="tells another story"):
        scenario_file.check(changed, Table())


@pytest.mark.parametrize("kind", ["jury", "log", "register"])
def test_each_kind_has_its_stories(kind: str) -> None:
    assert sum(f"\n{kind} " in path.read_text() for path in STORIES) >= 3
