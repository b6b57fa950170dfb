"""4.6: gossip told as stories: who calls whom in which round, and what two copies bring each other.

Chance is written down too: "0>2" means that member 0 calls member 2.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import scenario_file

from atoll.algorithms.gossip import Loss, Style, absorb, difference, digest, monger, spread

STORIES = sorted((Path(__file__).parent / "testdata" / "gossip").glob("*.txt"))


class Calls:
    """Dice that fall as the story says; AssertionError where it says too little or too much."""

    def __init__(self, members: int, calls: list[str]) -> None:
        self.left = [
            (int(called) - (int(called) > int(caller)) + 0.5) / (members - 1)
            for caller, called in (call.split(">") for call in calls)
        ]

    def random(self) -> float:
        assert self.left, "nobody says whom the next one calls"
        return self.left.pop(0)

    def close(self) -> None:
        assert not self.left, f"{len(self.left)} calls were not made"


class Table:
    """A group in which member 0 knows a rumour, and two copies, `ours` and `theirs`."""

    def __init__(self) -> None:
        self.copies: dict[str, dict[str, tuple[int, str]]] = {"ours": {}, "theirs": {}}

    def __call__(self, words: list[str]) -> list[str]:
        match words:
            case [("push" | "pull" | "push-pull") as style, "among", members, *calls]:
                dice = Calls(int(members), calls)
                told = spread(int(members), Style(style), dice)
                dice.close()
                rounds = [f"round {n}: {know} know" for n, know in enumerate(told.informed)]
                return [*rounds, f"told {told.transmissions} times"]
            case [("push" | "pull") as style, "until", k, "times", "useless", "among", members, *calls]:
                dice = Calls(int(members), calls)
                died = monger(int(members), int(k), dice, style=Style(style), loss=Loss.COUNTER)
                dice.close()
                never = round(died.residue * int(members))
                return [
                    f"{never} never hear it, told {round(died.traffic * int(members))} times, "
                    f"{died.rounds} rounds"
                ]
            case ["ours" | "theirs" as where, "hold", *entries]:
                for key, version in (entry.split("=") for entry in entries):
                    self.copies[where][key] = (int(version), f"{key}{version}")
                return []
            case ["compare", style]:
                return self.compare(Style(style))
        raise AssertionError(f"no such command: {words}")

    def compare(self, style: Style) -> list[str]:
        ours, theirs = self.copies["ours"], self.copies["theirs"]
        lacks = difference(digest(ours), digest(theirs), style)
        self.copies["ours"] = absorb(ours, {key: theirs[key] for key in lacks.to_first})
        self.copies["theirs"] = absorb(theirs, {key: ours[key] for key in lacks.to_second})
        brought = {"to ours": lacks.to_first, "to theirs": lacks.to_second}
        alike = ["both are alike"] if self.copies["ours"] == self.copies["theirs"] else []
        return [*(f"{way}: {' '.join(keys)}" for way, keys in brought.items() if keys), *alike]


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_the_story_is_as_it_was_told(story: Path) -> None:
    scenario_file.check(story, Table())


def test_another_ending_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REWRITE", raising=False)
    changed = tmp_path / "changed.txt"
    told = STORIES[0].read_text()
    changed.write_text(told.replace("round 2: 4 know", "round 2: 3 know"))
    assert changed.read_text() != told
    with pytest.raises(AssertionError, match="tells another story"):
        scenario_file.check(changed, Table())
