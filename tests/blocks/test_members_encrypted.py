"""4.10: with a secret, members hear nobody else, are heard by nobody else, and may change it while they run.

The envelope is tested by itself with hypothesis too: what was changed by one bit, cut, sent again or sealed
for something else is not opened. The negative controls show that each of these is opened where it should be.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from members_crowd import QUICK, Crowd, until, until_here

from atoll.algorithms.swim.settings import Settings
from atoll.blocks import Members
from atoll.blocks.envelope import OVERHEAD, WINDOW, Envelopes, Sender, Unread, ring_of
from atoll.errors import ConfigurationError, MissingExtra, NotReady, UsedAfterFork

OLD, NEW = "an old secret of the group", "a new secret of the group"
SETTINGS = Settings(**QUICK)  # type: ignore[arg-type]


def member(name: str, *seeds: str, **more: Any) -> Members:
    return Members(name, **{"listen": "127.0.0.1:0", "seeds": seeds, "settings": SETTINGS, **more})


def names(members: Members) -> list[str]:
    return [peer.name for peer in members.alive()]


def envelopes(*secrets: str) -> Envelopes:
    return Envelopes(ring_of(secrets) if secrets else ())


# -- a group with a secret -----------------------------------------------------------------------------


async def test_members_with_one_secret_find_each_other() -> None:
    async with member("a", secret=OLD) as a, member("b", a.address, secret=OLD.encode()) as b:
        await until_here(lambda: names(a) == names(b) == ["a", "b"])


@pytest.mark.parametrize(("other", "said"), [(NEW, "another secret"), (None, "not sealed")])
async def test_who_has_not_the_secret_is_not_let_in_and_that_is_said_once(
    other: str | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with member("a", secret=OLD) as a, member("b", a.address, secret=other) as b:
        with pytest.raises(NotReady, match="the same secret"):
            await b.ready(0.05)
        with socket.socket(type=socket.SOCK_DGRAM) as gun:
            for _ in range(20):
                host, _, port = a.address.rpartition(":")
                gun.sendto(envelopes(*[other] if other else []).seal(b"packet", b"hello"), (host, int(port)))
        await until_here(lambda: sum(a.traffic.unread.values()) >= 20)
        assert names(a) == ["a"] and names(b) == ["b"]
    assert [said in record.message for record in caplog.records if "Said once" in record.message] == [True]


async def test_one_without_a_secret_does_not_hear_sealed_words() -> None:
    async with member("a") as a, member("b", a.address, secret=OLD) as b:
        await until_here(lambda: a.traffic.unread)
        assert names(a) == ["a"] and names(b) == ["b"]


async def test_the_secret_is_changed_while_they_run_and_nobody_is_lost() -> None:
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(member("a", secret=OLD))
        others = [await stack.enter_async_context(member(name, a.address, secret=OLD)) for name in "bc"]
        everybody = [a, *others]
        for ring in ([OLD, NEW], [NEW, OLD], NEW):
            for one in everybody:
                one.rotate(ring)
                before = {each.name: each.traffic.packets_received for each in everybody}
                await until_here(
                    lambda before=before: all(
                        e.traffic.packets_received >= before[e.name] + 4 for e in everybody
                    )
                )
        late = await stack.enter_async_context(member("d", a.address, secret=NEW))
        await until_here(lambda: all(names(one) == list("abcd") for one in [*everybody, late]))
        assert all(not one.traffic.unread for one in everybody)
        with pytest.raises(ConfigurationError, match="at least 16"):
            a.rotate("short")


def test_a_killed_process_is_found_by_members_with_a_secret(
    monkeypatch: pytest.MonkeyPatch, crowds: list[Crowd]
) -> None:
    monkeypatch.setenv("CROWD_SECRET", OLD)
    crowds.append(Crowd("a", "b"))
    crowds.append(Crowd("c", seeds=crowds[0].open()))
    until(lambda: all(len(view) == 3 for crowd in crowds for view in crowd.alive.values()), what="three")
    crowds[1].signal(signal.SIGKILL)
    until(lambda: all("c failed" in told for told in crowds[0].events.values()), what="c failed")


@pytest.fixture
def crowds() -> Iterator[list[Crowd]]:
    """Child processes, ended with the test."""
    found: list[Crowd] = []
    yield found
    for crowd in found:
        crowd.end()


async def test_nothing_that_is_said_can_be_read_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    real = Envelopes.seal

    def overheard(self: Envelopes, kind: bytes, data: bytes) -> bytes:
        sealed = real(self, kind, data)
        sent.append(sealed)
        return sealed

    monkeypatch.setattr(Envelopes, "seal", overheard)
    metadata = {"zone": "a-place-nobody-knows"}
    for secret, readable in ((OLD, False), (None, True)):
        sent.clear()
        async with (
            member("a", secret=secret, metadata=metadata) as a,
            member("b", a.address, secret=secret) as b,
        ):
            await until_here(lambda: names(a) == names(b) == ["a", "b"])
        assert any(b"a-place-nobody-knows" in one for one in sent) is readable


def test_a_secret_without_its_library_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(MissingExtra, match=r"pip install 'atoll\[members\]'"):
        envelopes(OLD)
    assert envelopes().open(b"packet", envelopes().seal(b"packet", b"hello")) == b"hello"


# -- the envelope --------------------------------------------------------------------------------------


@given(st.binary(max_size=300), st.data())
@settings(deadline=None)
def test_what_was_changed_or_cut_is_not_opened(text: bytes, data: st.DataObject) -> None:
    sealed = envelopes(OLD).seal(b"packet", text)
    assert len(sealed) == len(text) + OVERHEAD
    assert envelopes(OLD).open(b"packet", sealed) == text
    bent = bytearray(sealed)
    bent[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = sealed[: data.draw(st.integers(0, len(sealed) - 1))]
    for spoilt in (bytes(bent), cut, sealed + b"x"):
        assert isinstance(envelopes(OLD).open(b"packet", spoilt), Unread)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_no_garbage_is_opened_nor_does_it_raise(garbage: bytes) -> None:
    for start in (b"", b"\x02"):
        assert isinstance(envelopes(OLD).open(b"packet", start + garbage), Unread)
    assert isinstance(envelopes().open(b"packet", b"\x02" + garbage), Unread)


def test_each_reason_is_told_apart() -> None:
    reader, writer = envelopes(OLD), envelopes(OLD)
    sealed = writer.seal(b"packet", b"hello")
    assert reader.open(b"letter", sealed) is Unread.FORGED  # sealed for something else
    assert reader.open(b"packet", sealed) == b"hello"
    assert reader.open(b"packet", sealed) is Unread.REPLAYED
    assert reader.open(b"packet", envelopes(NEW).seal(b"packet", b"hello")) is Unread.WRONG_KEY
    assert reader.open(b"packet", envelopes().seal(b"packet", b"hello")) is Unread.UNSEALED
    assert reader.open(b"packet", b"\x03") is Unread.GARBAGE
    assert envelopes(NEW, OLD).open(b"packet", writer.seal(b"packet", b"hello")) == b"hello"


def test_what_was_opened_before_the_secret_was_changed_is_not_opened_again_after() -> None:
    reader, writer = envelopes(OLD), envelopes(OLD)
    sealed = writer.seal(b"packet", b"hello")
    assert reader.open(b"packet", sealed) == b"hello"
    for ring, said in (
        ((OLD, NEW), Unread.REPLAYED),
        ((NEW, OLD), Unread.REPLAYED),
        ((NEW,), Unread.WRONG_KEY),
    ):
        reader.turn(ring_of(ring))
        assert reader.open(b"packet", sealed) is said
    assert not reader._senders, "a secret that is gone needs no memory"


def test_no_nonce_is_used_twice_under_one_key() -> None:
    """The key is of the secret and 16 random bytes, the nonce counts: neither runs nor threads of it meet."""
    starts = set()
    for _ in range(50):
        writer = envelopes(OLD)
        heads = [writer.seal(b"packet", b"the same")[:29] for _ in range(20)]
        writer.turn(ring_of(OLD))
        heads += [writer.seal(b"packet", b"the same")[:29] for _ in range(20)]
        starts.update(heads)
    assert len(starts) == 50 * 40


@given(st.lists(st.integers(1, 3 * WINDOW), max_size=60))
def test_a_number_is_new_once_in_whatever_order_they_come(numbers: list[int]) -> None:
    sender, known, newest = Sender(None), set[int](), 0
    for number in numbers:
        fresh = number not in known and number > newest - WINDOW
        assert sender.fresh(number) is fresh
        known.add(number)
        newest = max(newest, number)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_seal_with_its_parents_numbers() -> None:
    writer = envelopes(OLD)
    if (child := os.fork()) == 0:
        try:
            writer.seal(b"packet", b"hello")
        except UsedAfterFork:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_many_senders_have_bounded_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.blocks.envelope.SENDERS_MAX", 10)
    reader = envelopes(OLD)
    for _ in range(40):
        assert reader.open(b"packet", envelopes(OLD).seal(b"packet", b"hello")) == b"hello"
    assert len(reader._senders) == 10


def test_a_repr_shows_no_secret() -> None:
    assert OLD not in repr(member("a", secret=OLD)) + repr(vars(member("a", secret=OLD)))


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "atoll.members")
