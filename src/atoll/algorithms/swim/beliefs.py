"""Beliefs: what becomes of a word that is heard, of another or of oneself.

A word that is news is believed, told on, and followed by what it calls for: a suspicion starts a clock, a
sign of life stops it. A bad word about oneself is answered by a louder "I am here".

Source: Das, Gupta and Motivala, SWIM (2002), section 4.2. Dadgar, Phillips and Currey, Lifeguard (2018),
Local Health Aware Suspicion: the first few independent suspicions are told on, later ones are not.
Departure: what a list from a meeting says failed is only suspected first, so that two halves that meet after
a partition do not bury each other. Who has heard nothing from anybody since a suspicion began condemns in
silence: it may be deaf, and would be believed. An old word against oneself, still about, is answered again.
One name in two processes: each claims it against the other, by number; who is answered so knows that the
other lives, and goes. Old words of an earlier run of this process name nobody, and are only outbid.
"""

from __future__ import annotations

from atoll.algorithms.swim import events
from atoll.algorithms.swim.local import Local, Timer
from atoll.algorithms.swim.members import Record, merge, told
from atoll.algorithms.swim.messages import (
    INCARNATION_MAX,
    Address,
    Alive,
    Claim,
    Confirm,
    Leave,
    Name,
    State,
    Suspect,
    Update,
)
from atoll.algorithms.swim.suspicion import Suspicion

CONTESTED_MAX = 64


class Beliefs:
    """The member's own word, and what it makes of the words of others."""

    def __init__(self, local: Local, address: Address, uid: int, metadata: bytes) -> None:
        self._local = local
        self._address, self.uid, self._metadata = address, uid, metadata
        self.incarnation = 0
        self.left = self.taken = False
        self._suspicions: dict[Name, Suspicion] = {}
        self._outbid: dict[int, None] = {}
        """Other processes with this name, against which this one has claimed it."""
        self._against = 0

    # -- of oneself ------------------------------------------------------------------------------------

    def announce(self) -> None:
        """Say "I am here" at the present incarnation."""
        local = self._local
        said = (local.me, self.uid, self.incarnation, self._address, self._metadata)
        mine = Claim(*said, against=self._against) if self._against else Alive(*said)
        local.members.put(merge(None, mine, local.now))
        local.spread(mine)

    def describe(self, metadata: bytes) -> None:
        """New metadata, under a new incarnation."""
        self._metadata = metadata
        self.incarnation += 1
        self.announce()

    def leave(self) -> None:
        """Say "I go"."""
        self.left = True
        local = self._local
        word = Leave(local.me, self.uid, self.incarnation)
        local.members.put(merge(local.members.get(local.me), word, local.now))
        local.spread(word)

    def _hear_of_me(self, word: Update) -> None:
        if self.left or word.incarnation >= INCARNATION_MAX - 1:
            return
        if word.uid != self.uid:
            self._meet_rival(word)
        elif word.incarnation > self.incarnation or (
            word.incarnation == self.incarnation and not isinstance(word, Alive)
        ):
            if not isinstance(word, Alive):
                self._local.health.worse()
            self._outdo(word.incarnation)
        elif not isinstance(word, Alive) and self._local.me not in self._local.news:
            self.announce()

    def _meet_rival(self, word: Update) -> None:
        if (word.incarnation, word.uid) < (self.incarnation, self.uid):
            return
        if isinstance(word, Claim) and word.against == self.uid and word.uid in self._outbid:
            self.taken = True
            rival = merge(None, word, self._local.now).member()
            self._local.out.append(events.NameTaken(rival))
            return
        if len(self._outbid) == CONTESTED_MAX:
            self._outbid.clear()
        self._outbid[word.uid] = None
        self._against = word.uid
        self._outdo(word.incarnation)

    def _outdo(self, incarnation: int) -> None:
        self.incarnation = incarnation + 1
        self.announce()

    # -- of others -------------------------------------------------------------------------------------

    def hear(self, word: Update, *, tell: bool = True) -> None:
        """One word of gossip, or of this member's own probes and clocks; told on, unless `tell` says no."""
        local = self._local
        if word.name == local.me:
            self._hear_of_me(word)
            return
        before = local.members.get(word.name)
        if before is None and len(local.members) >= local.settings.members_max:
            return
        after = merge(before, word, local.now)
        if after is before:
            if isinstance(word, Suspect):
                self._confirm(word)
            return
        local.members.put(after)
        local.out.extend(told(before, after))
        self._follow(before, after, word)
        if not tell:
            local.news.drop(word.name)
        elif before is None or after.order > before.order or word.name not in local.news:
            local.spread(word)

    def hear_list(self, words: tuple[Update, ...]) -> None:
        """A whole list, from a meeting; what it says is gone may be old, or only gone from there."""
        for word in words:
            if isinstance(word, Confirm | Leave) and word.name != self._local.me:
                known = self._local.members.get(word.name)
                if known is None:
                    continue
                if isinstance(word, Confirm) and known.living:
                    word = Suspect(word.name, word.uid, word.incarnation, word.by)
            self.hear(word)

    def _follow(self, before: Record | None, after: Record, word: Update) -> None:
        """What a changed belief calls for."""
        local, name = self._local, after.name
        if after.state is State.SUSPECT and after.visible:
            if name not in self._suspicions or before is None or before.order != after.order:
                by = word.by if isinstance(word, Suspect) else ""
                self._suspicions[name] = Suspicion(by, local.now, local.settings, local.members.living)
                local.timers.set(Timer("suspect", name), self._suspicions[name].due)
        elif self._suspicions.pop(name, None) is not None:
            local.timers.drop(Timer("suspect", name))
        if after.living:
            local.timers.drop(Timer("forget", name))
        elif before is None or before.living or before.order != after.order:
            local.after(local.settings.remember_s, "forget", name)

    def _confirm(self, word: Suspect) -> None:
        """One more voice: the clock runs faster, and the first few are told on."""
        local = self._local
        suspicion, record = self._suspicions.get(word.name), local.members.get(word.name)
        if suspicion is None or record is None:
            return
        if (word.incarnation, word.uid) == (record.incarnation, record.uid) and suspicion.confirm(word.by):
            local.timers.set(Timer("suspect", word.name), suspicion.due)
            local.spread(word)

    def condemn(self, name: Name) -> None:
        """The clock of a suspicion has run out."""
        local = self._local
        record, suspicion = local.members.get(name), self._suspicions.get(name)
        if record is not None and suspicion is not None:
            sure = local.heard > suspicion.began or local.settings.health_max == 1
            self.hear(Confirm(name, record.uid, record.incarnation, local.me), tell=sure)

    def reprieve(self) -> None:
        """Every suspicion gets its shortest time again: this member was not there to hear refutations."""
        local = self._local
        for name, suspicion in self._suspicions.items():
            suspicion.not_before = local.now + suspicion.shortest
            local.timers.set(Timer("suspect", name), suspicion.due)

    def forget(self, name: Name) -> None:
        """It has been gone for long."""
        record = self._local.members.get(name)
        if record is not None and not record.living:
            self._local.members.forget(name)
            self._local.news.drop(name)
