"""4.3: Raft with a rule left out is caught by the simulation, each mutant within 200 seeds.

The control is the simulation's own: the whole machine passes hundreds of seeds in test_raft_simulation_*.
"""

from __future__ import annotations

import pytest
from raft_mutants import MUTANTS, Mutant

from atoll.verify.raft.simulate import Outcome, simulate

SEEDS = 200
ACCIDENTS = ("AttributeError", "TypeError", "KeyError", "IndexError", "NameError")
"""What would only say that the mutant itself cannot run."""


def killed(mutant: Mutant) -> Outcome | None:
    """The first outcome in which the mutant is caught."""
    with mutant.at_work():
        for seed in range(SEEDS):
            outcome = simulate(seed, runtime=mutant.runtime, state=mutant.state)
            if outcome.violation is not None:
                return outcome
    return None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_is_caught(mutant: Mutant) -> None:
    outcome = killed(mutant)
    assert outcome is not None, f"it {mutant.name}, and lived through {SEEDS} seeds"
    assert outcome.violation is not None
    assert not any(accident in outcome.violation for accident in ACCIDENTS), outcome.violation


def test_without_a_mutant_at_work_the_machine_is_whole_again() -> None:
    for mutant in MUTANTS:
        with mutant.at_work():
            pass
    for seed in range(2):
        assert simulate(seed).violation is None
