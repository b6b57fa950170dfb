"""4.8: CRDTs told as stories: two fridges, one list; who overwrites whom; what a removal does not see."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import scenario_file

from atoll.algorithms.crdt import GCounter, LWWRegister, ORMap, ORSet, PNCounter, State, decode, encode
from atoll.algorithms.hybrid_clock import Stamp
from atoll.errors import AtollError

STORIES = sorted((Path(__file__).parent / "testdata" / "crdt").glob("*.txt"))
KINDS: dict[str, type[State]] = {
    "g-counter": GCounter,
    "pn-counter": PNCounter,
    "lww-register": LWWRegister,
    "or-set": ORSet,
    "or-map": ORMap,
}


class Table:
    """Copies by the name of who keeps them. Everything that is sent goes through bytes."""

    def __init__(self) -> None:
        self.copies: dict[str, Any] = {}
        self.kind = ""
        self.letters: dict[str, bytes] = {}

    def __call__(self, words: list[str]) -> list[str]:
        match words:
            case [("g-counter" | "pn-counter" | "lww-register" | "or-set" | "or-map") as kind, *keepers]:
                self.kind, self.copies = kind, {name: KINDS[kind]() for name in keepers}
                return []
            case [sender, "tells", reader]:
                self.copies[reader].merge(decode(encode(self.copies[sender])))
                return [f"{reader}: {shown(self.copies[reader])}"]
            case [sender, "sends", letter]:
                self.letters[letter] = encode(self.copies[sender])
                return []
            case [reader, "reads", letter]:
                self.copies[reader].merge(decode(self.letters[letter]))
                return [f"{reader}: {shown(self.copies[reader])}"]
            case [keeper, "known"]:
                return [repr(self.copies[keeper])]
            case [keeper, *change]:
                try:
                    self.letters["last"] = encode(self.change(keeper, change))
                except AtollError as error:
                    return [f"{type(error).__name__}: {str(error).partition(';')[0]}"]
                return [f"{keeper}: {shown(self.copies[keeper])}"]
        raise AssertionError(f"no such command: {words}")

    def change(self, keeper: str, change: list[str]) -> Any:
        copy = self.copies[keeper]
        match self.kind, change:
            case "g-counter" | "pn-counter", ["counts", amount]:
                return copy.add(keeper, int(amount))
            case "lww-register", ["writes", value, "at", wall]:
                return copy.set(value, Stamp(int(wall)), keeper)
            case "or-set", ["adds", element]:
                return copy.add(keeper, element)
            case "or-set", ["removes", element]:
                return copy.remove(element)
            case "or-set", ["clears"]:
                return copy.clear()
            case "or-map", ["counts", amount, "under", key]:
                return copy.update(keeper, key, PNCounter, lambda value, name: value.add(name, int(amount)))
            case "or-map", ["adds", element, "under", key]:
                return copy.update(keeper, key, ORSet, lambda value, name: value.add(name, element))
            case "or-map", ["writes", text, "at", wall, "under", key]:
                stamp = Stamp(int(wall))
                return copy.update(keeper, key, LWWRegister, lambda value, name: value.set(text, stamp, name))
            case "or-map", ["removes", key]:
                return copy.remove(key)
        raise AssertionError(f"a {self.kind} cannot do that: {change}")


def shown(state: Any) -> str:
    if isinstance(state, ORMap):
        lines = [
            f"{key}={shown(value)}"
            for key in state
            for kind in KINDS.values()
            if (value := state.get(key, kind)) is not None  # type: ignore[type-var]
        ]
        return " ".join(lines) or "(empty)"
    if isinstance(state, ORSet):
        return ",".join(state) or "(empty)"
    return str(state.value)


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_the_story_is_as_it_was_told(story: Path) -> None:
    scenario_file.check(story, Table())


def test_another_ending_is_noticed(tmp_path: Path) -> None:
    changed = tmp_path / "changed.txt"
    changed.write_text(STORIES[2].read_text().replace("anna: bread,milk", "anna: bread", 1))
    with pytest.raises(AssertionError, match="tells another story"):
        scenario_file.check(changed, Table())


def test_there_is_a_story_for_each_kind() -> None:
    told = "\n".join(path.read_text() for path in STORIES)
    for kind in KINDS:
        assert f"\n{kind} " in told
