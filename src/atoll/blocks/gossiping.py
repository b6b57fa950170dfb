"""Gossiping: the hands and ears of one member's SWIM machine: its sockets, its alarm clock, its errands.

The machine thinks and cannot move. This carries out what it asks for, in order, and tells it what came.

Promise: every event is stepped at once and every effect is carried out in order; a stream that was asked for
is answered once; nothing is left running after `close`.
What can break it: an event loop that is held up: then the machine wakes late, and blames itself.
Proved by: tests/blocks/test_members.py
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from atoll import clock
from atoll.algorithms.swim import events as swim
from atoll.algorithms.swim.machine import Swim
from atoll.algorithms.swim.messages import other_format, pack, read_letter, read_packet
from atoll.algorithms.swim.settings import Settings
from atoll.blocks.envelope import Envelopes, Unread
from atoll.blocks.post import Post
from atoll.blocks.session import in_background

ASKS_MAX = 64
"""Streams open at once; one more is answered as if nobody were there."""
LIST_MARGIN = 4096
"""Bytes of a letter around its list."""


class Gossip:
    """One member at work. `tell` hears what the machine has to say to people."""

    def __init__(
        self, name: str, settings: Settings, ring: Sequence[bytes], tell: Callable[[swim.Told], None]
    ) -> None:
        self.name, self.settings = name, settings
        self.envelopes = Envelopes(ring)
        self.post = Post(
            self.envelopes,
            self._hear,
            self._answer,
            packet_max=settings.packet_bytes_max,
            letter_max=settings.sync_bytes_max + LIST_MARGIN,
            stream_timeout_s=settings.stream_timeout_s,
        )
        self._tell = tell
        self._machine: Swim | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._asks: dict[int, asyncio.Task[None]] = {}
        self._answers: dict[int, bytes] = {}
        self._streams = 0
        self._closed = False

    @property
    def machine(self) -> Swim:
        """There once it has begun."""
        assert self._machine is not None
        return self._machine

    def begin(self, address: str, metadata: bytes) -> None:
        """Be a member at `address`, alone so far."""
        self._machine = Swim(
            self.name,
            address,
            uid=clock.chance().getrandbits(63),
            dice=clock.chance(),
            now=clock.loop_now(),
            metadata=metadata,
            settings=self.settings,
        )
        self._set_alarm()

    def step(self, event: swim.Event) -> None:
        """Hear one event, and do what it calls for."""
        if self._machine is None or self._closed:
            return
        if isinstance(event, swim.JoinAsked):
            self.post.named.update(event.seeds)
        for effect in self._machine.step(event, clock.loop_now()):
            match effect:
                case swim.Send(address, packet):
                    self.post.send(address, pack(packet))
                case swim.Ask():
                    self._ask(effect)
                case swim.Answer(stream, letter):
                    self._answers[stream] = pack(letter)
                case _:
                    self._tell(effect)
        self._set_alarm()

    async def asked(self) -> None:
        """Until the streams that are open now have been answered or not."""
        if self._asks:
            await asyncio.wait(self._asks.values())

    async def close(self) -> None:
        """Stop, at once; who should be told has been told before."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        asks = tuple(self._asks.values())
        for ask in asks:
            ask.cancel()
        await asyncio.gather(*asks, return_exceptions=True)
        await self.post.close()

    def _set_alarm(self) -> None:
        deadline = self.machine.deadline
        if self._alarm is not None and self._alarm.when() != deadline:
            self._alarm.cancel()
            self._alarm = None
        if self._alarm is None and deadline is not None and not self._closed:
            self._alarm = asyncio.get_running_loop().call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.step(swim.Elapsed())

    def _hear(self, address: str, data: bytes) -> Unread | None:
        packet = read_packet(data)
        if packet is None:
            return _unread(data)
        self.step(swim.Received(address, packet))
        return None

    def _answer(self, data: bytes) -> bytes | Unread:
        letter = read_letter(data)
        if letter is None:
            return _unread(data)
        self._streams += 1
        self.step(swim.Asked(self._streams, letter))
        return self._answers.pop(self._streams, Unread.GARBAGE)

    def _ask(self, ask: swim.Ask) -> None:
        if len(self._asks) >= ASKS_MAX:
            asyncio.get_running_loop().call_soon(self.step, swim.Unanswered(ask.id))
        else:
            self._asks[ask.id] = in_background(self._knock(ask))

    async def _knock(self, ask: swim.Ask) -> None:
        try:
            said = await self.post.ask(ask.address, pack(ask.letter), ask.timeout_s)
        finally:
            self._asks.pop(ask.id, None)
        letter = read_letter(said) if said is not None else None
        self.step(swim.Unanswered(ask.id) if letter is None else swim.Answered(ask.id, letter))


def _unread(data: bytes) -> Unread:
    return Unread.GARBAGE if other_format(data) is None else Unread.OTHER_FORMAT
