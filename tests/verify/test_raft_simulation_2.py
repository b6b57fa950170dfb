"""4.2: clusters of the real machine under seeds: share 2 of 6, see tests/raft_seeds.py."""

from __future__ import annotations

import pytest

import raft_seeds

pytestmark = pytest.mark.timeout(raft_seeds.CEILING_S)


def test_every_invariant_holds_under_every_seed() -> None:
    raft_seeds.holds(1)


def test_the_share_has_its_part_of_the_figures_and_every_fault_bites_every_role() -> None:
    raft_seeds.has_its_part(1)
