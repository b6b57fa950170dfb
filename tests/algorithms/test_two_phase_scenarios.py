"""B5: two-phase commit told as stories, which a person can read and a change would rewrite."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import scenario_file

from atoll.algorithms import two_phase as tp

STORIES = sorted((Path(__file__).parent / "testdata" / "two_phase").glob("*.txt"))


class Table:
    """A coordinator and a stranger at one table, asked in words."""

    def __init__(self) -> None:
        self.coordinator = tp.Coordinator([])

    def __call__(self, words: list[str]) -> list[str]:
        match words:
            case ["start", *databases]:
                self.coordinator = tp.Coordinator(databases)
                return shown(self.coordinator.start())
            case ["start-in-order", *databases]:
                self.coordinator = tp.Coordinator(databases, parallel=False)
                return shown(self.coordinator.start())
            case ["voted", database, "prepared" | "read_only" as vote]:
                return shown(self.coordinator.step(tp.Voted(database, vote)))
            case ["voted", database, "no"]:
                return shown(self.coordinator.step(tp.Voted(database, None)))
            case ["recorded", "commit" | "abort" as decision]:
                return shown(self.coordinator.step(tp.Recorded(decision)))
            case ["not-recorded"]:
                return shown(self.coordinator.step(tp.NotRecorded()))
            case ["not-known"]:
                return shown(self.coordinator.step(tp.NotKnown()))
            case ["stranger-finds", decision, age, *rest]:
                return [self.judged(decision, float(age.removesuffix("s")), rest)]
        raise AssertionError(f"no such command: {words}")

    def judged(self, decision: str, age_s: float, rest: list[str]) -> str:
        found = tp.Found(
            decision=None if decision == "nothing" else decision,  # type: ignore[arg-type]
            age_s=age_s,
            coordinator_lives="alive" in rest,
            same_epoch="restored" not in rest,
        )
        verdict = tp.judge(found, grace_s=5, patience_s=60, retention_s=604_800)
        reason = getattr(verdict, "decision", getattr(verdict, "reason", ""))
        return f"{type(verdict).__name__.lower()} {reason}".strip()


def shown(effects: list[tp.Effect]) -> list[str]:
    lines = []
    for effect in effects:
        match effect:
            case tp.Prepare(database):
                lines.append(f"prepare {database}")
            case tp.Record(databases):
                lines.append(f"record commit of {', '.join(databases)}")
            case tp.Finish(database, decision):
                lines.append(f"finish {database}: {decision}")
            case tp.Answer(decision):
                lines.append(f"answer {decision or 'not known'}")
    return lines


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_the_story_is_as_it_was_told(story: Path) -> None:
    scenario_file.check(story, Table())


def test_another_ending_is_noticed(tmp_path: Path) -> None:
    text = STORIES[0].read_text()
    changed = tmp_path / "changed.txt"
    changed.write_text(text.replace("answer commit", "answer abort", 1))
    with pytest.raises(AssertionError, match="tells another story"):
        scenario_file.check(changed, Table())


def test_there_is_a_story_for_each_way_to_end() -> None:
    told = "\n".join(path.read_text() for path in STORIES)
    for ending in ("answer commit", "answer abort", "answer not known", "presume", "park", "carry", "wait"):
        assert ending in told
