"""4.10: fifty members on one machine, in ten processes, by real datagrams.

All see all, and five that are killed are found by all.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from members_crowd import QUICK, Crowd, until

PROCESSES, EACH = 10, 5
CALM = QUICK | {"probe_interval_s": 0.5, "probe_timeout_s": 0.25, "gossip_interval_s": 0.1}
LONG_S = 100.0
"""Far more than it takes: a busy machine is no failure."""


@pytest.fixture
def fifty() -> Iterator[list[Crowd]]:
    """Fifty, the first one the seed of all."""
    crowds = [Crowd(*(f"m0{n}" for n in range(EACH)), settings=CALM)]
    try:
        seeds = crowds[0].open()
        for number in range(1, PROCESSES):
            crowds.append(Crowd(*(f"m{number}{n}" for n in range(EACH)), seeds=seeds, settings=CALM))
        yield crowds
    finally:
        for crowd in crowds:
            crowd.end()


def views(crowds: list[Crowd]) -> list[dict[str, str]]:
    return [view for crowd in crowds for view in crowd.alive.values()]


def test_fifty_see_each_other_and_find_five_that_were_killed(fifty: list[Crowd]) -> None:
    everybody = {name for crowd in fifty for name in crowd.names}
    until(lambda: all(view.keys() == everybody for view in views(fifty)), LONG_S, "all see all")
    killed = set(fifty[4].names)
    rest = [crowd for crowd in fifty if crowd is not fifty[4]]
    assert len(everybody) == 50 and len(killed) == 5
    fifty[4].signal(signal.SIGKILL)
    until(
        lambda: all(view.keys() == everybody - killed for view in views(rest)),
        LONG_S,
        "five are found by all",
    )
    expected = {f"{name} failed" for name in killed}
    told = [told for crowd in rest for told in crowd.events.values()]
    until(lambda: all(expected <= set(lines) for lines in told), LONG_S, "all are told so")
    assert not any(line.endswith(" left") for lines in told for line in lines)
