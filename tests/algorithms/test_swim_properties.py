"""4.6: what holds of SWIM in every order of every word: beliefs, lists, packets, rounds."""

from __future__ import annotations

import random
from collections import Counter
from functools import reduce
from itertools import permutations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.algorithms.swim import events as ev
from atoll.algorithms.swim.dissemination import News, retransmissions
from atoll.algorithms.swim.machine import Swim
from atoll.algorithms.swim.members import Members, Record, merge
from atoll.algorithms.swim.messages import (
    FORMAT,
    INCARNATION_MAX,
    Ack,
    Address,
    Alive,
    Claim,
    Confirm,
    Leave,
    Letter,
    Nack,
    Name,
    Packet,
    Ping,
    PingRequest,
    Suspect,
    Sync,
    Update,
    believable,
    other_format,
    pack,
    read_letter,
    read_packet,
)
from atoll.algorithms.swim.probing import Order
from atoll.algorithms.swim.settings import Settings
from atoll.algorithms.swim.suspicion import timeout
from atoll.algorithms.swim.timers import Timers
from atoll.errors import ConfigurationError

NAMES = st.sampled_from(["me", "a", "b", "c"])
COUNTS, UIDS = st.integers(0, 4), st.integers(1, 2)


@st.composite
def updates(draw: st.DrawFn, names: st.SearchStrategy[str] = NAMES) -> Update:
    name, uid, incarnation, by = draw(names), draw(UIDS), draw(COUNTS), draw(st.sampled_from("abc"))
    match draw(st.integers(0, 5)):
        case 0 | 1 | 2:
            # What one run of a process says at one incarnation is one thing.
            return Alive(name, uid, incarnation, f"{name}:{uid}", f"{uid}/{incarnation}".encode())
        case 3:
            return Suspect(name, uid, incarnation, by)
        case 4:
            return Confirm(name, uid, incarnation, by)
    return Leave(name, uid, incarnation)


def of(name: str) -> st.SearchStrategy[Update]:
    return updates(st.just(name))


def belief(record: Record | None) -> object:
    return None if record is None else (record.order, record.profile)


def heard(words: list[Update] | tuple[Update, ...]) -> Record | None:
    def hear(record: Record | None, word: Update) -> Record | None:
        return merge(record, word, 0.0)

    return reduce(hear, words, None)


@settings(deadline=None)
@given(st.lists(of("b"), min_size=1, max_size=5))
def test_one_belief_comes_of_the_same_words_in_any_order(words: list[Update]) -> None:
    assert len({str(belief(heard(order))) for order in permutations(words)}) == 1


@settings(deadline=None)
@given(st.lists(of("b"), min_size=1, max_size=8), st.data())
def test_words_heard_twice_change_nothing(words: list[Update], data: st.DataObject) -> None:
    again = [*words, *data.draw(st.lists(st.sampled_from(words), max_size=8))]
    assert belief(heard(again)) == belief(heard(words))
    record = heard(words)
    assert all(merge(record, word, 9.0) is record for word in words)


def test_a_merge_that_believes_the_last_speaker_is_caught() -> None:
    """Negative control for the three laws above."""

    def believe(record: Record | None, word: Update) -> Record:
        return merge(None, word, 0.0)

    words = [Suspect("b", 1, 0, "a"), Alive("b", 1, 1, "b"), Confirm("b", 1, 0, "c")]
    ends = {str(belief(reduce(believe, order, None))) for order in permutations(words)}  # type: ignore[arg-type]
    assert len(ends) == 3


@settings(deadline=None)
@given(st.lists(of("b"), max_size=8), of("b"))
def test_a_belief_never_goes_back(words: list[Update], word: Update) -> None:
    before = heard(words)
    after = merge(before, word, 0.0)
    assert before is None or after.order >= before.order


def machine(**more: object) -> Swim:
    return Swim(
        "me",
        "me:1",
        uid=1,
        dice=random.Random(1),
        now=0.0,
        settings=Settings(**more),  # type: ignore[arg-type]
    )


def hear(one: Swim, words: list[Update] | tuple[Update, ...], now: float = 0.0) -> list[ev.Effect]:
    return one.step(ev.Received("a:1", Packet("a", None, tuple(words))), now)


