"""4.6: the two papers, walked section by section: what each asks for, and that the machine does it.

Das, Gupta, Motivala: SWIM (2002). Dadgar, Phillips, Currey: Lifeguard (2018).
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import pytest

from atoll.algorithms.swim import events as ev
from atoll.algorithms.swim.machine import Swim
from atoll.algorithms.swim.messages import (
    Ack,
    Alive,
    Body,
    Confirm,
    Leave,
    Nack,
    Packet,
    Ping,
    PingRequest,
    Suspect,
    Update,
)
from atoll.algorithms.swim.settings import Settings
from atoll.algorithms.swim.suspicion import Suspicion, bounds
from atoll.verify.swim.cluster import Cluster

NO_GOSSIP = {"gossip_fanout": 0, "sync_interval_s": 1e6, "reconnect_interval_s": 1e6, "stream_probe": False}


class Others:
    """All other members, played by the test: they answer pings, or are as silent as they are told to be."""

    def __init__(self, count: int, *, seed: int = 1, **more: object) -> None:
        self.now = 0.0
        self.silent: set[str] = set()
        """They answer nothing and help nobody."""
        self.deaf_to_me: set[str] = set()
        """They answer only to helpers."""
        self.sent: list[tuple[float, str, Packet]] = []
        self.told: list[tuple[float, ev.Told]] = []
        self.one = Swim(
            "me",
            "me",
            uid=1,
            dice=random.Random(seed),
            now=0.0,
            settings=Settings(**{**NO_GOSSIP, **more}),  # type: ignore[arg-type]
        )
        self.names = [f"m{number}" for number in range(count)]
        self.hear("m0", None, *(Alive(name, 1, 0, name) for name in self.names))

    def hear(self, sender: str, body: Body | None, *updates: Update) -> None:
        self._obey(self.one.step(ev.Received(sender, Packet(sender, body, updates)), self.now))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.one.deadline) is not None and due <= end:
            self.now = due
            self._obey(self.one.step(ev.Elapsed(), due))
        self.now = end

    def _obey(self, effects: list[ev.Effect]) -> None:
        answers: list[tuple[str, Body]] = []
        for effect in effects:
            if isinstance(effect, ev.Send):
                self.sent.append((self.now, effect.address, effect.packet))
                answers += self._answers(effect.address, effect.packet.body)
            elif not isinstance(effect, ev.Ask | ev.Answer):
                self.told.append((self.now, effect))
        for sender, body in answers:
            self.hear(sender, body)

    def _answers(self, name: str, body: Body | None) -> list[tuple[str, Body]]:
        if name in self.silent:
            return []
        match body:
            case Ping(seq) if name not in self.deaf_to_me:
                return [(name, Ack(seq))]
            case PingRequest(seq, target):
                return [(name, Nack(seq) if target in self.silent else Ack(seq))]
        return []

    def pings(self) -> list[tuple[float, str]]:
        return [(when, name) for when, name, packet in self.sent if isinstance(packet.body, Ping)]

    def requests(self) -> list[tuple[float, str, PingRequest]]:
        return [(w, n, p.body) for w, n, p in self.sent if isinstance(p.body, PingRequest)]

    def when(self, kind: type, name: str) -> float:
        """When it was told; for ever, if not."""
        for when, told in self.told:
            if isinstance(told, kind) and told.member.name == name:  # type: ignore[attr-defined]
                return when
        return math.inf


# -- SWIM 3.1: the failure detector ----------------------------------------------------------------------


def test_3_1_one_member_is_pinged_in_each_protocol_period() -> None:
    others = Others(10)
    others.run(50)
    times = [when for when, _ in others.pings()]
    assert len(times) == 50
    assert all(b - a == pytest.approx(1.0) for a, b in itertools.pairwise(times))


def test_3_1_k_members_are_asked_to_ping_a_silent_one_and_the_target_is_not_among_them() -> None:
    others = Others(10, indirect=4)
    others.silent = {"m3"}
    others.run(12)
    asked = [(when, name) for when, name, request in others.requests() if request.target == "m3"]
    first = [name for when, name in asked if when == asked[0][0]]
    assert len(set(first)) == 4 and "m3" not in first and "me" not in first


def test_3_1_an_ack_by_way_of_a_helper_is_as_good_as_a_direct_one() -> None:
    others = Others(5)
    others.deaf_to_me = {"m2"}
    others.run(60)
    assert others.requests() and not [told for _, told in others.told if isinstance(told, ev.Suspected)]


def test_3_1_without_any_ack_by_the_end_of_the_period_it_is_doubted() -> None:
    others = Others(5)
    others.silent = {"m2"}
    others.run(8)
    pinged = next(when for when, name in others.pings() if name == "m2")
    assert others.when(ev.Suspected, "m2") == pytest.approx(pinged + 1.0)


def test_3_1_the_load_is_constant_however_many_members_there_are() -> None:
    loads = []
    for count in (5, 50, 500):
        others = Others(count)
        others.run(60)
        loads.append(len(others.sent))
    assert loads == [60, 60, 60]


def test_3_1_a_ping_for_an_earlier_tenant_of_the_address_is_not_answered() -> None:
    others = Others(3)
    others.hear("m0", Ping(5, "somebody"), Alive("m9", 1, 0, "m9"))
    assert Ack(5) not in [packet.body for _, _, packet in others.sent]


def test_3_1_silence_of_one_run_of_a_process_is_not_held_against_the_next() -> None:
    others = Others(1, probe_interval_s=10.0, probe_timeout_s=5.0)
    others.silent = {"m0"}
    while not others.pings():
        others.run(0.5)
    others.hear("m0", None, Alive("m0", 2, 3, "m0"))
    others.silent = set()
    others.run(11)
    assert others.when(ev.Suspected, "m0") == math.inf


# -- SWIM 3.2 and 4.1: dissemination ---------------------------------------------------------------------


def test_4_1_news_rides_on_pings_and_acks_and_needs_no_packet_of_its_own() -> None:
    others = Others(8)
    others.run(10)
    before = len(others.sent)
    others.hear("m0", None, Leave("m1", 1, 0))
    others.run(5)
    riding = [packet for _, _, packet in others.sent[before:] if Leave("m1", 1, 0) in packet.updates]
    assert riding and all(isinstance(packet.body, Ping) for packet in riding)
    others.hear("m2", Ping(9, "me"))
    assert isinstance(others.sent[-1][2].body, Ack)


def test_4_1_each_piece_is_passed_on_lambda_log_n_times_and_then_no_more() -> None:
    others = Others(20, retransmit_multiplier=3)
    others.run(40)
    before = len(others.sent)
    others.hear("m0", None, Leave("m1", 1, 0))
    others.run(60)
    passed = sum(Leave("m1", 1, 0) in packet.updates for _, _, packet in others.sent[before:])
    assert passed == 3 * 2, "lambda 3, log10 of 20 members rounded up"


def test_4_1_where_not_all_fits_what_was_passed_on_least_goes_first() -> None:
    others = Others(3, packet_bytes_max=1150)
    others.hear("m0", None, *(Alive(f"x{n}", 1, 0, "x", bytes(250)) for n in range(8)))
    told: Counter[str] = Counter()
    for turn in range(8):
        others.hear("m2", Ping(turn, "me"))
        told.update(update.name for update in others.sent[-1][2].updates if update.name.startswith("x"))
    assert max(told.values()) - min(told[f"x{n}"] for n in range(8)) <= 1


# -- SWIM 4.2: suspicion ---------------------------------------------------------------------------------


def test_4_2_a_suspected_member_counts_as_in_and_is_probed_like_any_other() -> None:
    others = Others(5, suspicion_multiplier=100)
    others.hear("m0", None, Suspect("m2", 1, 0, "m0"))
    others.run(12)
    assert "m2" in {member.name for member in others.one.members()}
    assert "m2" in {name for _, name in others.pings()}


def test_4_2_a_suspicion_that_nobody_refutes_becomes_a_failure_and_is_confirmed_to_others() -> None:
    others = Others(5, suspicion_max_multiplier=1)
    others.hear("m0", None, Suspect("m2", 1, 0, "m0"))
    others.silent = {"m2"}
    others.run(8)
    assert others.when(ev.Failed, "m2") == pytest.approx(5.0)
    assert any(
        isinstance(update, Confirm) and update.name == "m2"
        for _, _, packet in others.sent
        for update in packet.updates
    )


def test_4_2_only_the_member_itself_raises_its_incarnation() -> None:
    others = Others(5)
    others.hear("m0", None, Suspect("m2", 1, 0, "m0"), Suspect("me", 1, 0, "m0"))
    others.run(5)
    words = [update for _, _, packet in others.sent for update in packet.updates]
    assert max(u.incarnation for u in words if u.name == "me") == 1
    assert max(u.incarnation for u in words if u.name == "m2") == 0


ALIVE, SUSPECT, CONFIRM = "alive", "suspect", "confirm"
OVERRIDES = [
    # what is believed, what is heard, whether that overrides: the paper's rules, one by one
    ((ALIVE, 1), (ALIVE, 2), True),
    ((ALIVE, 1), (ALIVE, 1), False),
    ((ALIVE, 2), (ALIVE, 1), False),
    ((SUSPECT, 1), (ALIVE, 2), True),
    ((SUSPECT, 1), (ALIVE, 1), False),
    ((ALIVE, 1), (SUSPECT, 1), True),
    ((ALIVE, 1), (SUSPECT, 2), True),
    ((ALIVE, 2), (SUSPECT, 1), False),
    ((SUSPECT, 1), (SUSPECT, 2), True),
    ((SUSPECT, 1), (SUSPECT, 1), False),
    ((ALIVE, 1), (CONFIRM, 1), True),
    ((SUSPECT, 1), (CONFIRM, 1), True),
    ((CONFIRM, 1), (SUSPECT, 1), False),
    ((CONFIRM, 1), (ALIVE, 1), False),
    # The departures: who comes back with a higher incarnation is in again, and an older verdict is not heard.
    ((CONFIRM, 1), (ALIVE, 2), True),
    ((ALIVE, 2), (CONFIRM, 1), False),
]


def word(what: str, incarnation: int) -> Update:
    if what == ALIVE:
        return Alive("b", 1, incarnation, "b")
    return (Suspect if what == SUSPECT else Confirm)("b", 1, incarnation, "m0")


@pytest.mark.parametrize(("before", "heard", "overrides"), OVERRIDES)
def test_4_2_which_word_overrides_which(
    before: tuple[str, int], heard: tuple[str, int], overrides: bool
) -> None:
    others = Others(3)
    others.hear("m0", None, Alive("b", 1, before[1], "b"), word(*before))
    was = others.one.member("b")
    others.hear("m0", None, word(*heard))
    now = others.one.member("b")
    assert was is not None and now is not None
    assert ((was.state, was.incarnation) != (now.state, now.incarnation)) is overrides


# -- SWIM 4.3: round-robin probing -----------------------------------------------------------------------


def test_4_3_a_silent_member_is_probed_within_two_rounds_whatever_the_chance() -> None:
    """Time-bounded completeness: at most 2n - 1 periods between two probes of one member."""
    for seed in range(20):
        others = Others(9, seed=seed)
        others.run(100)
        for name in others.names:
            times = [when for when, other in others.pings() if other == name]
            assert all(b - a <= 2 * 9 - 1 + 0.001 for a, b in itertools.pairwise(times))


def test_4_3_each_round_probes_all_once_in_another_order() -> None:
    others = Others(6)
    others.run(60)
    probed = [name for _, name in others.pings()]
    rounds = [tuple(probed[at : at + 6]) for at in range(0, 60, 6)]
    assert all(sorted(one) == sorted(others.names) for one in rounds)
    assert len(set(rounds)) > 5


def test_4_3_a_newcomer_is_put_at_a_place_by_chance_in_the_running_round() -> None:
    places: Counter[int] = Counter()
    for seed in range(300):
        others = Others(9, seed=seed)
        others.run(4)
        probed = len(others.pings())
        others.hear("m0", None, Alive("new", 1, 0, "new"))
        others.run(6)
        rest = [name for _, name in others.pings()][probed:]
        places[rest.index("new") if "new" in rest else -1] += 1
    assert set(places) == set(range(6)), "some place of the six that were left was never drawn"
    assert max(places.values()) < 3 * min(places.values())


# -- SWIM 5: what follows --------------------------------------------------------------------------------


def test_5_a_crashed_member_is_probed_by_somebody_within_e_over_e_minus_one_periods_on_average() -> None:
    waits = []
    for seed in range(40):
        cluster = Cluster(seed, Settings())
        cluster.start_converged(20)
        cluster.run(5)
        cluster.crash(7)
        found: list[float] = []
        cluster.watch = lambda now, index, told, found=found: (  # type: ignore[misc]
            found.append(now) if isinstance(told, ev.Suspected) else None
        )
        assert cluster.run(60, lambda found=found: bool(found))  # type: ignore[misc]
        waits.append(found[0] - 5 - 1)
    assert 0.6 < sum(waits) / len(waits) < math.e / (math.e - 1)


# -- Lifeguard: Local Health Aware Probe -----------------------------------------------------------------


def test_lha_probe_a_successful_probe_lowers_the_counter_and_a_failed_one_raises_it() -> None:
    others = Others(5, suspicion_multiplier=1000)
    others.silent = set(others.names)
    others.run(1.9)
    score = others.one.status().health
    assert score == 2, "the probe failed, and nacks were missed"
    others.silent = set()
    others.run(20)
    assert others.one.status().health == 0


def test_lha_probe_with_all_nacks_only_the_failed_probe_counts() -> None:
    others = Others(5, suspicion_multiplier=1000)
    others.silent = {"m2"}
    while others.when(ev.Suspected, "m2") == math.inf:
        others.run(0.1)
    assert others.one.status().health in (0, 1), "one for the failure, less where another probe went well"


def test_lha_probe_being_suspected_raises_the_counter() -> None:
    others = Others(5)
    others.hear("m0", None, Suspect("me", 1, 0, "m1"))
    assert others.one.status().health == 1


def test_lha_probe_interval_and_timeout_grow_with_the_counter_up_to_its_bound() -> None:
    others = Others(5, suspicion_multiplier=1000, health_max=8)
    others.silent = set(others.names)
    others.run(100)
    assert others.one.status().health == 7
    times = [when for when, _ in others.pings()]
    assert times[-1] - times[-2] == pytest.approx(8.0)
    last = [when for when, _, _ in others.requests()][-1]
    assert last - max(when for when in times if when < last) == pytest.approx(4.0)


def test_lha_probe_a_helper_says_nack_before_the_asker_gives_up() -> None:
    others = Others(3)
    others.silent = {"m1"}
    others.hear("m0", PingRequest(70, "m1", "m1"))
    others.run(0.45)
    nacks = [(when, name) for when, name, packet in others.sent if packet.body == Nack(70)]
    assert nacks == [(pytest.approx(0.4), "m0")]


# -- Lifeguard: Local Health Aware Suspicion -------------------------------------------------------------


def test_lha_suspicion_begins_at_its_longest_and_falls_with_each_independent_voice() -> None:
    settings = Settings(suspicion_multiplier=5, suspicion_max_multiplier=6, confirmations=3)
    shortest, longest = bounds(settings, 100)
    assert (shortest, longest) == (10.0, 60.0)
    suspicion = Suspicion("a", 0.0, settings, 100)
    dues = [suspicion.due]
    for voice in ("a", "b", "b", "c", "d", "e"):
        suspicion.confirm(voice)
        dues.append(round(suspicion.due, 3))
    expected = [60 - 50 * math.log(c + 1) / math.log(4) for c in (0, 0, 1, 1, 2, 3, 3)]
    assert dues == pytest.approx(expected, abs=0.001)
    assert dues[-1] == 10.0


def test_lha_suspicion_the_first_k_voices_are_passed_on_and_later_ones_are_not() -> None:
    others = Others(12, suspicion_multiplier=1000)
    others.run(60)
    before = len(others.sent)
    for accuser in range(6):
        others.hear(f"m{accuser}", None, Suspect("m9", 1, 0, f"m{accuser}"))
        others.run(12)
    voices = {
        update.by
        for _, name, packet in others.sent[before:]
        for update in packet.updates
        if isinstance(update, Suspect) and name != "m9"
    }
    assert voices == {"m0", "m1", "m2", "m3"}, "the accuser and three more"


def test_lha_suspicion_in_a_group_too_small_for_voices_is_as_short_as_may_be() -> None:
    assert Suspicion("a", 0.0, Settings(), 2).due == 5.0


# -- Lifeguard: buddy system -----------------------------------------------------------------------------


@pytest.mark.parametrize("buddy", [True, False])
def test_buddy_a_suspected_member_is_told_so_by_every_probe_of_it(buddy: bool) -> None:
    others = Others(4, buddy=buddy, suspicion_multiplier=1000)
    others.run(60)
    others.hear("m0", None, Suspect("m2", 1, 0, "m0"))
    others.run(100)
    probes = [
        packet for w, name, packet in others.sent if w > 61 and name == "m2" and isinstance(packet.body, Ping)
    ]
    told = [Suspect("m2", 1, 0, "m0") in packet.updates for packet in probes]
    assert len(probes) > 20
    assert all(told) if buddy else not all(told), "without it, only while the news is fresh"


def test_plain_swim_has_none_of_it() -> None:
    plain = Settings.plain()
    assert bounds(plain, 100) == (10.0, 10.0)
    assert (plain.health_max, plain.buddy) == (1, False)
