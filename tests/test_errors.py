"""A3: three families, and each error in the right one: did it happen?"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import atoll
from atoll import errors

NOT_APPLIED = {
    "Taken", "Conflict", "Refused", "LeaseOver", "LimitReached", "Overloaded", "DiskFull", "ReadOnly",
    "NotSent", "NotReady", "EpochUncertain",
}  # fmt: skip
INTERRUPTED = {"LockLost", "LeaderLost", "DeliveryLost", "UsedAfterFork"}
WATCH = {"WatchLost", "Compacted", "EpochChanged"}
PROGRAM = {"MissingExtra", "FormatRefused", "WouldDeadlock"}


def family(root: type[Exception]) -> set[str]:
    return {
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, root) and kind is not root
    }


@pytest.mark.parametrize(
    ("root", "members"),
    [
        (errors.NotApplied, NOT_APPLIED),
        (errors.Interrupted, INTERRUPTED),
        (errors.WatchEnded, WATCH),
        (errors.ConfigurationError, PROGRAM),
        (errors.OutcomeUnknown, set()),
    ],
)
def test_every_error_stands_in_one_family(root: type[Exception], members: set[str]) -> None:
    assert family(root) == members


def test_no_error_is_of_two_families() -> None:
    roots = [
        errors.NotApplied,
        errors.OutcomeUnknown,
        errors.Interrupted,
        errors.WatchEnded,
        errors.ConfigurationError,
    ]
    for kind in vars(errors).values():
        if inspect.isclass(kind) and kind is not errors.AtollError:
            assert sum(issubclass(kind, root) for root in roots) == 1, kind


def test_a_body_that_was_stopped_is_not_reported_as_not_done() -> None:
    assert not issubclass(errors.LockLost, errors.NotApplied)


def test_every_error_can_be_caught_by_its_name_at_the_front_door() -> None:
    missing = [n for n, k in vars(errors).items() if inspect.isclass(k) and getattr(atoll, n, None) is not k]
    assert missing == []


def test_the_tree_on_the_page_is_the_tree_in_the_code() -> None:
    drawn = set()
    for line in (errors.__doc__ or "").splitlines():
        if words := line.replace("|", " ").replace("--", " ").replace("`", " ").split():
            drawn.add(words[0])
    assert {n for n, k in vars(errors).items() if inspect.isclass(k)} <= drawn


def test_nothing_raises_bare_exceptions() -> None:
    """Only our families, standard misuse errors and assertions leave the house."""
    allowed = {"AtollError", "Exception", "RuntimeError", "BaseException"}
    found = []
    house = Path(errors.__file__).parent
    for path in house.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                name = getattr(node.exc.func, "id", "")
                if name in allowed:
                    found.append(f"{path.relative_to(house)}:{node.lineno} raises {name}")
    assert found == []