@settings(deadline=None)
@given(st.lists(updates(st.sampled_from("abc")), max_size=10), st.randoms(use_true_random=False))
def test_no_member_is_lost_by_the_order_in_which_packets_come(
    words: list[Update], chance: random.Random
) -> None:
    first, second = machine(), machine()
    hear(first, words)
    for word in chance.sample(words, len(words)):
        hear(second, [word])
    view = {(m.name, m.incarnation, m.uid, m.state, m.metadata) for m in first.members()}
    assert view == {(m.name, m.incarnation, m.uid, m.state, m.metadata) for m in second.members()}


class Listener:
    """A user who knows only what the events tell."""

    def __init__(self) -> None:
        self.members: dict[Name, ev.Member] = {}
        self.suspected: set[Name] = set()
        self.over = False

    def listen(self, effects: list[ev.Effect]) -> None:
        for effect in effects:
            match effect:
                case ev.Joined(member):
                    assert member.name not in self.members, "joined twice"
                    self.members[member.name] = member
                case ev.Failed(member) | ev.Left(member):
                    assert isinstance(effect, ev.Left) or member.name in self.members, "failed, never in"
                    self.members.pop(member.name, None)
                    self.suspected.discard(member.name)
                case ev.Suspected(member):
                    assert member.name in self.members and member.name not in self.suspected
                    self.suspected.add(member.name)
                    self.members[member.name] = member
                case ev.Refuted(member):
                    self.suspected.remove(member.name)
                    self.members[member.name] = member
                case ev.Updated(member):
                    assert member.name in self.members
                    self.members[member.name] = member
                case ev.NameTaken() | ev.Departed():
                    self.over = True


EVENTS = st.one_of(
    st.lists(updates(), min_size=1, max_size=3).map(lambda words: Packet("a", None, tuple(words))),
    st.builds(Letter, st.just("b"), st.lists(updates(), max_size=4).map(lambda w: Sync(tuple(w)))),
    st.sampled_from([Packet("a", Ack(1)), Packet("b", Nack(1)), Packet("c", Ping(3, "me")), None]),
    st.builds(Packet, st.just("a"), st.builds(PingRequest, st.integers(1, 9), NAMES, NAMES)),
    st.floats(0.01, 30),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=25))
def test_who_only_listens_knows_what_the_machine_knows(events: list[object]) -> None:
    one, user, now, said = machine(remember_s=20.0), Listener(), 0.0, 0
    for event in events:
        match event:
            case Packet():
                user.listen(one.step(ev.Received("a:1", event), now))
            case Letter():
                user.listen(one.step(ev.Asked(1, event), now))
            case float():
                while (due := one.deadline) is not None and due <= now + event:
                    user.listen(one.step(ev.Elapsed(), due))
                now += event
        assert one.status().incarnation >= said, "its own incarnation went back"
        said = one.status().incarnation
        if user.over:
            return
        others = {m.name: m for m in one.members() if m.name != "me"}
        assert {n: (m.address, m.metadata, m.uid) for n, m in others.items()} == {
            n: (m.address, m.metadata, m.uid) for n, m in user.members.items()
        }
        assert {n for n, m in others.items() if m.state.name == "SUSPECT"} == user.suspected
        assert "me" in {m.name for m in one.members()}, "it believes itself gone"


@settings(deadline=None)
@given(st.lists(of("me").filter(lambda u: u.uid == 1), max_size=12))
def test_it_outdoes_every_word_against_itself(words: list[Update]) -> None:
    one = machine()
    for word in words:
        hear(one, [word])
        mine = one.member("me")
        assert mine is not None and mine.state.name == "ALIVE"
        if not isinstance(word, Alive):
            assert mine.incarnation > word.incarnation


TEXTS = st.text(min_size=1, max_size=60).filter(lambda t: 0 < len(t.encode("utf-8", "replace")) <= 128)


