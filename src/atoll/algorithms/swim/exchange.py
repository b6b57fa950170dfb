"""Exchange: whole lists, swapped by stream: to join, now and then to agree, and to find lost ones again.

Gossip forgets. So two members sit down from time to time and compare address books, a newcomer does so
first of all, and now and then somebody knocks at a door that has long been closed.

Source: Demers and others, Epidemic Algorithms for Replicated Database Maintenance (1987), section 1.3:
anti-entropy beneath rumours.
Departure from SWIM, which has neither: join by seeds, exchanges, and trying failed members and unseen seeds
again, of which all members together do about one for each in `reconnect_interval_s`.
"""

from __future__ import annotations

import math

from atoll.algorithms.swim.beliefs import Beliefs
from atoll.algorithms.swim.events import Answer, Ask, Introduced
from atoll.algorithms.swim.local import Local
from atoll.algorithms.swim.messages import Address, Letter, State, Sync, Update

SEEDS_ASKED_MAX = 8
RETRY_MAX_S = 30.0
_UPDATE_BYTES = 48
"""Numbers and frames of one update."""


class Exchange:
    """Meetings with one other member at a time."""

    def __init__(self, local: Local, beliefs: Beliefs, address: Address) -> None:
        self._local, self._beliefs, self._address = local, beliefs, address
        self.seeds: tuple[Address, ...] = ()
        self._waiting = False
        self._attempts = 0
        self.asks: dict[int, Address] = {}
        """Streams opened for lists: to whom."""

    def start(self) -> None:
        """The first of the regular meetings is at a time by chance, so that not all meet at once."""
        local = self._local
        local.after(self._pause() * local.dice.random(), "sync")
        local.after(local.settings.reconnect_interval_s * local.dice.random(), "reconnect")

    def join(self, seeds: tuple[Address, ...]) -> None:
        """Meet the seeds, until one has answered."""
        self.seeds = tuple(dict.fromkeys(seed for seed in seeds if seed != self._address))
        self._waiting, self._attempts = True, 0
        self.knock()

    def knock(self) -> None:
        """Ask some seeds to be let in, and again later."""
        if not self._waiting or not self.seeds:
            return
        local = self._local
        first = int(local.dice.random() * len(self.seeds))
        for seed in (self.seeds[first:] + self.seeds[:first])[:SEEDS_ASKED_MAX]:
            self._ask(seed, join=True)
        pause = min(RETRY_MAX_S, float(1 << min(self._attempts, 5)))
        local.after(pause * (0.5 + local.dice.random() / 2) + local.settings.stream_timeout_s, "join")
        self._attempts += 1

    def meet(self) -> None:
        """The regular meeting: rarer in a large group, where there are many."""
        local = self._local
        local.after(self._pause(), "sync")
        for other in local.choose(1):
            self._ask(other.address)

    def meet_soon(self) -> None:
        """Within a probe's period, instead of when it was due."""
        self._local.after(self._local.settings.probe_interval_s * self._local.dice.random(), "sync")

    def _pause(self) -> float:
        crowd = max(0, math.ceil(math.log2(max(1, self._local.members.living))) - 5)
        return self._local.settings.sync_interval_s * (1 + crowd)

    def reconnect(self) -> None:
        """Try one who failed, or a seed that is not in: perhaps it is only a network that was cut."""
        local, members = self._local, self._local.members
        local.after(local.settings.reconnect_interval_s * (0.5 + local.dice.random()), "reconnect")
        lost = [one.address for name in members.failed if (one := members.get(name)) and one.visible]
        if self.seeds:
            seen = {one.address for one in members if one.living}
            lost += [seed for seed in self.seeds if seed not in seen and seed not in lost]
        if lost and local.dice.random() * members.living < len(lost):
            self._ask(lost[int(local.dice.random() * len(lost))])

    def asked(self, stream: int, sync: Sync) -> None:
        """Somebody brings a list: hear it, and give ours."""
        self._beliefs.hear_list(sync.updates)
        self._local.out.append(Answer(stream, self._letter()))

    def answered(self, address: Address, sync: Sync) -> None:
        """The other's list."""
        self._beliefs.hear_list(sync.updates)
        if self._waiting:
            self._waiting = False
            self._local.out.append(Introduced(address))

    def unanswered(self) -> None:
        """Nobody there. Where all seeds have been tried, the next try need not wait for the last of them."""
        if self._waiting and not self.asks:
            self._local.after(
                min(RETRY_MAX_S, float(1 << min(self._attempts, 5))) * (0.5 + self._local.dice.random() / 2),
                "join",
            )

    def _ask(self, address: Address, join: bool = False) -> None:
        local = self._local
        number = local.number()
        self.asks[number] = address
        local.out.append(Ask(number, address, self._letter(join), local.settings.stream_timeout_s))

    def _letter(self, join: bool = False) -> Letter:
        """All that is known, oneself first; from a place by chance on, where not everything has room.

        Of who is gone only that: a newcomer, who never heard of it, need not.
        """
        local, members = self._local, self._local.members
        found: list[Update] = []
        left = local.settings.sync_bytes_max
        places = members.places
        first = int(local.dice.random() * places)
        mine = members.get(local.me)
        others = (members.at((first + step) % places) for step in range(places))
        for one in (mine, *(other for other in others if other is not None and other.name != local.me)):
            if one is None:
                continue
            if one.profile is not None and one.state <= State.SUSPECT:
                left -= 4 * len(one.name) + 4 * len(one.address) + len(one.profile.metadata) + _UPDATE_BYTES
                if left < 0:
                    break
                found.append(one.profile)
            if one.state is not State.ALIVE and (word := one.verdict()) is not None:
                left -= 4 * (len(one.name) + len(one.by)) + _UPDATE_BYTES
                if left < 0:
                    break
                found.append(word)
        return Letter(local.me, Sync(tuple(found), join))
