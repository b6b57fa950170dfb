"""Dissemination: news on the free space of packets, each piece passed on a bounded number of times.

Like a rumour at work: the freshest is told first, and after a few tellings everybody is tired of it. As each
hearer tells it as often, it has reached all by then, whatever a few lost words.

Source: Das, Gupta and Motivala, SWIM (2002), sections 4.1 and 5: what was told least goes first, and each
piece lambda log n times. Karp and others, Randomized Rumor Spreading (2000), for why that is enough.
"""

from __future__ import annotations

import math

from atoll.algorithms.swim.messages import Body, Name, Packet, Update, size

LOOKED_AT_MAX = 64
"""Pieces looked at for one packet: a full one costs no more than this, however much news there is."""
_FRAME = 5
"""Bytes of a packet around its parts: the format, its own array, the array of updates."""


def retransmissions(multiplier: float, members: int) -> int:
    """How often each member passes a piece of news on."""
    return max(1, math.ceil(multiplier * math.ceil(math.log10(members + 1))))


class News:
    """What is to be passed on: one piece for each name, for a newer one makes an older one void."""

    def __init__(self) -> None:
        self._told: dict[Name, int] = {}
        self._shelves: list[dict[Name, tuple[Update, int]]] = [{}]

    def __len__(self) -> int:
        return len(self._told)

    def __contains__(self, name: Name) -> bool:
        return name in self._told

    def add(self, update: Update) -> None:
        """To be told, from the beginning."""
        self.drop(update.name)
        self._told[update.name] = 0
        self._shelves[0][update.name] = (update, size(update))

    def drop(self, name: Name) -> None:
        """Not to be told any more."""
        told = self._told.pop(name, None)
        if told is not None:
            del self._shelves[told][name]

    def take(self, room: int, most: int, but: Name = "") -> list[Update]:
        """What fits in `room` bytes, least told first; after `most` tellings a piece is dropped.

        Nothing about `but` is taken: it is in the packet already.
        """
        if not self._told:
            return []
        taken: list[tuple[int, Name, Update, int]] = []
        looked = 0
        for told, shelf in enumerate(self._shelves):
            for name, (update, bytes_) in shelf.items():
                if looked == LOOKED_AT_MAX:
                    break
                looked += 1
                if bytes_ <= room and name != but:
                    room -= bytes_
                    taken.append((told, name, update, bytes_))
        for told, name, update, bytes_ in taken:
            self.drop(name)
            if told + 1 < most:
                if len(self._shelves) == told + 1:
                    self._shelves.append({})
                self._told[name] = told + 1
                self._shelves[told + 1][name] = (update, bytes_)
        return [update for _, _, update, _ in taken]


def room_for_news(bytes_max: int, sender: Name, body: Body | None, first: Update | None) -> int:
    """Bytes left for news in a packet with this body, and this update before all others."""
    left = bytes_max - _FRAME - len(sender.encode()) - 2 - size(body)
    return left - size(first) if first is not None else left


def packet(sender: Name, body: Body | None, first: Update | None, news: list[Update]) -> Packet:
    """Everything in its place."""
    return Packet(sender, body, tuple(news) if first is None else (first, *news))