@st.composite
def any_update(draw: st.DrawFn) -> Update:
    name, uid = draw(TEXTS), draw(st.integers(0, (1 << 63) - 1))
    incarnation = draw(st.integers(0, INCARNATION_MAX - 2))
    if draw(st.booleans()):
        return Alive(name, uid, incarnation, draw(TEXTS), draw(st.binary(max_size=1024)))
    return draw(st.sampled_from([Suspect, Confirm]))(name, uid, incarnation, draw(TEXTS))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(any_update(), max_size=30),
    st.integers(1140, 2000),
    st.sampled_from([Ping(1, "me"), PingRequest(1, "me", "x"), None]),
)
def test_no_packet_is_ever_larger_than_its_bound(words: list[Update], most: int, body: object) -> None:
    one = machine(packet_bytes_max=most)
    sent = []
    for word in filter(believable, words):
        sent += hear(one, [word])
    for _ in range(60):
        sent += one.step(ev.Received("a:1", Packet("a", body)), 0.1)  # type: ignore[arg-type]
        sent += one.step(ev.Elapsed(), one.deadline or 0.0)
    sizes = [len(pack(effect.packet)) for effect in sent if isinstance(effect, ev.Send)]
    assert max(sizes, default=0) <= most


def test_a_packet_is_filled_to_its_bound_and_never_past_it() -> None:
    """Also one that tells its reader first what is said of it, and one of the longest names."""
    dice, slack = random.Random(7), []
    for most in range(1140, 1260):
        name = "é" * 64
        one = Swim(name, "me:1", uid=1 << 62, dice=dice, now=0.0, settings=Settings(packet_bytes_max=most))
        long = [Alive("b", 1 << 62, 0, "b:1"), Suspect("b", 1 << 62, 0, "c" * 128)]
        hear(one, [*long, *(Suspect("x" * dice.randrange(1, 128), n, 0, "c" * 20) for n in range(60))])
        for reader in ("a", "b"):
            body = PingRequest(1, "a", "a:1") if reader == "a" else Ping(1 << 40, name)
            sent = one.step(ev.Received(f"{reader}:1", Packet(reader, body)), 0.1)
            slack += [most - len(pack(effect.packet)) for effect in sent if isinstance(effect, ev.Send)]
    assert 0 <= min(slack) <= 2, "the frame is counted for more than it is, or for less"
    assert sorted(slack)[len(slack) // 4] < 20


def test_a_list_is_never_larger_than_its_bound_and_each_member_gets_its_turn() -> None:
    one = machine(sync_bytes_max=4000)
    hear(one, [Alive(f"m{i}", 1, 0, f"10.0.0.{i}:7000", bytes(100)) for i in range(100)])
    seen: set[str] = set()
    for _ in range(100):
        for effect in one.step(ev.Asked(1, Letter("a", Sync(()))), 0.0):
            assert isinstance(effect, ev.Answer) and isinstance(effect.letter.body, Sync)
            assert len(pack(effect.letter)) <= 4000
            assert effect.letter.body.updates[0].name == "me"
            seen |= {update.name for update in effect.letter.body.updates}
    assert len(seen) == 101


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_no_packet_and_no_letter(data: bytes) -> None:
    for one in (data, bytes([FORMAT]) + data):
        for read, kind in ((read_packet, Packet), (read_letter, Letter)):
            found = read(one)
            assert found is None or isinstance(found, kind)


def test_what_is_nested_beyond_all_measure_is_no_packet_and_no_letter() -> None:
    """A part that nobody asked for is skipped, and skipping goes down into it."""
    packet, letter = msgspec.msgpack.encode(("a", None, [])), msgspec.msgpack.encode(("a", (3, 1)))
    for deep in (0, 1300, 1_000_000):
        nested = b"\x91" * deep + b"\xc0"
        for read, whole in ((read_packet, packet), (read_letter, letter)):
            longer = bytes([FORMAT, whole[0] + 1]) + whole[1:] + nested
            assert (read(longer) is None) is bool(deep)


def test_a_claim_is_read_as_a_claim() -> None:
    claim = Claim("b", 1 << 62, 3, "b:1", b"x", 1 << 61)
    packet = read_packet(pack(Packet("a", None, (claim,))))
    assert packet is not None and packet.updates == (claim,) and isinstance(packet.updates[0], Claim)
    assert merge(None, claim, 0.0).state == merge(None, Alive("b", 1, 0, "b:1"), 0.0).state


@settings(deadline=None)
@given(st.lists(updates(st.just("me")), max_size=15))
def test_words_of_earlier_runs_never_take_its_name(words: list[Update]) -> None:
    one = machine()
    told = [effect for word in words for effect in hear(one, [word])]
    assert not [effect for effect in told if isinstance(effect, ev.NameTaken)]
    mine = one.member("me")
    assert mine is not None and mine.uid == 1


@settings(deadline=None)
@given(st.one_of(st.builds(Packet, st.just("a"), st.none(), st.lists(updates()).map(tuple))))
def test_a_packet_is_read_as_it_was_written(packet: Packet) -> None:
    assert read_packet(pack(packet)) == packet


@pytest.mark.parametrize(
    "update",
    [
        Alive("b", 1, INCARNATION_MAX, "b:1"),
        Alive("b", 1, -1, "b:1"),
        Alive("", 1, 0, "b:1"),
        Alive("b" * 129, 1, 0, "b:1"),
        Alive("b", 1, 0, ""),
        Alive("b", 1, 0, "b:1", bytes(1025)),
        Alive("b", -1, 0, "b:1"),
        Suspect("b", 1, 0, "é" * 65),
    ],
)
def test_what_is_past_a_bound_is_not_read(update: Update) -> None:
    assert read_packet(pack(Packet("a", None, (update,)))) is None
    assert read_letter(pack(Letter("a", Sync((update,))))) is None


def test_another_format_is_not_read_and_can_be_told_from_garbage() -> None:
    for message, read in ((Packet("a", Ack(1)), read_packet), (Letter("a", Ack(1)), read_letter)):
        data = pack(message)  # type: ignore[arg-type]
        assert read(data) == message and other_format(data) is None
        later = bytes([FORMAT + 1]) + data[1:]
        assert read(later) is None and other_format(later) == FORMAT + 1
    assert other_format(b"") is None


def test_names_beyond_the_bound_are_not_taken_in() -> None:
    one = machine(members_max=10)
    hear(one, [Alive(f"m{i}", 1, 0, f"m{i}:1") for i in range(50)])
    assert len(one.members()) == 10


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 20), st.integers(0, 1000))
def test_a_round_visits_every_place_once_also_those_that_come_meanwhile(
    places: int, more: int, seed: int
) -> None:
    order, dice = Order(), random.Random(seed)
    seen = []
    for turn in range(places):
        seen.append(order.draw(places + (more if turn >= places // 2 else 0), dice))
    total = places + (more if places else 0)
    while (place := order.draw(total, dice)) is not None:
        seen.append(place)
    assert sorted(p for p in seen if p is not None) == list(range(total))


def test_every_order_of_a_round_is_equally_likely() -> None:
    dice, orders = random.Random(2), Counter[tuple[int, ...]]()
    for _ in range(6000):
        order = Order()
        orders[tuple(order.draw(3, dice) for _ in range(3))] += 1  # type: ignore[arg-type]
    assert len(orders) == 6 and all(850 < count < 1150 for count in orders.values())


@settings(deadline=None)
@given(st.lists(of("a") | of("b") | of("c"), min_size=1, max_size=20), st.integers(1, 5), st.integers(0, 300))
def test_news_is_told_so_often_and_no_more(words: list[Update], most: int, room: int) -> None:
    news = News()
    for word in words:
        news.add(word)
    last = {word.name: word for word in words}
    told: Counter[Update] = Counter()
    for _ in range(200):
        taken = news.take(room, most)
        assert sum(len(msgspec.msgpack.encode(one)) for one in taken) <= room
        counts = [told[one] for one in taken]
        assert counts == sorted(counts), "what was told least goes first"
        told.update(taken)
    assert all(told[word] == most or len(msgspec.msgpack.encode(word)) > room for word in last.values())
    assert set(told) <= set(last.values()), "an older word of the same name was told"


def test_a_long_word_is_not_starved_by_short_ones() -> None:
    news, seen = News(), False
    news.add(Alive("long", 1, 0, "x:1", bytes(500)))
    for turn in range(200):
        news.add(Suspect(f"m{turn}", 1, 0, "a"))
        seen = seen or any(word.name == "long" for word in news.take(520, 4))
    assert seen


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(0, 6), st.floats(0.1, 100), st.floats(1, 10))
def test_each_voice_shortens_a_suspicion_never_below_its_shortest(
    voices: int, needed: int, shortest: float, times: float
) -> None:
    longest = shortest * times
    now, then = (timeout(count, needed, shortest, longest) for count in (voices, voices + 1))
    assert shortest <= then <= now <= max(shortest, longest) * 1.000001
    if voices >= needed:
        assert now == pytest.approx(shortest)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.none() | st.floats(0, 100)), max_size=60))
