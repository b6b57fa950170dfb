"""One SWIM machine at a table: asked in words, answering in words; the others are played by the story."""

from __future__ import annotations

from typing import Any

from atoll.algorithms.swim import events as ev
from atoll.algorithms.swim import messages as ms
from atoll.algorithms.swim.machine import Swim
from atoll.algorithms.swim.settings import Settings


class FixedDice:
    """Chance that always says the same: the middle of what is left."""

    def random(self) -> float:
        return 0.5


QUIET = {
    "gossip_interval_s": 10_000.0,
    "sync_interval_s": 1_000_000.0,
    "reconnect_interval_s": 1_000_000.0,
    "stream_probe": False,
}
"""What a story does not speak of stays silent, unless it asks for it."""


class Table:
    """`me` is the machine; every other name is its own address, and its uid is a letter's number."""

    def __init__(self) -> None:
        self.now = 0.0
        self.machine = self._machine(Settings())

    def _machine(self, settings: Settings) -> Swim:
        return Swim(
            "me", "me", uid=uid_of("me"), dice=FixedDice(), now=self.now, metadata=b"", settings=settings
        )

    def __call__(self, words: list[str]) -> list[str]:
        match words:
            case ["settings", *pairs]:
                given: dict[str, Any] = dict(QUIET)
                for pair in pairs:
                    name, value = pair.split("=")
                    given[name] = value == "yes" if value in ("yes", "no") else float(value)
                for name in ("indirect", "confirmations", "health_max", "gossip_fanout", "packet_bytes_max"):
                    if name in given:
                        given[name] = int(given[name])
                self.machine = self._machine(Settings(**given))
                return [f"first step at {self.machine.deadline:g}"]
            case ["time", when]:
                return self._until(float(when))
            case ["members"]:
                return [self._shown(member) for member in self.machine.members()]
            case ["who", name]:
                member = self.machine.member(name)
                return [self._shown(member) if member else f"{name} is not known"]
            case ["health"]:
                return [str(self.machine.status().health)]
            case ["incarnation"]:
                return [str(self.machine.status().incarnation)]
            case ["hear", sender, *rest]:
                body, updates = split(rest)
                return self._step(ev.Received(sender, ms.Packet(sender, body, updates)))
            case ["asked", sender, "ping", target]:
                return self._step(ev.Asked(1, ms.Letter(sender, ms.Ping(7, target))))
            case ["asked", sender, *rest]:
                return self._step(ev.Asked(1, ms.Letter(sender, ms.Sync(split(rest)[1]))))
            case ["answered", number, sender, "ack", seq]:
                return self._step(ev.Answered(int(number), ms.Letter(sender, ms.Ack(int(seq)))))
            case ["answered", number, sender, *rest]:
                return self._step(ev.Answered(int(number), ms.Letter(sender, ms.Sync(split(rest)[1]))))
            case ["unanswered", number]:
                return self._step(ev.Unanswered(int(number)))
            case ["join", *seeds]:
                return self._step(ev.JoinAsked(tuple(seeds)))
            case ["leave"]:
                return self._step(ev.LeaveAsked())
            case ["metadata", data]:
                return self._step(ev.MetadataSet(data.encode()))
        raise AssertionError(f"no such command: {words}")

    def _step(self, event: ev.Event) -> list[str]:
        return [shown(effect) for effect in self.machine.step(event, self.now)]

    def _until(self, when: float) -> list[str]:
        """Let time pass, each deadline met; or sleep through it all, where the story says so."""
        lines = []
        while (due := self.machine.deadline) is not None and due <= when:
            self.now = max(self.now, due)
            lines += [f"{self.now:g}  {line}" for line in self._step(ev.Elapsed())]
        self.now = when
        return lines

    @staticmethod
    def _shown(member: ev.Member) -> str:
        metadata = f" {member.metadata.decode()}" if member.metadata else ""
        return f"{member.name} {member.state.name.lower()} {member.incarnation}{metadata}"


