"""4.1: the Raft machine told as stories: the rules of the paper, and the traps in which others were caught.

A file whose name begins with a number tells a rule; the others are named after the mistake they keep away.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import scenario_file
from raft_story import Table

STORIES = sorted((Path(__file__).parent / "testdata" / "raft").glob("*.txt"))


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_the_story_is_as_it_was_told(story: Path) -> None:
    scenario_file.check(story, Table())


def test_another_ending_is_noticed(tmp_path: Path) -> None:
    changed = tmp_path / "changed.txt"
    changed.write_text(STORIES[0].read_text().replace("is leader in term 1", "is leader in term 2", 1))
    with pytest.raises(AssertionError, match="tells another story"):
        scenario_file.check(changed, Table())


def test_every_effect_and_every_message_occurs_in_some_story() -> None:
    told = "\n".join(path.read_text() for path in STORIES)
    for words in (
        "write 1: term", "apply ", "accepted at", "refused, ", "read 7 from", "is leader", "is pre-candidate",
        "store snapshot", "would you vote", "I would not", "vote in term", "yes in term", "no in term",
        "durable up to", "lack ", "installed (term", "is here up to", "stand at once", "from where may I",
        "cannot be said", "handed over", "STOPS: ",
    ):  # fmt: skip
        assert words in told, words


def test_every_story_says_first_what_it_is_about() -> None:
    for path in STORIES:
        assert re.match(r"# \S.{20,}", path.read_text()), path.name
