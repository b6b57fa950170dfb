"""Whatever stops when, and whoever recovers meanwhile: all databases commit, or none does.

A small world is walked through completely: every order of steps, a crash before and after each, lost votes,
lost records, two instances that recover at the same time. The negative controls break one rule each and
must be caught.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from atoll.algorithms.two_phase import (
    Answer,
    Carry,
    Coordinator,
    Effect,
    Event,
    Finish,
    Found,
    NotKnown,
    NotRecorded,
    Park,
    Prepare,
    Presume,
    Record,
    Recorded,
    Voted,
    Wait,
    forgettable,
    judge,
)

NAMES = ("a", "b")
LIMITS: dict[str, float] = {"grace_s": 5.0, "patience_s": 30.0, "retention_s": 1000.0}


@dataclass
class Recoverer:
    """An instance that finishes what it finds: what it has read, and what it is about to do."""

    decided: str = ""
    left: tuple[str, ...] = ()
    presuming: bool = False


@dataclass
class World:
    """Two databases, a book, a coordinator, two recoverers."""

    databases: dict[str, str] = field(default_factory=lambda: dict.fromkeys(NAMES, "open"))
    book: str = ""
    alive: bool = True
    machine: Coordinator = field(default_factory=lambda: Coordinator(NAMES))
    effects: tuple[Effect, ...] = ()
    events: tuple[Event, ...] = ()
    answer: str = ""
    recoverers: tuple[Recoverer, ...] = field(default_factory=lambda: (Recoverer(), Recoverer()))
    forgot: bool = False

    def known(self) -> tuple[object, ...]:
        """What tells it from others; which of the two recoverers is which does not matter."""
        machine = (self.machine.phase, *(tuple(sorted(part)) for part in parts(self.machine)))
        return (
            tuple(self.databases.values()),
            self.book,
            self.alive,
            machine if self.alive else (),
            tuple(sorted(map(repr, self.effects))),
            tuple(sorted(map(repr, self.events))),
            self.answer,
            tuple(sorted(map(repr, self.recoverers))),
            self.forgot,
        )


def parts(machine: Coordinator) -> tuple[Any, ...]:
    return machine._left, machine._asked, machine._prepared, machine._doubtful


def twin(world: World) -> World:
    """A copy that can be changed."""
    machine = copy.copy(world.machine)
    machine._left, machine._asked = list(machine._left), set(machine._asked)
    machine._prepared, machine._doubtful = list(machine._prepared), list(machine._doubtful)
    return replace(world, databases=dict(world.databases), machine=machine)


@dataclass(frozen=True)
class Rules:
    """What a correct implementation does; a negative control changes one."""

    writes_abort_first: bool = True
    rereads_after_unmet: bool = True
    forgets_only_when_nobody_waits: bool = True
    writes_only_where_nothing_stands: bool = True
    unknown_is_not_no: bool = True


def steps(world: World, rules: Rules) -> Iterator[World]:
    """Every next world."""
    if world.alive:
        yield from coordinate(world, rules)
        crashed = twin(world)
        crashed.alive = False
        crashed.effects = crashed.events = ()
        for name, state in crashed.databases.items():
            if state == "open":
                crashed.databases[name] = "aborted"
        yield crashed
    for place in range(len(world.recoverers)):
        yield from recover(world, place, rules)
    if world.book and not world.forgot and may_forget(world, rules):
        later = twin(world)
        later.book, later.forgot = "", True
        yield later


def coordinate(world: World, rules: Rules) -> Iterator[World]:
    for place, event in enumerate(world.events):
        later = twin(world)
        later.events = world.events[:place] + world.events[place + 1 :]
        more = later.machine.step(event)
        later.effects += tuple(e for e in more if not isinstance(e, Answer))
        for answer in more:
            if isinstance(answer, Answer):
                later.answer = str(answer.decision)
        yield later
    for place, effect in enumerate(world.effects):
        rest = world.effects[:place] + world.effects[place + 1 :]
        yield from obey(replace(world, effects=rest), effect, rules)


def obey(world: World, effect: Effect, rules: Rules) -> Iterator[World]:
    match effect:
        case Prepare(name):
            for state, vote in (
                ("prepared", "prepared"),
                ("aborted", "read_only"),
                ("aborted", None),
                ("prepared", None),
            ):
                later = twin(world)
                later.databases[name] = "read" if vote == "read_only" else state
                later.events += (Voted(name, vote),)  # type: ignore[arg-type]
                yield later
        case Record():
            yield from write_commit(world, rules)
        case Finish(name, decision):
            later = twin(world)
            finish(later, name, decision)
            yield later


def write_commit(world: World, rules: Rules) -> Iterator[World]:
    later = twin(world)
    if not world.book or not rules.writes_only_where_nothing_stands:
        later.book = "commit"
    later.events += (Recorded(later.book),)  # type: ignore[arg-type]
    yield later
    unknown = twin(later)  # it was written, or found, and the answer never came
    unknown.events = (*world.events, NotKnown() if rules.unknown_is_not_no else NotRecorded())
    yield unknown
    refused = twin(world)
    refused.events += (NotRecorded(),)
    yield refused


def recover(world: World, place: int, rules: Rules) -> Iterator[World]:
    """One step of one recoverer: look, write, or carry to one database."""
    me = world.recoverers[place]
    if me.left:
        later = twin(world)
        finish(later, me.left[0], me.decided)
        put(later, place, replace(me, left=me.left[1:]) if me.left[1:] else Recoverer())
        yield later
        return
    if me.presuming:
        later = twin(world)
        if not later.book or not rules.writes_only_where_nothing_stands:
            later.book = "abort"
        if later.book == "abort" or not rules.rereads_after_unmet:
            put(later, place, Recoverer(decided="abort", left=waiting(later)))
        else:
            put(later, place, Recoverer())
        yield later
        return
    if not waiting(world):
        return
    for age_s in (10.0, 100.0):
        found = Found(decision=world.book or None, age_s=age_s, coordinator_lives=world.alive)  # type: ignore[arg-type]
        later = twin(world)
        match judge(found, **LIMITS):
            case Carry(decision):
                put(later, place, Recoverer(decided=decision, left=waiting(world)))
                yield later
            case Presume():
                if rules.writes_abort_first:
                    put(later, place, Recoverer(presuming=True))
                else:
                    put(later, place, Recoverer(decided="abort", left=waiting(world)))
                yield later


def put(world: World, place: int, recoverer: Recoverer) -> None:
    world.recoverers = (*world.recoverers[:place], recoverer, *world.recoverers[place + 1 :])


def waiting(world: World) -> tuple[str, ...]:
    return tuple(name for name, state in world.databases.items() if state == "prepared")


def may_forget(world: World, rules: Rules) -> bool:
    """Time has passed: a record that is old may go, by the rule; nothing this old is prepared anew."""
    if world.alive or any(r.left or r.presuming for r in world.recoverers):
        return False
    in_doubt = bool(waiting(world)) and rules.forgets_only_when_nobody_waits
    return forgettable(age_s=LIMITS["retention_s"], retention_s=LIMITS["retention_s"], in_doubt=in_doubt)


def finish(world: World, name: str, decision: str) -> None:
    if world.databases[name] == "prepared":
        world.databases[name] = "committed" if decision == "commit" else "aborted"
    elif world.databases[name] == "open" and decision == "abort":
        world.databases[name] = "aborted"


def violation(world: World) -> str:
    states = set(world.databases.values())
    if {"committed", "aborted"} <= states:
        return "half a transaction"
    if world.answer == "commit" and "aborted" in states:
        return "told committed, and a database aborted"
    if world.answer == "abort" and "committed" in states:
        return "told aborted, and a database committed"
    return ""


def walk(rules: Rules, parallel: bool = True) -> tuple[str, int, int]:
    """The first violation in any world that can be reached, how many there are, and how many ends."""
    first = World(machine=Coordinator(NAMES, parallel=parallel))
    first.effects = tuple(first.machine.start())
    seen = {first.known()}
    line, ends = [first], 0
    while line:
        world = line.pop()
        if found := violation(world):
            return found, len(seen), ends
        moved = False
        for later in steps(world, rules):
            moved = True
            if (name := later.known()) not in seen:
                seen.add(name)
                line.append(later)
        if not moved:
            ends += 1
            if waiting(world):
                return f"in doubt for ever: {world}", len(seen), ends
    return "", len(seen), ends


@pytest.mark.parametrize("parallel", [True, False])
def test_no_order_of_steps_and_crashes_leaves_half_a_transaction(parallel: bool) -> None:
    found, worlds, ends = walk(Rules(), parallel)
    assert found == ""
    assert worlds > 500
    assert ends > 10


@pytest.mark.parametrize(
    "rules",
    [
        Rules(writes_abort_first=False),
        Rules(rereads_after_unmet=False),
        Rules(forgets_only_when_nobody_waits=False),
        Rules(writes_only_where_nothing_stands=False),
        Rules(unknown_is_not_no=False),
    ],
    ids=lambda rules: next(k for k, v in vars(rules).items() if not v),
)
def test_each_rule_is_needed(rules: Rules) -> None:
    assert walk(rules)[0]


def test_a_recovery_that_aborts_whatever_it_finds_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(walk.__globals__, "judge", lambda found, **_: Carry("abort"))
    assert walk(Rules())[0]


def test_a_coordinator_that_finishes_before_it_records_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Coordinator.step

    def hasty(self: Coordinator, event: Event) -> list[Effect]:
        effects = honest(self, event)
        return [
            *effects,
            *(Finish(n, "commit") for e in effects if isinstance(e, Record) for n in e.databases),
        ]

    monkeypatch.setattr(Coordinator, "step", hasty)
    assert walk(Rules())[0]


def told(*events: Event, parallel: bool = True, names: tuple[str, ...] = NAMES) -> list[Effect]:
    machine = Coordinator(names, parallel=parallel)
    effects = list(machine.start())
    for event in events:
        effects += machine.step(event)
    return effects


def test_all_must_say_yes_before_anything_is_recorded() -> None:
    assert told(Voted("a", "prepared")) == [Prepare("a"), Prepare("b")]
    assert told(Voted("a", "prepared"), Voted("b", "prepared"))[2:] == [Record(("a", "b"))]


def test_one_no_aborts_without_a_record() -> None:
    effects = told(Voted("a", "prepared"), Voted("b", None))
    assert effects[2:] == [Answer("abort"), Finish("a", "abort"), Finish("b", "abort")]


def test_asked_one_by_one_a_no_spares_the_rest_the_question() -> None:
    effects = told(Voted("a", None), parallel=False)
    assert effects == [Prepare("a"), Answer("abort"), Finish("a", "abort")]


def test_who_only_read_takes_no_part_in_phase_two() -> None:
    effects = told(Voted("a", "read_only"), Voted("b", "prepared"), Recorded("commit"))
    assert effects[2:] == [Record(("b",)), Answer("commit"), Finish("b", "commit")]
    assert told(Voted("a", "read_only"), Voted("b", "read_only"))[2:] == [Answer("commit")]


def test_without_a_database_it_is_committed_at_once() -> None:
    assert told(names=()) == [Answer("commit")]


def test_an_unknown_record_finishes_nothing() -> None:
    effects = told(Voted("a", "prepared"), Voted("b", "prepared"), NotKnown())
    assert effects[3:] == [Answer(None)]


def test_an_abort_found_in_the_book_is_obeyed() -> None:
    effects = told(Voted("a", "prepared"), Voted("b", "prepared"), Recorded("abort"))
    assert effects[3:] == [Answer("abort"), Finish("a", "abort"), Finish("b", "abort")]


def verdict(**found: Any) -> object:
    return judge(Found(**{"decision": None, "age_s": 1.0, "coordinator_lives": True, **found}), **LIMITS)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, Wait()),
        ({"age_s": 29.9}, Wait()),
        ({"age_s": 30.0}, Presume()),
        ({"coordinator_lives": False, "age_s": 0.0}, Presume()),
        ({"decision": "commit"}, Wait()),
        ({"decision": "commit", "age_s": 5.0}, Carry("commit")),
        ({"decision": "abort", "coordinator_lives": False, "age_s": 0.0}, Carry("abort")),
        (
            {"decision": "commit", "coordinator_lives": False, "age_s": 1e9, "same_epoch": False},
            Carry("commit"),
        ),
    ],
)
def test_a_stranger_waits_presumes_or_carries(found: dict[str, Any], expected: object) -> None:
    assert verdict(**found) == expected


def test_what_may_have_been_decided_and_forgotten_is_left_to_a_person() -> None:
    assert isinstance(verdict(coordinator_lives=False, age_s=1000.0), Park)
    assert isinstance(verdict(coordinator_lives=False, same_epoch=False), Park)


def test_a_record_is_kept_for_its_time_and_while_anybody_waits() -> None:
    check: Callable[..., bool] = forgettable
    assert not check(age_s=999, retention_s=1000, in_doubt=False)
    assert not check(age_s=2000, retention_s=1000, in_doubt=True)
    assert check(age_s=1000, retention_s=1000, in_doubt=False)
