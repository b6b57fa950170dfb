"""4.6 and 4.10, simulated: groups of the real machine, what is measured, and what catches a broken one."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from atoll.algorithms.swim import events as ev
from atoll.algorithms.swim.machine import Swim
from atoll.algorithms.swim.messages import Confirm
from atoll.algorithms.swim.settings import Settings
from atoll.cli import simulation
from atoll.cli import verify as verb
from atoll.errors import ConfigurationError
from atoll.verify.swim import figures, picture, report
from atoll.verify.swim.__main__ import main
from atoll.verify.swim.cluster import Cluster, Weather
from atoll.verify.swim.life import HARDSHIPS, Life, Wrong
from atoll.verify.swim.measures import detection, dissemination, lossy, overload

CONCEPTS = Path(__file__).resolve().parents[2] / "docs" / "concepts"


# -- size ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 100, 1000])
def test_a_crash_is_known_to_all_soon_and_nobody_else_is_wronged(size: int) -> None:
    found = detection(7, size, Settings())
    shortest = 5 * max(1.0, math.log10(size))
    assert found.suspected_s < 6, "a round-robin round of all others finds it in a few periods"
    assert found.first_s - found.suspected_s == pytest.approx(shortest, abs=0.6)
    assert found.all_s - found.first_s < 1.5
    assert found.false_failed == 0


def test_the_load_of_a_member_does_not_depend_on_the_size_of_the_group() -> None:
    """SWIM's promise: a ping and an ack a second, ten members or three hundred."""
    assert [detection(1, size, Settings()).packets for size in (10, 300)] == pytest.approx(
        [2.0, 2.0], abs=0.1
    )


def test_news_reaches_all_in_rounds_that_grow_with_the_logarithm() -> None:
    rounds = [dissemination(3, size, Settings()).rounds for size in (10, 100, 1000)]
    assert rounds == sorted(rounds)
    assert all(
        found < math.log2(size) + math.log(size) for found, size in zip(rounds, (10, 100, 1000), strict=True)
    )


@pytest.mark.long
def test_ten_thousand_members_know_of_a_crash() -> None:
    found = detection(1, 10_000, Settings())
    assert found.false_failed == 0 and found.all_s < 30


# -- joining, leaving, coming back -----------------------------------------------------------------------


def test_fifty_members_who_join_by_one_seed_all_know_each_other() -> None:
    cluster = Cluster(4, Settings())
    cluster.add()
    for _ in range(49):
        cluster.add((0,))
    assert cluster.run(30, cluster.agreed)


def test_two_who_name_each_other_as_seeds_find_each_other() -> None:
    cluster = Cluster(4, Settings())
    cluster.add((1,))
    cluster.add((0,))
    assert cluster.run(60, cluster.agreed)


def test_a_member_that_leaves_is_told_as_left_to_all_and_as_failed_to_none() -> None:
    cluster, told = Cluster(5, Settings()), Counter[str]()
    cluster.start_converged(20)
    cluster.watch = lambda now, index, what: told.update([type(what).__name__])
    cluster.tell(3, ev.LeaveAsked())
    assert cluster.run(40, lambda: told["Left"] == 19)
    cluster.run(cluster.now + 20)
    assert (told["Left"], told["Failed"], told["Departed"]) == (19, 0, 1)


def test_a_member_restarted_at_once_is_in_again_without_waiting_for_its_failure() -> None:
    cluster = Cluster(6, Settings())
    cluster.start_converged(10)
    cluster.run(5)
    cluster.crash(4)
    cluster.restart(4, (0,), b"new")
    assert cluster.run(10, lambda: all(seen(cluster, i, 4) == b"new" for i in range(10)))


def seen(cluster: Cluster, index: int, other: int) -> bytes | None:
    member = cluster.machine(index).member(f"m{other}")
    return member.metadata if member is not None and member.state.name == "ALIVE" else None


def test_two_processes_of_one_name_do_not_both_stay() -> None:
    cluster, told = Cluster(8, Settings()), []
    for index in range(5):
        cluster.add((0,) if index else ())
    cluster.run(10)
    cluster.watch = lambda now, index, what: told.append(index) if isinstance(what, ev.NameTaken) else None
    twin = cluster.add((0,))
    host = cluster.hosts[twin]
    assert host.machine is not None
    host.machine = Swim("m2", f"m{twin}", uid=77, dice=cluster.dice, now=cluster.now, settings=Settings())
    cluster.tell(twin, ev.JoinAsked(("m0",)))
    assert cluster.run(60, lambda: bool(told))
    cluster.run(cluster.now + 10)
    assert len(told) == 1 and told[0] in (2, twin)


def test_two_halves_find_each_other_after_a_partition() -> None:
    cluster = Cluster(9, Settings())
    cluster.start_converged(40)
    for index in range(13):
        cluster.hosts[index].side = 1
    assert cluster.run(
        90, lambda: len(cluster.living_seen_by(0)) == 13 and len(cluster.living_seen_by(39)) == 27
    )
    for host in cluster.hosts:
        host.side = 0
    assert cluster.run(cluster.now + 120, cluster.agreed)


