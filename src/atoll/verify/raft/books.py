"""A member's books: which client waits for which entry, which reads wait, whose lease runs until when.

A hotel's reception. Wishes are noted with the page of the log they went to; a guest who pays again in time
keeps the room, but only while the house is sure that it is still the only reception in town.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from atoll.algorithms.raft import events as e
from atoll.algorithms.raft.messages import Entry, Term
from atoll.verify.raft.register import TTL_S, expiring

if TYPE_CHECKING:
    from atoll.verify.raft.clients import Client
    from atoll.verify.raft.runtime import Runtime

LIFE = 1_000_000_000  # numbers of one life of a member; no number is ever used by two
SWEEP_S = 0.1


class Ask:
    """A proposal that a client waits for: the results of its commands so far."""

    __slots__ = ("client", "left", "number", "results")

    def __init__(self, client: Client, number: int, size: int) -> None:
        self.client, self.number, self.left = client, number, size
        self.results = [0] * size


class Books:
    """What one life of a member keeps in mind for its clients; all of it is lost with that life."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.host = runtime, runtime.host
        self.waiting: dict[int, tuple[Term, Ask, int]] = {}
        self._number = self.host.starts * LIFE
        self._asks: dict[int, Ask] = {}
        self._reads: dict[int, tuple[Client, int, Any]] = {}
        self._late: list[tuple[int, int, tuple[Client, int, Any]]] = []
        self._leases: dict[int, float] = {}
        self._ending: dict[int, int] = {}  # lease -> the proposal that ends it
        self._sweeps = 0

    def number(self) -> int:
        """A number that no other request of this member ever had."""
        self._number += 1
        return self._number

    def ask(self, client: Client, number: int, request: tuple[str, Any]) -> None:
        """A client's request: ("write", commands), ("read", keys) or ("alive", lease)."""
        kind, what = request
        if kind == "write":
            mine = self.number()
            self._asks[mine] = Ask(client, number, len(what))
            self.runtime.step(e.Proposed(mine, what))
        elif kind == "read":
            self._read(client, number, request)
        else:
            self.keep_alive(client, number, what)

    def _read(self, client: Client, number: int, request: Any) -> None:
        mine = self.number()
        self._reads[mine] = (client, number, request)
        self.runtime.step(e.ReadAsked(mine))

    # -- writes --------------------------------------------------------------------------------------

    def accepted(self, effect: e.Accepted) -> None:
        """The commands stand in the leader's log; their results come when they are applied."""
        ask = self._asks.pop(effect.id, None)
        if ask is not None:
            for place in range(len(ask.results)):
                self.waiting[effect.index + place] = (effect.term, ask, place)

    def refused(self, effect: e.Refused) -> None:
        """Not begun."""
        found = self._asks.pop(effect.id, None) or self._reads.pop(effect.id, None)
        if isinstance(found, Ask):
            self.host.cluster.reply(self.host, found.client, found.number, ("refused", effect.leader))
        elif found is not None:
            self.host.cluster.reply(self.host, found[0], found[1], ("refused", effect.leader))
        else:
            self._ending = {lease: n for lease, n in self._ending.items() if n != effect.id}

    def settle(self, entry: Entry, result: int) -> None:
        """An entry that somebody waits for was applied, or another one in its place."""
        term, ask, place = self.waiting.pop(entry.index)
        if term != entry.term:
            self.host.cluster.reply(self.host, ask.client, ask.number, ("refused", ""))
            return
        ask.results[place] = result
        ask.left -= 1
        if ask.left == 0:
            self.host.cluster.reply(self.host, ask.client, ask.number, ("done", ask.results))

    # -- reads ---------------------------------------------------------------------------------------

    def read_ready(self, effect: e.ReadReady) -> None:
        """The read may be answered from a state that has applied at least `index`."""
        read = self._reads.pop(effect.id)
        if self.runtime.state.applied >= effect.index:
            self._answer(read)
        else:
            heapq.heappush(self._late, (effect.index, effect.id, read))

    def caught_up(self) -> None:
        """The state went on: reads that waited for it are answered."""
        while self._late and self._late[0][0] <= self.runtime.state.applied:
            self._answer(heapq.heappop(self._late)[2])

    def _answer(self, read: tuple[Client, int, Any]) -> None:
        client, number, (kind, what) = read
        state = self.runtime.state
        if kind == "read":
            values = [state.get(key) for key in what]
            self.host.cluster.reply(self.host, client, number, ("read", state.applied, values))
        else:
            self._extend(client, number, *what)

    # -- leases --------------------------------------------------------------------------------------

    def keep_alive(self, client: Client, number: int, lease: int) -> None:
        """Only a leader that a majority has just confirmed may say that a lease goes on."""
        machine = self.runtime.machine
        if machine.role is not e.Role.LEADER:
            self.host.cluster.reply(self.host, client, number, ("refused", machine.leader))
            return
        self._read(client, number, ("extend", (lease, self.host.clock(), machine.term)))

    def _extend(self, client: Client, number: int, lease: int, came: float, term: Term) -> None:
        machine = self.runtime.machine
        if machine.role is not e.Role.LEADER or machine.term != term:
            answer: tuple[Any, ...] = ("refused", machine.leader)
        elif lease not in self.runtime.state.leases or lease in self._ending:
            answer = ("over",)
        else:
            self._leases[lease] = max(self._leases.get(lease, 0.0), came + TTL_S)
            answer = ("alive",)
        self.host.cluster.reply(self.host, client, number, answer)

    def term_begun(self, term: Term) -> None:
        """The first entry of a term was applied; its leader gives every lease its whole time anew."""
        machine = self.runtime.machine
        if machine.role is e.Role.LEADER and machine.term == term:
            self._leases = dict.fromkeys(self.runtime.state.leases, self.host.clock() + TTL_S)
            self._ending = {}
            self._sweeps += 1
            self._sweep(term, self._sweeps)

    def _sweep(self, term: Term, sweep: int) -> None:
        """The leader ends what nobody kept alive, by an entry of the log."""
        machine, runtime = self.runtime.machine, self.runtime
        if machine.role is not e.Role.LEADER or machine.term != term or sweep != self._sweeps:
            return
        now = self.host.clock()
        for lease in [*runtime.state.leases]:
            if self._leases.setdefault(lease, now + TTL_S) < now and lease not in self._ending:
                mine = self.number()
                self._ending[lease] = mine
                runtime.step(e.Proposed(mine, (e.Command(expiring(lease)),)))
        cluster = self.host.cluster
        cluster.at(cluster.now + SWEEP_S, runtime.enter, self._sweep, term, sweep)

    def became(self, effect: e.Became) -> None:
        """Who no longer leads has no leases to look after."""
        if effect.role is not e.Role.LEADER:
            self._leases, self._ending = {}, {}
