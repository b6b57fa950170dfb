"""Named: what `memory://` and `memory://name` mean in this process.

A row of hooks with labels. Whoever asks for a label gets the same coat; who asks without one gets a
coat of their own. A forked child finds the row empty, because what hung there is its parent's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from atoll.engines.memory.knobs import Knobs, server_side
from atoll.errors import ConfigurationError


class World(Protocol):
    """A state made with knobs."""

    @property
    def knobs(self) -> Knobs: ...


WorldT = TypeVar("WorldT", bound=World)


class Named(Generic[WorldT]):
    """Worlds by name, for as long as the process lives."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._guarding = threading.Lock()
        self._worlds: dict[str, WorldT] = {}

    def find(self, name: str, make: Callable[[], WorldT]) -> WorldT:
        """The world of that name, made now if nobody asked before."""
        if self._pid != os.getpid():
            self._start()
        with self._guarding:
            if name not in self._worlds:
                self._worlds[name] = make()
            return self._worlds[name]


class Place(Generic[WorldT]):
    """Where one handle's world is; found at the first use in each process."""

    def __init__(self, name: str, knobs: Knobs, make: Callable[[], WorldT], named: Named[WorldT]) -> None:
        self._name = name
        self._knobs = knobs
        self._make = make
        self._named = named
        self._found: tuple[int, WorldT] | None = None

    @property
    def world(self) -> WorldT:
        if self._found is None or self._found[0] != os.getpid():
            self._found = (os.getpid(), self._find())
        return self._found[1]

    def _find(self) -> WorldT:
        if not self._name:
            return self._make()
        world = self._named.find(self._name, self._make)
        if server_side(world.knobs) != server_side(self._knobs):
            raise ConfigurationError(
                f"memory://{self._name} is in use in this process with other options. Give every "
                "handle of one name the same ones; only latency_s, the losses and `observe` may differ."
            )
        return world