def test_who_failed_is_forgotten_after_a_time_by_all_and_not_brought_back_by_anybody() -> None:
    cluster, told = Cluster(10, Settings(remember_s=20, sync_interval_s=5)), Counter[str]()
    cluster.start_converged(12)
    cluster.crash(5)
    cluster.watch = lambda now, index, what: told.update([type(what).__name__])
    others = [index for index in range(12) if index != 5]
    assert cluster.run(40, lambda: told["Failed"] == 11)
    assert cluster.run(120, lambda: all(cluster.machine(i).member("m5") is None for i in others))
    cluster.run(cluster.now + 60)
    assert all(cluster.machine(i).member("m5") is None for i in others)
    assert all(len(cluster.machine(i)._local.members) == 11 for i in others), "kept out of sight, for ever"
    assert told["Joined"] == 0


# -- Lifeguard -------------------------------------------------------------------------------------------


def test_slow_members_wrong_many_under_swim_and_almost_nobody_under_lifeguard() -> None:
    plain, guarded = overload(2, 48, Settings.plain(), seconds=90), overload(2, 48, Settings(), seconds=90)
    assert plain.false_failed > 500
    assert guarded.false_failed < plain.false_failed / 50


def test_a_crash_among_slow_members_is_still_known_to_all_that_are_well() -> None:
    cluster = Cluster(3, Settings())
    cluster.start_converged(48)
    failed: set[int] = set()
    cluster.watch = lambda now, index, told: (
        failed.add(index) if isinstance(told, ev.Failed) and told.member.name == "m40" else None
    )

    def slow() -> None:
        for index in range(4):
            cluster.hosts[index].busy_until = cluster.now + 16
        cluster.at(cluster.now + 16.5, slow)

    slow()
    cluster.at(5, lambda: cluster.crash(40))
    assert cluster.run(80, lambda: failed >= set(range(4, 48)) - {40})


def test_a_frozen_member_does_not_call_the_others_failed_when_it_wakes() -> None:
    told: dict[bool, Counter[str]] = {}
    for guarded, settings in ((True, Settings()), (False, Settings.plain())):
        cluster, told[guarded] = Cluster(11, settings), Counter[str]()
        cluster.start_converged(12)
        cluster.run(5)

        def hear(now: float, index: int, what: ev.Told, count: Counter[str] = told[guarded]) -> None:
            if index == 3:
                count[type(what).__name__] += 1

        cluster.watch = hear
        cluster.hosts[3].frozen_until = cluster.now + 30
        cluster.run(40)
        cluster.run(100, cluster.agreed)
        assert cluster.agreed()
    assert told[True]["Failed"] == 0


# -- loss ------------------------------------------------------------------------------------------------


def test_indirect_probes_save_members_from_suspicion_where_packets_are_lost() -> None:
    alone, helped = (lossy(1, 30, 0.05, Settings(indirect=k)) for k in (0, 3))
    assert check_few_suspected(helped) is None
    with pytest.raises(AssertionError, match="suspicions"):
        check_few_suspected(alone)


def check_few_suspected(found: Any) -> None:
    """The control for a machine without indirect probes: at 5 % loss nearly nobody may be suspected."""
    assert found.false_suspected < 30, f"{found.false_suspected} false suspicions"


# -- whole lives, and broken machines --------------------------------------------------------------------


def test_after_any_life_the_living_agree() -> None:
    happened: Counter[str] = Counter()
    for seed in range(25):
        happened += Life(seed).live().happened
    assert all(happened[what] >= 10 for what in HARDSHIPS), happened
    for word in ("joined", "suspected", "refuted", "failed", "left", "updated", "introduced", "departed"):
        assert happened[f"told {word}"] >= 20, word


@pytest.mark.long
def test_after_any_of_two_thousand_lives_the_living_agree() -> None:
    for seed in range(1000, 3000):
        Life(seed).live()


def test_a_seed_replays_its_life() -> None:
    assert Life(5).live().happened == Life(5).live().happened
    assert Life(5).live().happened != Life(6).live().happened


class NeverRefutes(Swim):
    """Hears that it is suspected, and says nothing."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._beliefs._hear_of_me = lambda word: None  # type: ignore[method-assign]


class ForgetsSuspicion(Swim):
    """Suspects, and does nothing about it."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._beliefs.condemn = lambda name: None  # type: ignore[method-assign]


class NeverMeets(Swim):
    """Gossips, and exchanges no lists after it has joined."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._exchange.meet = self._exchange.reconnect = lambda: None  # type: ignore[method-assign]


class SpeaksOfItselfUndated(Swim):
    """Changes its metadata under its old incarnation."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        beliefs = self._beliefs

        def describe(metadata: bytes) -> None:
            beliefs._metadata = metadata
            beliefs.announce()

        beliefs.describe = describe  # type: ignore[method-assign]


class LeavesSilently(Swim):
    """Goes without a word: the others must find out, and call it failed."""

    def _leave(self) -> None:
        self._depart()


