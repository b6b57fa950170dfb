"""4.9: a Merkle difference finds exactly the keys that differ, and costs by their number, not by the copies'.

The property test compares with the difference of two plain dictionaries. The negative controls are a tree
that does not tell its parents of a change, and a hash that forgets where one part ends.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

import scenario_file

from atoll.algorithms import merkle
from atoll.algorithms.merkle import EMPTY, Answer, Difference, Question, Shape, Tree, answer, difference
from atoll.errors import ConfigurationError, FormatRefused

STORIES = sorted((Path(__file__).parent / "testdata" / "merkle").glob("*.txt"))
SMALL = Shape(fanout=3, depth=2)


class Table:
    """Two copies, `ours` and `theirs`, in a tree small enough to be read out."""

    def __init__(self) -> None:
        self.trees = {"ours": Tree(shape=SMALL), "theirs": Tree(shape=SMALL)}
        self.talk = Difference(self.trees["ours"])

    def __call__(self, words: list[str]) -> list[str]:
        match words:
            case ["both" | "ours" | "theirs" as where, "hold", *entries]:
                for name in ("ours", "theirs") if where == "both" else (where,):
                    for key, version in (entry.split("=") for entry in entries):
                        self.trees[name].put(key, version.encode())
                return []
            case ["ours" | "theirs" as where, "lose", *keys]:
                for key in keys:
                    self.trees[where].remove(key)
                return []
            case ["compare"]:
                self.talk = Difference(self.trees["ours"])
                return [*self.round(), *self.found()]
        raise AssertionError(f"no such command: {words}")

    def round(self) -> list[str]:
        lines = []
        while question := self.talk.ask():
            told = answer(self.trees["theirs"], question)
            self.talk.hear(told)
            below = [len(entries) for entries in told.entries.values()]
            what = f"{sum(below)} keys" if told.entries else f"{len(told.digests) * SMALL.fanout} digests"
            lines.append(f"level {question.level}, {len(question.nodes)} nodes asked: {what}")
        return lines

    def found(self) -> list[str]:
        found = self.talk.finding
        named = {"here": found.only_here, "there": found.only_there, "different": found.different}
        return [f"{name}: {' '.join(sorted(keys))}" for name, keys in named.items() if keys]


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_the_story_is_as_it_was_told(story: Path) -> None:
    scenario_file.check(story, Table())


copies = st.dictionaries(st.sampled_from([f"k{n}" for n in range(40)]), st.sampled_from([b"1", b"2"]))
shapes = st.sampled_from([Shape(2, 1), SMALL, Shape(2, 5), Shape()])


@given(copies, copies, shapes, st.integers(1, 50))
def test_exactly_what_differs_is_found(
    ours: dict[str, bytes], theirs: dict[str, bytes], shape: Shape, nodes_max: int
) -> None:
    one, other = Tree(ours, shape), Tree(theirs, shape)
    talk = Difference(one, nodes_max=nodes_max)
    while question := talk.ask():
        question = msgspec.msgpack.decode(msgspec.msgpack.encode(question), type=Question)
        told = msgspec.msgpack.encode(answer(other, question))
        talk.hear(msgspec.msgpack.decode(told, type=Answer))
    found = talk.finding
    assert found.only_here == ours.keys() - theirs.keys()
    assert found.only_there == theirs.keys() - ours.keys()
    assert found.different == {key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]}
    assert (one.root == other.root) == (ours == theirs)
    if nodes_max == 50 and shape != Shape():
        assert talk.rounds <= shape.depth + 1


def changed_at_random(kind: type[Tree], seed: int) -> tuple[Tree, dict[str, bytes]]:
    dice, held, tree = random.Random(seed), dict[str, bytes](), kind(shape=SMALL)
    for n in range(60):
        key = f"k{dice.randrange(15)}"
        if dice.random() < 0.6:
            held[key] = str(n).encode()
            tree.put(key, held[key])
        else:
            held.pop(key, None)
            tree.remove(key)
        if dice.random() < 0.3:
            tree.digest(0, 0)
    return tree, held


@given(st.integers(0, 2**32))
def test_a_tree_changed_step_by_step_equals_one_built_at_once(seed: int) -> None:
    tree, held = changed_at_random(Tree, seed)
    assert (tree.root, len(tree)) == (Tree(held, SMALL).root, len(held))
    for key in held:
        tree.remove(key)
    assert (tree.root, len(tree)) == (EMPTY, 0)


class Lazy(Tree):
    """Tells nobody of a removal."""

    def remove(self, key: str) -> None:
        self._leaves.get(self.leaf_of(key), {}).pop(key, None)


def test_a_tree_that_forgets_its_parents_is_caught() -> None:
    wrong = [changed_at_random(Lazy, seed) for seed in range(10)]
    assert any(tree.root != Tree(held, SMALL).root for tree, held in wrong)


def test_parts_that_run_together_do_not_look_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = {"k": b"xkb"}, {"kx": b"kb"}
    assert Tree(one).root != Tree(other).root

    def running_together(level: int, parts: list[bytes]) -> bytes:
        return b"".join(parts)

    monkeypatch.setattr(merkle, "_hash", running_together)
    assert Tree(one).root == Tree(other).root


def cost(keys: int, differing: int, shape: Shape) -> Difference:
    held = {f"key/{n}": b"1" for n in range(keys)}
    changed = dict.fromkeys(random.Random(keys).sample(sorted(held), differing), b"2")
    talk, theirs = Difference(Tree(held, shape)), Tree(held | changed, shape)
    while question := talk.ask():
        talk.hear(answer(theirs, question))
    assert talk.finding.different == changed.keys()
    return talk


@pytest.mark.parametrize(("keys", "depth"), [(1_000, 3), (20_000, 4), (60_000, 4)])
@pytest.mark.parametrize("differing", [0, 1, 10, 100])
def test_the_cost_is_by_what_differs_and_the_depth(keys: int, depth: int, differing: int) -> None:
    """O(d log n), counted: a difference opens at most one path, and each node of it has `fanout` children."""
    shape = Shape(16, depth)
    talk = cost(keys, differing, shape)
    assert talk.compared <= max(1, differing) * (depth * shape.fanout + 1)
    assert talk.rounds <= (depth + 1 if differing else 1)
    if differing <= 10:
        assert talk.compared < keys / 1.5


def test_large_differences_come_in_bounded_questions() -> None:
    ours, theirs = Tree(), Tree({f"k{n}": b"1" for n in range(3000)})
    talk = Difference(ours, nodes_max=100)
    while question := talk.ask():
        assert len(question.nodes) <= 100
        talk.hear(answer(theirs, question))
    assert len(talk.finding.only_there) == 3000


def test_a_lost_answer_is_asked_for_again() -> None:
    talk, theirs = Difference(Tree({"a": b"1"})), Tree()
    assert talk.ask() == talk.ask()
    told = answer(theirs, talk.ask())
    talk.hear(told)
    with pytest.raises(FormatRefused, match="not asked"):
        talk.hear(told)  # doubled
    assert difference(Tree({"a": b"1"}), theirs).only_here == {"a"}


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (Question(2, 9, 0, (0,)), "Give both sides one shape"),
        (Question(3, 2, 3, (0,)), "found level 3"),
        (Question(3, 2, -1, (0,)), "found level -1"),
        (Question(3, 2, 1, (3,)), "level 1 has not"),
        (Question(3, 2, 1, (-1,)), "level 1 has not"),
        (Question(3, 2, 2, tuple(range(9)) * 1000), "at most 4096"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(question: Question, said: str) -> None:
    with pytest.raises(FormatRefused, match=said):
        answer(Tree(shape=SMALL), question)


@pytest.mark.parametrize(
    "told",
    [Answer(1), Answer(0), Answer(0, {1: [b""] * 3}), Answer(0, {0: [b""]}), Answer(0, {}, {0: {"a": b"1"}})],
)
def test_an_answer_that_makes_no_sense_is_refused_and_the_talk_goes_on(told: Answer) -> None:
    ours, theirs = Tree({"a": b"1"}, SMALL), Tree(shape=SMALL)
    talk = Difference(ours)
    talk.ask()
    with pytest.raises(FormatRefused, match="found an answer"):
        talk.hear(told)
    while question := talk.ask():
        talk.hear(answer(theirs, question))
    assert talk.finding.only_here == {"a"}


def test_shapes_that_cannot_be_are_refused() -> None:
    for fanout, depth in ((1, 3), (2, 0), (16, 7)):
        with pytest.raises(ConfigurationError, match="expected a fanout"):
            Shape(fanout, depth)
