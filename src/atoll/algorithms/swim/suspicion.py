"""Suspicion: how long a silent member has to object, and how voices that agree make that shorter.

One neighbour who says "I have not seen him for days" may have been away himself. When three say so, there
is less to wait for. So a lone suspicion waits long, and each independent voice cuts the wait.

Source: Das, Gupta and Motivala, SWIM (2002), section 4.2. Dadgar, Phillips and Currey, Lifeguard (2018),
Local Health Aware Suspicion: the timeout falls from its longest to its shortest with the logarithm of the
confirmations.
"""

from __future__ import annotations

import math

from atoll.algorithms.swim.messages import Name
from atoll.algorithms.swim.settings import Settings


def bounds(settings: Settings, members: int) -> tuple[float, float]:
    """The shortest and the longest suspicion, in seconds, among so many members."""
    scale = max(1.0, math.log10(max(1, members)))
    shortest = settings.suspicion_multiplier * scale * settings.probe_interval_s
    return shortest, shortest * settings.suspicion_max_multiplier


def timeout(confirmations: int, needed: int, shortest: float, longest: float) -> float:
    """Seconds from its beginning that a suspicion lasts, confirmed by so many others."""
    if needed < 1:
        return shortest
    share = math.log(confirmations + 1) / math.log(needed + 1)
    return max(shortest, longest - (longest - shortest) * share)


class Suspicion:
    """One member under suspicion, at one incarnation."""

    def __init__(self, accuser: Name, now: float, settings: Settings, members: int) -> None:
        self.began = now
        self.shortest, self.longest = bounds(settings, members)
        self.needed = max(0, min(settings.confirmations, members - 2))
        """Neither the accused nor the first accuser can confirm."""
        self.voices = {accuser}
        self.not_before = 0.0
        """Set where this member was not there to hear a refutation."""

    @property
    def due(self) -> float:
        """When it is over, unless refuted or confirmed before."""
        lasts = timeout(len(self.voices) - 1, self.needed, self.shortest, self.longest)
        return max(self.began + lasts, self.not_before)

    def confirm(self, voice: Name) -> bool:
        """True where this is a new voice that counts, and so is worth passing on."""
        if voice in self.voices or len(self.voices) - 1 >= self.needed:
            return False
        self.voices.add(voice)
        return True
