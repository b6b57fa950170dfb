"""4.10: members without an event loop: the same names, no await, asked from any thread."""

from __future__ import annotations

import threading
import time

import pytest

from atoll.algorithms.swim.settings import Settings
from atoll.blocks import MemberEvent, MemberJoined, MemberLeft, MemberUpdated
from atoll.errors import ConfigurationError
from atoll.sync import Members

QUICK = Settings(probe_interval_s=0.3, probe_timeout_s=0.15, gossip_interval_s=0.05)


def test_members_see_each_other_without_an_event_loop() -> None:
    told: list[MemberEvent] = []
    with Members("a", listen="127.0.0.1:0", settings=QUICK) as a:
        reader = threading.Thread(target=lambda: told.extend(a.events()))
        reader.start()
        with Members("b", listen="127.0.0.1:0", seeds=[a.address], settings=QUICK) as b:
            b.ready(30)
            b.describe({"zone": "1"})
            assert [peer.name for peer in b.alive()] == ["a", "b"]
            due = time.monotonic() + 30
            while not (peer := a.peer("b")) or peer.metadata != {"zone": "1"}:
                assert time.monotonic() < due
                time.sleep(0.01)
            assert a.status().living == 2 and b.metadata == {"zone": "1"}
        while not any(isinstance(event, MemberLeft) for event in tuple(told)):
            assert time.monotonic() < due
            time.sleep(0.01)
    reader.join(30)
    kinds = [type(event) for event in told]
    assert kinds.index(MemberJoined) < kinds.index(MemberUpdated) < kinds.index(MemberLeft)


def test_many_threads_may_ask_at_once() -> None:
    with Members("a", listen="127.0.0.1:0", settings=QUICK) as a:
        failures: list[BaseException] = []

        def ask() -> None:
            try:
                for number in range(30):
                    a.describe({"n": str(number)})
                    assert len(a.alive()) == 1 and a.status().living == 1
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert failures == []
    with pytest.raises(ConfigurationError, match="entered before"), a:
        pass
