"""4.6: SWIM told as stories, which a person can read and a change would rewrite."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import scenario_file
import swim_table

STORIES = sorted((Path(__file__).parent / "testdata" / "swim").glob("*.txt"))


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_the_story_is_as_it_was_told(story: Path) -> None:
    sleeps = "sleep" in story.stem
    scenario_file.check(story, swim_table.Sleeper() if sleeps else swim_table.Table())


def test_another_ending_is_noticed(tmp_path: Path) -> None:
    text = STORIES[0].read_text()
    changed = tmp_path / "changed.txt"
    changed.write_text(text.replace("** c failed", "** c left", 1))
    assert changed.read_text() != text
    with pytest.raises(AssertionError, match="tells another story"):
        scenario_file.check(changed, swim_table.Table())


def test_every_event_is_told_in_some_story() -> None:
    told = "\n".join(path.read_text() for path in STORIES)
    for word in ("joined", "suspected", "refuted", "failed", "left", "updated"):
        assert re.search(rf"\*\* \w+ {word}$", told, re.MULTILINE), word
    for word in ("** introduced by", "** departed", "** name taken", "nack", "ping-request", "on stream"):
        assert word in told, word