class TrustsItsEars(Swim):
    """Heard nothing for a minute, and takes that for the silence of the others."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        beliefs = self._beliefs

        def condemn(name: str) -> None:
            record = self._local.members.get(name)
            if record is not None and name in beliefs._suspicions:
                beliefs.hear(Confirm(name, record.uid, record.incarnation, self.me))

        beliefs.condemn = condemn  # type: ignore[method-assign]

    def _wake(self) -> None:
        pass


@pytest.mark.parametrize(
    "kind", [NeverRefutes, ForgetsSuspicion, NeverMeets, SpeaksOfItselfUndated, TrustsItsEars]
)
def test_a_broken_machine_does_not_survive_forty_lives(kind: type[Swim]) -> None:
    with pytest.raises(Wrong, match="seed"):
        for seed in range(40):
            Life(seed, kind).live()


def test_a_machine_that_forgets_suspicion_is_caught_by_the_first_crash() -> None:
    with pytest.raises(AssertionError, match="members know that"):
        detection(1, 10, Settings(), kind=ForgetsSuspicion)


def test_a_machine_that_never_refutes_is_caught_by_a_little_loss() -> None:
    assert lossy(1, 30, 0.1, Settings(indirect=0)).false_failed < 10
    assert lossy(1, 30, 0.1, Settings(indirect=0), kind=NeverRefutes).false_failed > 100


def test_a_machine_that_leaves_silently_is_called_failed() -> None:
    cluster, told = Cluster(5, Settings(), kind=LeavesSilently), Counter[str]()
    cluster.start_converged(8)
    cluster.watch = lambda now, index, what: told.update([type(what).__name__])
    cluster.tell(3, ev.LeaveAsked())
    assert cluster.run(40, lambda: told["Failed"] == 7)


def test_the_command_plays_seeds_and_says_how_to_play_one_again(capsys: Any) -> None:
    assert verify("--seeds", "3", "--seed", "11") == 0
    said = capsys.readouterr().out
    assert said.startswith("swim, 3 seeds from 11: the living agreed")
    assert said.rstrip().endswith("Again: atoll verify swim --simulate --seeds 3 --seed 11")
    assert verify("--seed", "11", "--json") == 0
    assert json.loads(capsys.readouterr().out)["held"] is True


def test_a_broken_life_is_told_with_its_seed(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(report, "Life", lambda seed: Life(seed, ForgetsSuspicion))
    assert verify("--seeds", "4", "--seed", "1", "--jobs", "1") == 1
    said = capsys.readouterr().out
    assert "broken in " in said and "again: atoll verify swim --simulate --seed " in said


def test_a_trace_is_not_asked_of_swim(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="a seed replays"):
        verify("--trace", str(tmp_path / "trace.txt"))


def verify(*words: str) -> int:
    parser = argparse.ArgumentParser()
    verb.arguments(parser)
    return simulation.run(parser.parse_args(["swim", "--simulate", *words]))


# -- the page --------------------------------------------------------------------------------------------


def kept() -> figures.Figures:
    found: figures.Figures = json.loads((CONCEPTS / "swim.json").read_text())
    return found


def test_the_page_shows_the_figures_that_are_kept() -> None:
    page = (CONCEPTS / "swim.md").read_text()
    for table in figures.tables(kept()):
        assert table in page


def test_the_picture_is_drawn_from_the_figures_that_are_kept() -> None:
    assert (CONCEPTS / "swim.svg").read_text() == picture.draw(kept())
    assert "(swim.svg)" in (CONCEPTS / "swim.md").read_text()


def test_the_figures_are_those_of_another_run() -> None:
    rows = {row["members"]: row for row in kept()["sizes"]}
    assert {10, 100, 1000, 10_000} <= set(rows)
    for size in (10, 100):
        assert figures.by_size(size, range(1, rows[size]["runs"] + 1)) == rows[size]
    lost = kept()["losses"][0]
    assert figures.by_loss(lost["loss"], range(1, lost["runs"] + 1)) == lost


def test_lifeguard_is_the_better_one_in_every_row_of_the_page() -> None:
    for row in kept()["pauses"]:
        assert row["lifeguard"] <= row["swim"] / 10 or row["lifeguard"] == 0


def test_the_command_prints_its_tables_and_keeps_its_figures(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "PAUSES_S", ())
    monkeypatch.setattr(figures, "PARTS", {})
    monkeypatch.setattr(figures, "LOSSES", (0.05,))
    assert main(["--sizes", "10", "--seeds", "1", "--keep", str(tmp_path)]) == 0
    assert "| 10 | " in capsys.readouterr().out
    assert json.loads((tmp_path / "swim.json").read_text())["sizes"][0]["members"] == 10
    assert (tmp_path / "swim.svg").read_text().startswith("<svg")


def test_wrong_words_are_answered_with_right_ones() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "atoll.verify.swim", "--sizes", "ten"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "expected numbers such as" in done.stderr


def test_weather_counts_what_is_doubled() -> None:
    """A packet that comes twice changes nothing: the group stays as it is."""
    cluster, told = Cluster(2, Settings(), Weather(duplicates=1.0)), Counter[str]()
    cluster.start_converged(10)
    cluster.watch = lambda now, index, what: told.update([type(what).__name__])
    cluster.run(30)
    assert not told
