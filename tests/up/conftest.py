"""The fixtures of `atoll up`: one of a test's own, and one that a file shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from up_process import SHOP, Up, stop_all


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    one = Up(tmp_path)
    yield one
    stop_all(one)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running app of three instances behind a gateway, shared by the tests of one file."""
    one = Up(tmp_path_factory.mktemp("shop")).manifest(SHOP).start()
    one.ready("api")
    yield one
    code = one.stop()
    stop_all(one)
    assert code == 0, one.output
