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

from atoll.algorithms.raft import election, following, machine, quorum, replication
from atoll.algorithms.raft.leadership import Leadership
from atoll.algorithms.raft.progress import Progress
from atoll.algorithms.raft.state import State

STORIES = sorted((Path(__file__).parent / "testdata" / "raft").glob("*.txt"))


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_the_story_is_as_it_was_told(story: Path) -> None:
    scenario_file.check(story, Table())


def test_another_ending_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REWRITE", raising=False)
    changed = tmp_path / "changed.txt"
    changed.write_text(STORIES[0].read_text().replace("is leader in term 1", "is leader in term 2", 1))
    with pytest.raises(AssertionError, match="tells another story"):
        scenario_file.check(changed, Table())


def commits_by_counting_alone(s: State) -> None:
    if s.lead is not None:
        matches: dict[str, float] = {member: p.match for member, p in s.lead.progress.items()}
        matches[s.me] = s.log.durable
        s.commit = max(s.commit, int(quorum.reached(s.membership, matches)))


BROKEN: list[tuple[str, object, str, object]] = [
    ("07-no_old_term", replication, "commit_what_a_majority_has", commits_by_counting_alone),
    ("10-pre_vote", election, "ask", election.stand),
    ("11-who_hears", machine, "leader_is_alive", lambda s: False),
    ("a_read_is_not", Leadership, "heard", lambda lead, p, round: setattr(p, "round", lead.round)),
    ("a_learner", quorum, "majority_reached", lambda voters, values: sorted(values.values())[-2]),
    ("a_duplicate", following, "unknown", lambda s, m: m.entries),
    ("a_pipeline", Progress, "refused", lambda progress, prev: False),
    ("nothing_is_ack", following, "answer", lambda s: None),
    ("two_leaders", machine, "assert_never", lambda wrong, what: None),
    ("half_of_four", quorum, "has_majority", lambda voters, yes: len(yes) >= len(voters) // 2),
]


@pytest.mark.parametrize(("story", "where", "name", "broken"), BROKEN, ids=[one[0] for one in BROKEN])
def test_a_broken_machine_tells_another_story(
    story: str, where: object, name: str, broken: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = (one for one in STORIES if one.stem.startswith(story))
    monkeypatch.setattr(where, name, broken)
    monkeypatch.delenv("REWRITE", raising=False)
    with pytest.raises((AssertionError, IndexError)):
        scenario_file.check(path, Table())


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