def test_timers_ring_once_at_their_last_time(acts: list[tuple[int, float | None]]) -> None:
    timers, model = Timers[int](), dict[int, float]()
    for key, due in acts:
        if due is None:
            timers.drop(key)
            model.pop(key, None)
        else:
            timers.set(key, due)
            model[key] = due
    assert timers.next == min(model.values(), default=None)
    assert sorted(timers.ringing(50)) == sorted(key for key, due in model.items() if due <= 50)
    assert sorted(timers.ringing(101)) == sorted(key for key, due in model.items() if due > 50)
    assert timers.next is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["put", "fail", "forget", "fork", "compact"]))))
def test_the_list_holds_what_was_put_and_not_forgotten(acts: list[tuple[int, str]]) -> None:
    members, model = Members(), dict[Name, Record]()
    left_behind: list[tuple[Members, dict[Name, Record]]] = []
    for number, act in acts:
        name = f"m{number}"
        if act == "put":
            model[name] = merge(None, Alive(name, 1, 0, name), 0.0)
            members.put(model[name])
        elif act == "fail" and name in model:
            model[name] = merge(model[name], Confirm(name, 1, 0, "a"), 0.0)
            members.put(model[name])
        elif act == "forget":
            model.pop(name, None)
            members.forget(name)
        elif act == "fork":
            left_behind.append((members, dict(model)))
            members = members.fork()
        elif act == "compact":
            members.compact()
    for one, held in [*left_behind, (members, model)]:
        assert {record.name: record for record in one} == held
        living = {name for name, record in held.items() if record.living}
        assert (one.living, len(one)) == (len(living), len(held))
        assert set(one.failed) == set(held) - living
        assert len({r.name for r in one.choose(random.Random(1), 4, lambda _: True)}) == min(4, len(held))


