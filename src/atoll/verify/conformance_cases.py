"""Conformance for strangers: the suites that judge our engines, for engines that we have never seen.

The same driving test, in your own yard: bring a URL or a function that makes a handle, and a test runner of
your choice, or none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from atoll import urls
from atoll.errors import ConfigurationError
from atoll.verify import conformance_broker, conformance_register, conformance_store, conformance_tier
from atoll.verify.conformance import Case, Cases

SUITES: dict[str, Cases] = {
    "store": conformance_store.CASES,
    "register": conformance_register.CASES,
    "broker": conformance_broker.CASES,
    "tier": conformance_tier.CASES,
}
_DOORS: dict[str, Callable[[str], Any]] = {
    "store": urls.store,
    "register": urls.register,
    "broker": urls.broker,
    "tier": urls.tier,
}


@dataclass(frozen=True, slots=True)
class Check:
    """One sentence of a port, to be awaited with a URL or with a function that makes a handle.

    Answers when the promise was kept. Raises Violation, an AssertionError that says which promise was broken
    and what was seen; raises NotTested where the engine does not claim it.
    """

    name: str
    port: str
    case: Case

    def __str__(self) -> str:
        return self.name

    async def __call__(self, place: str | Callable[[], Any]) -> None:
        made: list[Any] = []

        def make() -> Any:
            made.append(_DOORS[self.port](place) if isinstance(place, str) else place())
            return made[-1]

        try:
            await self.case(make)
        finally:
            for handle in made:
                await handle.close()


def conformance(port: str = "store") -> list[Check]:
    """Every sentence of a port as a plain async function: `store`, `register`, `broker` or `tier`.

    They keep to keys, queues and names of their own, but those of a store that can be moved freeze all of
    it and raise its epoch: use a place that nobody else uses. None needs a test runner.
    """
    if port not in SUITES:
        raise ConfigurationError(f"found the port {port!r}; expected one of {', '.join(SUITES)}.")
    return [Check(name, port, case) for name, case in SUITES[port]]
