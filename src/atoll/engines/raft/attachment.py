"""Attachment: what one event loop has open of a raft store: its lines, its lift of writes, its bell.

A branch office of the store. It numbers its own letters, has one lift to the post room, and one porter who
listens for news; what the cluster's members said of themselves is kept on a card at the door.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from atoll import clock
from atoll.engines.parts.together import Limits, Together
from atoll.engines.raft import wire, writing
from atoll.engines.raft.bell import Bell
from atoll.engines.raft.command import Result
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
        self.together: Together[Asked, Result]
        self._options = options
        self._begin_session()

    def _begin_session(self) -> None:
        self._client = clock.chance().getrandbits(62) + 1
        self._sequence = 0

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
        self.together = Together(self._send, self.url, limits)

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

    async def _send(self, batch: Sequence[Asked], left_s: float) -> Sequence[Result]:
        """One command for all of them. Asked again as often as needed: the log knows it by its number."""
        data = writing.packed(batch)
        while True:
            self._sequence += 1
            verb = wire.Write(self._client, self._sequence, data)
            answer, twice = await self.members.put(verb, "the transaction")
            assert isinstance(answer, Done), f"a write was answered with {type(answer).__name__}"
            results = writing.unpacked(answer.data, len(batch))
            if results is not None:
                return results
            # The members remember a bounded number of clients, and this one was silent for long.
            self._begin_session()
            if twice:
                raise writing.forgotten(self.url)

    async def close(self) -> None:
        """Wait for nobody: what has not left is NotSent."""
        if hasattr(self, "together"):
            await self.together.close()
        await self.bell.close()
        self.members.close()
