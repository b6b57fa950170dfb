"""Attachment: what one event loop has open of a raft store: its lines, its lift of writes, its bell.

A branch office of the store. It numbers its own letters, has one lift to the post room, and one porter who
listens for news; what the cluster's members said of themselves is kept on a card at the door.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from atoll.engines.parts.together import Limits
from atoll.engines.raft import wire, writing
from atoll.engines.raft.bell import Bell
from atoll.engines.raft.command import Result
from atoll.engines.raft.lift import Lift
from atoll.engines.raft.members import Members
from atoll.engines.raft.options import RaftOptions, context
from atoll.engines.raft.wire import Card, Done
from atoll.engines.raft.writing import Asked

T = TypeVar("T")

CALLS_MAX, COUNT_MAX = 512, 4000
ROOM = 4096
"""Bytes that a command's own words take beside the values in it."""


class Attachment:
    """Everything of one event loop."""

    def __init__(self, url: str, places: Sequence[str], options: RaftOptions, cluster: str) -> None:
        self.url = url
        self.members = Members(url, places, options, context(options), cluster)
        self.bell = Bell(self.members)
        self.bytes_max = options.value_bytes_max
        self.lift: Lift
        self._options = options

    async def begin(self) -> None:
        """Greet the members, and learn what they take at once."""
        await self.members.survey()
        card = await self.card(fresh=False)
        self.bytes_max = int(card.limits["command_bytes_max"]) - ROOM
        limits = Limits(
            queue_max=self._options.queue_max,
            ceiling_s=self._options.ceiling_s,
            calls_max=CALLS_MAX,
            count_max=COUNT_MAX,
            bytes_max=self.bytes_max,
        )
        self.lift = Lift(self.members, limits)

    async def ask(self, verb: wire.Verb, kind: type[T], what: str) -> T:
        """The answer, of the kind that answers this verb."""
        answer = await self.members.ask(verb, what)
        assert isinstance(answer, kind), f"{what} was answered with {type(answer).__name__}"
        return answer

    async def card(self, *, fresh: bool) -> Card:
        """What the store is now; `fresh`: not older than this question."""
        return await self.ask(wire.Ask(fresh), Card, "a look at the store")

    async def judge(self, asked: Asked) -> Result:
        """What becomes of a transaction that writes nothing."""
        done = await self.ask(wire.Judge(writing.packed((asked,))), Done, "the transaction")
        results = writing.unpacked(done.data, 1)
        assert results is not None
        return results[0]

    async def close(self) -> None:
        """Wait for nobody: what has not left is NotSent."""
        if hasattr(self, "lift"):
            self.lift.close()
        await self.bell.close()
        self.members.close()