def test_a_large_list_is_chosen_from_evenly() -> None:
    members, dice = Members(), random.Random(5)
    for number in range(100):
        members.put(merge(None, Alive(f"m{number}", 1, 0, "x"), 0.0))
    chosen = Counter(one.name for _ in range(5000) for one in members.choose(dice, 2, lambda _: True))
    assert len(chosen) == 100 and all(60 < count < 145 for count in chosen.values())


@pytest.mark.parametrize("members", [1, 9, 10, 99, 1000])
def test_news_is_passed_on_lambda_log_n_times(members: int) -> None:
    assert retransmissions(4, members) == 4 * len(str(members))


def test_metadata_past_its_bound_is_refused_with_its_size() -> None:
    one = machine()
    with pytest.raises(ValueError, match="found 513 bytes"):
        one.step(ev.MetadataSet(bytes(513)), 0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"probe_timeout_s": 1.0},
        {"packet_bytes_max": 900},
        {"metadata_bytes_max": 2000, "packet_bytes_max": 9000},
        {"health_max": 0},
        {"indirect": -1},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"found .*expected"):
        Settings(**wrong)  # type: ignore[arg-type]


def address_of(effects: list[ev.Effect]) -> list[Address]:
    return [effect.address for effect in effects if isinstance(effect, ev.Send)]


def test_its_own_packets_that_come_back_are_not_read() -> None:
    one = machine()
    assert one.step(ev.Received("me:1", Packet("me", Ping(1, "me"))), 0.0) == []
    assert address_of(one.step(ev.Received("b:1", Packet("b", Ping(1, "me"))), 0.0)) == ["b:1"]
