"""3.4 on etcd: three members under one power cut; what cannot be tried on it says why."""

from __future__ import annotations

import pytest

import servers
from atoll.verify.power import mount
from atoll.verify.run import Wish, run
from atoll.verify.scenario import Hardship


@pytest.mark.skipif(bool(mount.missing()), reason=mount.missing() or "-")
async def test_three_members_on_one_plug_keep_what_was_acknowledged() -> None:
    servers.expect("etcd")
    [line] = (await run(Wish(start="etcd:3", workloads=("power",), seconds=4, seed=6))).lines
    assert line.verdict == "held", line.figures
    assert any(bite.times for bite in line.bites if bite.hardship is Hardship.POWER_CUT)


async def test_what_cannot_be_tried_on_etcd_says_why() -> None:
    servers.expect("etcd")
    lines = (await run(Wish(start="etcd:3", workloads=("clock", "failover"), seconds=1, seed=6))).lines
    assert [line.verdict for line in lines] == ["not run"] * 3
    assert "Go program" in lines[0].figures
    assert "only a member with all that was acknowledged is elected" in lines[1].figures