class Sleeper(Table):
    """The same, but its process sleeps through `time` and hears of it afterwards."""

    def _until(self, when: float) -> list[str]:
        self.now = when
        due = self.machine.deadline
        return self._step(ev.Elapsed()) if due is not None and due <= when else []


def uid_of(name: str) -> int:
    return sum(map(ord, name))


def split(words: list[str]) -> tuple[Any, tuple[ms.Update, ...]]:
    """A body first, if there is one; then updates, parted by commas."""
    body: Any = None
    match words:
        case ["ping", seq, target, *rest]:
            body, words = ms.Ping(int(seq), target), rest
        case ["ping-request", seq, target, *rest]:
            body, words = ms.PingRequest(int(seq), target, target), rest
        case ["ack", seq, *rest]:
            body, words = ms.Ack(int(seq)), rest
        case ["nack", seq, *rest]:
            body, words = ms.Nack(int(seq)), rest
    parts = [part.split() for part in " ".join(words).split(",") if part.strip()]
    return body, tuple(map(update, parts))


def update(words: list[str]) -> ms.Update:
    kind, name, incarnation, *rest = words
    uid = uid_of(name)
    if rest and rest[-1].startswith("run"):
        uid += int(rest.pop().removeprefix("run"))
    match kind:
        case "claim":
            return ms.Claim(name, uid, int(incarnation), name, b"", uid_of(rest[1]))
        case "alive":
            return ms.Alive(name, uid, int(incarnation), name, rest[0].encode() if rest else b"")
        case "suspect":
            return ms.Suspect(name, uid, int(incarnation), rest[1])
        case "confirm":
            return ms.Confirm(name, uid, int(incarnation), rest[1])
        case "leave":
            return ms.Leave(name, uid, int(incarnation))
    raise AssertionError(f"no such update: {words}")


def said(one: ms.Update) -> str:
    run = f" run{one.uid - uid_of(one.name)}" if one.uid != uid_of(one.name) else ""
    match one:
        case ms.Claim(against=rival):
            return f"claim {one.name} {one.incarnation} against run{rival - uid_of(one.name)}{run}"
        case ms.Alive():
            metadata = f" {one.metadata.decode()}" if one.metadata else ""
            return f"alive {one.name} {one.incarnation}{metadata}{run}"
        case ms.Suspect():
            return f"suspect {one.name} {one.incarnation} by {one.by}{run}"
        case ms.Confirm():
            return f"confirm {one.name} {one.incarnation} by {one.by}{run}"
        case ms.Leave():
            return f"leave {one.name} {one.incarnation}{run}"


def shown(effect: ev.Effect) -> str:
    match effect:
        case ev.Send(address, packet):
            words = [body(packet.body)] if packet.body is not None else []
            words += [", ".join(map(said, packet.updates))] if packet.updates else []
            return f"to {address}: {'; '.join(words)}"
        case ev.Ask(number, address, letter):
            return f"stream {number} to {address}: {stream(letter)}"
        case ev.Answer(number, letter):
            return f"on stream {number}: {stream(letter)}"
        case ev.Introduced(address):
            return f"** introduced by {address}"
        case ev.Departed():
            return "** departed"
        case ev.NameTaken(member):
            return f"** name taken by {member.address or 'another'}"
        case _:
            return f"** {effect.member.name} {type(effect).__name__.lower()}"


def body(one: ms.Body) -> str:
    match one:
        case ms.Ping(seq, target):
            return f"ping {seq} {target}"
        case ms.PingRequest(seq, target, _):
            return f"ping-request {seq} {target}"
        case ms.Ack(seq):
            return f"ack {seq}"
        case ms.Nack(seq):
            return f"nack {seq}"


def stream(letter: ms.Letter) -> str:
    if isinstance(letter.body, ms.Sync):
        told = ", ".join(map(said, letter.body.updates))
        return f"{'join' if letter.body.join else 'list'}: {told}"
    return body(letter.body)
