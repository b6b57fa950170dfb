"""4.6: phi accrual told as stories: who phones at what times, and how surprising which silence is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import scenario_file

from atoll.algorithms.failure_detector import PhiAccrual

STORIES = sorted((Path(__file__).parent / "testdata" / "failure_detector").glob("*.txt"))


class Table:
    """One listener; all times in seconds."""

    def __init__(self) -> None:
        self.listener = PhiAccrual(1.0, 0.0)

    def __call__(self, words: list[str]) -> list[str]:
        match words:
            case ["promised", "every", interval_s, "from", now, *more]:
                given = dict(word.split("=") for word in more)
                window, floor = int(given.get("window", 1000)), given.get("floor")
                self.listener = PhiAccrual(
                    float(interval_s),
                    float(now),
                    window=window,
                    deviation_min_s=float(floor) if floor else None,
                )
                return []
            case ["heard", "at", *times]:
                for time in times:
                    self.listener.heartbeat(float(time))
                return [f"every {self.listener.mean_s:.3g}, give or take {self.listener.deviation_s:.3g}"]
            case ["silent", "at", *times]:
                return [f"{time}: phi {self.listener.phi(float(time)):.2f}" for time in times]
            case ["due", *thresholds]:
                return [f"phi {phi}: at {self.listener.due(float(phi)):.2f}" for phi in thresholds]
        raise AssertionError(f"no such command: {words}")


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_the_story_is_as_it_was_told(story: Path) -> None:
    scenario_file.check(story, Table())


def test_another_ending_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REWRITE", raising=False)
    changed = tmp_path / "changed.txt"
    told = STORIES[0].read_text()
    changed.write_text(told.replace("30: phi 0.30", "30: phi 8.00"))
    assert changed.read_text() != told
    with pytest.raises(AssertionError, match="tells another story"):
        scenario_file.check(changed, Table())
