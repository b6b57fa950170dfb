"""What every test may use. Async tests need no plugin: a coroutine function is run in a fresh loop."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from servers import shared as shared

CEILING_S = 120.0
"""An async test; a plain one has the `timeout` of pyproject.toml."""
LONG_S = 7200.0

# A busy machine is no failure, and two runs of one state of the code try the same examples; long forms try
# new ones.
settings.register_profile(
    "atoll",
    deadline=None,
    derandomize=os.environ.get("ATOLL_LONG") != "1",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("atoll")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell started us in the background; tests send it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long forms have a make target of their own."""
    if os.environ.get("ATOLL_LONG") == "1":
        for item in items:
            item.add_marker(pytest.mark.timeout(LONG_S))
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="a long form: make long"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def test_...` to its end, at most CEILING_S: nothing hangs past its deadline."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in names}

    async def bounded() -> None:
        async with asyncio.timeout(CEILING_S):
            await pyfuncitem.obj(**arguments)

    asyncio.run(bounded())
    return True
