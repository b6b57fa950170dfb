"""A table at which Paxos is played by hand: every letter lies there until somebody delivers it.

jury|log|register NAMES...   who sits at it
propose NAME VALUE           a proposer with a value; for a log, a command for a member
change NAME WORD             a client who appends a word to the register
wake NAME                    its deadline has come
deliver FROM TO [WORD]       what lies there from one to the other, in order; `*` is everybody
lose FROM TO                 the same, thrown away
double FROM TO               the same, once more
everything                   all letters, until there are none
slow NAME / disk NAME        its writes wait / are done
crash NAME                   it starts again with what was written
show                         what is written
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from atoll.algorithms import caspaxos, paxos
from atoll.algorithms.multi_paxos import member as multi
from atoll.algorithms.multi_paxos import messages as words

STEPS_MAX = 500


class Table:
    """One game. The kinds may be broken ones, to see what a story makes of them."""

    def __init__(
        self,
        *,
        member: type[multi.Member] = multi.Member,
        proposer: type[paxos.Proposer[str]] = paxos.Proposer,
        keep: Callable[[Any], Any] = lambda durable: durable,
        quorum: int = 0,
    ) -> None:
        self.member, self.proposer, self.keep, self.quorum = member, proposer, keep, quorum
        self.kind = ""
        self.names: list[str] = []
        self.machines: dict[str, Any] = {}
        self.disks: dict[str, Any] = {}
        self.letters: list[tuple[str, str, Any]] = []
        self.writes: dict[str, list[Any]] = {}
        self.slow: set[str] = set()
        self.applied: dict[int, set[Any]] = {}
        self.now = 0.0
        self.said: list[str] = []

    @property
    def safe(self) -> bool:
        """Nobody has learnt two different things."""
        return all(len(values) == 1 for values in self.applied.values())

    def __call__(self, command: list[str]) -> list[str]:
        self.said = []
        match command:
            case ["jury" | "log" | "register" as kind, *names]:
                self.kind, self.names = kind, names
                for name in names:
                    self.disks[name] = words.Durable() if kind == "log" else paxos.Cell()
                    self.bear(name)
            case ["propose", name, value] if self.kind == "log":
                self.feed(name, words.Proposed(1, value.encode()))
            case ["propose", name, value]:
                one = self.proposer(name, self.names, value, dice=random.Random(1), now=self.now)
                one.quorum = one._learner.quorum = self.quorum or one.quorum
                self.machines[name] = one
                self.feed(name, paxos.Elapsed())
            case ["change", name, word]:
                self.machines[name] = caspaxos.Proposal(
                    caspaxos.Counter(name),
                    caspaxos.Quorums.of(self.names),
                    lambda old: word if old is None else old if word in old.split("+") else f"{old}+{word}",
                    dice=random.Random(1),
                    now=self.now,
                )
                self.feed(name, paxos.Elapsed())
            case ["wake", name]:
                self.now = max(self.now, self.machines[name].deadline)
                self.feed(name, paxos.Elapsed())
            case [("deliver" | "lose" | "double") as how, sender, to, *of]:
                self.post(how, sender, to, *of)
            case ["everything"]:
                for _ in range(STEPS_MAX):
                    if not self.letters:
                        break
                    self.carry(self.letters.pop(0))
            case ["slow", name]:
                self.slow.add(name)
            case ["disk", name]:
                for write in self.writes.pop(name, []):
                    self.written(name, write)
            case ["crash", name]:
                self.writes.pop(name, None)
                self.bear(name)
            case ["show"]:
                self.said = [f"{name}: {shown(disk)}" for name, disk in self.disks.items()]
            case _:
                raise AssertionError(f"no such command: {command}")
        return self.said

    def bear(self, name: str) -> None:
        disk = self.keep(self.disks[name])
        if self.kind == "jury":
            self.machines[name] = paxos.Acceptor(cell=disk)
        elif self.kind == "log":
            one = self.member(
                name, self.names, dice=random.Random(1), now=self.now, durable=disk,
                settings=words.Settings(window=3),
            )  # fmt: skip
            one.quorum = self.quorum or one.quorum
            self.machines[name] = one
        else:
            self.disks[name] = disk

    def post(self, how: str, sender: str, to: str, word: str = "") -> None:
        mine = [one for one in self.letters if one[0] in (sender, one[0] if sender == "*" else "")]
        mine = [one for one in mine if one[1] in (to, one[1] if to == "*" else "")]
        mine = [one for one in mine if word in shown(one[2])]
        if how != "double":
            self.letters = [one for one in self.letters if not any(one is other for other in mine)]
        for letter in mine:
            if how == "lose":
                self.said.append(f"lost: {letter[0]} to {letter[1]}: {shown(letter[2])}")
            else:
                self.carry(letter)

    def carry(self, letter: tuple[str, str, Any]) -> None:
        sender, to, message = letter
        self.said.append(f"{sender} to {to}: {shown(message)}")
        if to in self.machines:
            kind = words.Received if self.kind == "log" else paxos.Received
            self.feed(to, kind(sender, message))
        elif to in self.disks:  # a register's acceptor: the rule, durable at once
            cell = self.disks[to]
            if isinstance(message, paxos.Prepare):
                self.disks[to], reply = paxos.promise(cell, message.ballot)
            else:
                self.disks[to], reply = paxos.accept(cell, message.ballot, message.value)
            self.letters.append((to, sender, reply))

    def feed(self, name: str, event: Any) -> None:
        for effect in self.machines[name].step(event, self.now):
            match effect:
                case words.Send(to, message) | paxos.Send(to, message):
                    self.letters.append((name, to, message))
                case words.Write() | paxos.Write():
                    if name in self.slow:
                        self.writes.setdefault(name, []).append(effect)
                    else:
                        self.written(name, effect)
                case paxos.Chosen(value) | caspaxos.Changed(value):
                    self.applied.setdefault(0, set()).add(value)
                    self.said.append(f"  {name} learns {value}")
                case words.Apply(slot, value):
                    self.applied.setdefault(slot, set()).add(value)
                    self.said.append(f"  {name} applies {slot}: {text(value)}")
                case words.Placed(_, slot, ballot):
                    self.said.append(f"  {name} places it in {slot} under {shown(ballot)}")
                case words.Refused(_, leader):
                    self.said.append(f"  {name} refuses it; the leader is {leader or 'not known'}")

    def written(self, name: str, write: Any) -> None:
        if isinstance(write, paxos.Write):
            self.disks[name] = write.cell
        else:
            accepted = dict(self.disks[name].accepted)
            if write.vote is not None:
                accepted[write.vote[0]] = write.vote[1:]
            self.disks[name] = words.Durable(write.promised, accepted)
        self.feed(name, paxos.Written(write.seq))


def text(value: Any) -> str:
    return "a stroke" if value is None else value.decode() if isinstance(value, bytes) else str(value)


def shown(thing: Any) -> str:
    """A message or a disk in few words."""
    match thing:
        case paxos.Ballot(round, proposer):
            return f"{round}.{proposer}" if round else "nothing"
        case paxos.Cell(promised, accepted, value):
            return f"promised {shown(promised)}, accepted {shown(accepted)} {value or ''}".rstrip()
        case words.Durable(promised, accepted):
            votes = [f"{slot}: {text(v)} under {shown(b)}" for slot, (b, v) in sorted(accepted.items())]
            return f"promised {shown(promised)}; {', '.join(votes) or 'no votes'}"
        case paxos.Prepare(ballot):
            return f"prepare {shown(ballot)}"
        case paxos.Promised(ballot, accepted, value):
            return f"promised {shown(ballot)}, accepted {shown(accepted)} {value or ''}".rstrip()
        case paxos.Accept(ballot, value):
            return f"accept {value} under {shown(ballot)}"
        case paxos.Accepted(ballot, value):
            return f"accepted {value} under {shown(ballot)}"
        case paxos.Overtaken(ballot, promised):
            return f"not {shown(ballot)}, promised {shown(promised)}"
        case words.Prepare(ballot, low):
            return f"prepare {shown(ballot)} from {low} on"
        case words.Promised(ballot, votes):
            told = [f"{slot}: {text(v)} under {shown(b)}" for slot, b, v in votes]
            return f"promised {shown(ballot)}; {', '.join(told) or 'no votes'}"
        case words.Accept(ballot, slot, value):
            return f"accept {slot}: {text(value)} under {shown(ballot)}"
        case words.Accepted(ballot, slot):
            return f"accepted {slot} under {shown(ballot)}"
        case words.Beat(ballot, decided):
            return f"beat {shown(ballot)}, decided up to {decided}"
        case words.Ask(low):
            return f"ask from {low} on"
        case words.Decided(low, values):
            return f"decided from {low} on: {', '.join(map(text, values))}"
    raise AssertionError(thing)
