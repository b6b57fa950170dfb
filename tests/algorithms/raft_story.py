"""The language in which the stories of the Raft machine are told.

members a b c           a cluster; `slow` behind it: writes are finished by `write`
joiner d                a member that waits to be added
leader a                a is elected, told in one line; `campaign a`: a's patience is over;
                        a leader's next heartbeat
deliver [a->b ...]      letters arrive, and the letters that follow, all or only these ways
first a->b              one letter of this way arrives
drop [a->b ...]         letters are lost; `double a->b` one arrives now and once more later
cut a b | heal          nothing passes between a and b until `heal`
write a b [n]           these disks finish n writes, all if not said
propose a x y | read a 7 | transfer a b | change a voters a b c learners d
elapse 0.5              time passes; all letters arrive; `rest 0.5`: only changes of role are told
late a 0.1              time passes for all, but only a looks at its clock
crash a | restart a | snapshot a 10 | disk-fails a
log a | status a | others a | applied a
say a->b <message>      a letter that nobody wrote
"""

from __future__ import annotations

from collections.abc import Callable

from raft_cluster import Cluster, Letter

from atoll.algorithms.raft import events as e
from atoll.algorithms.raft import messages as m
from atoll.algorithms.raft.membership import unpack
from atoll.algorithms.raft.settings import Settings

SETTINGS = Settings(
    message_bytes_max=30,
    inflight_messages_max=4,
    inflight_bytes_max=60,
    uncommitted_bytes_max=400,
    chunk_bytes=10,
)
LEASES = Settings(lease_reads=True)


class Table:
    """A cluster, asked in words."""

    def __init__(self) -> None:
        self.cluster = Cluster([])
        self.walls: set[frozenset[str]] = set()
        self.ids = 0
        self.told: list[str] = []

    def __call__(self, words: list[str]) -> list[str]:
        self.told = []
        verb = words[0].replace("-", "_")
        ask: Callable[..., None] | None = getattr(self, f"do_{verb}", None)
        if ask is None:
            raise AssertionError(f"no such command: {words}")
        try:
            ask(*words[1:])
        except AssertionError as error:
            self.told.append(f"STOPS: {error}")
        return self.told

    # -- the stage ------------------------------------------------------------------------------------

    def do_members(self, *names: str) -> None:
        patient = "slow" in names
        settings = LEASES if "leases" in names else SETTINGS
        self.cluster = Cluster([n for n in names if n not in ("slow", "leases")], settings, patient=patient)
        self.walls = set()
        self.listen()

    def do_joiner(self, name: str) -> None:
        self.cluster.add(name)

    def listen(self) -> None:
        """Tell every effect as it is obeyed."""
        obey = self.cluster.obey

        def told(node: object, effect: e.Effect) -> None:
            self.told.append(f"{node.name}: {shown(effect)}")  # type: ignore[attr-defined]
            obey(node, effect)  # type: ignore[arg-type]

        self.cluster.obey = told  # type: ignore[method-assign, assignment]

    def do_cut(self, a: str, b: str) -> None:
        self.walls.add(frozenset((a, b)))

    def do_heal(self) -> None:
        self.walls.clear()

    # -- letters --------------------------------------------------------------------------------------

    def pick(self, ways: tuple[str, ...]) -> list[Letter]:
        """The letters of these ways; those that meet a wall are lost."""
        letters = self.cluster.letters
        blocked = [
            one
            for one in letters
            if frozenset((one.sender, one.to)) in self.walls or one.to not in self.cluster.nodes
        ]
        for one in blocked:
            letters.remove(one)
        return [one for one in letters if not ways or f"{one.sender}->{one.to}" in ways]

    def do_deliver(self, *ways: str) -> None:
        for _ in range(1000):
            found = self.pick(ways)
            if not found:
                return
            self.cluster.deliver(found[0])
        raise AssertionError("the letters do not end")

    def do_first(self, way: str) -> None:
        self.cluster.deliver(self.pick((way,))[0])

    def do_drop(self, *ways: str) -> None:
        for one in self.pick(ways):
            self.cluster.letters.remove(one)

    def do_double(self, way: str) -> None:
        first = self.pick((way,))[0]
        self.cluster.letters.append(Letter(first.sender, first.to, first.message))
        self.cluster.deliver(first)

    def do_say(self, way: str, *words: str) -> None:
        sender, to = way.split("->")
        self.cluster.step(to, e.Received(sender, spoken(list(words))))

    # -- time and disk --------------------------------------------------------------------------------

    def do_campaign(self, name: str) -> None:
        raft = self.cluster.nodes[name].raft
        if raft.role is not e.Role.LEADER:
            raft._state.election_at = self.cluster.now
        self.cluster.now = max(self.cluster.now, raft.deadline)
        self.cluster.step(name, e.Elapsed())

    def do_leader(self, name: str) -> None:
        """Election, one heartbeat and all writes, without the many words of it."""
        cluster = self.cluster
        for _ in range(2):
            self.do_campaign(name)
            while self.pick(()) or any(node.writes for node in cluster.nodes.values()):
                self.do_deliver()
                self.do_write(*cluster.nodes)
        self.told.clear()
        self.do_status(name)

    def do_elapse(self, seconds: str) -> None:
        cluster, end = self.cluster, self.cluster.now + float(seconds)
        while True:
            self.do_deliver()
            soonest = min((n.raft.deadline, name) for name, n in cluster.nodes.items() if n.up)
            if soonest[0] > end:
                break
            cluster.now = max(cluster.now, soonest[0])
            cluster.step(soonest[1], e.Elapsed())
        cluster.now = end

    def do_late(self, name: str, seconds: str) -> None:
        self.cluster.now += float(seconds)
        self.cluster.step(name, e.Elapsed())

    def do_rest(self, seconds: str) -> None:
        self.do_elapse(seconds)
        self.told = [line for line in self.told if ": is " in line]

    def do_write(self, *words: str) -> None:
        count = int(words[-1]) if words[-1].isdigit() else 99
        for name in (word for word in words if not word.isdigit()):
            for _ in range(count):
                if self.cluster.nodes[name].writes:
                    self.cluster.write(name)

    def do_disk_fails(self, name: str) -> None:
        self.cluster.fail_disk(name)

    def do_crash(self, name: str) -> None:
        self.cluster.crash(name)

    def do_restart(self, name: str) -> None:
        self.cluster.restart(name)

    def do_snapshot(self, name: str, size: str = "10") -> None:
        snapshot = self.cluster.snapshot(name, int(size))
        self.told.append(f"{name}: a snapshot of {shown_snapshot(snapshot)}")

    # -- what is asked --------------------------------------------------------------------------------

    def next_id(self) -> int:
        self.ids += 1
        return self.ids

    def do_propose(self, name: str, *data: str) -> None:
        commands = tuple(e.Command(one.encode()) for one in data)
        self.cluster.step(name, e.Proposed(self.next_id(), commands))

    def do_read(self, name: str, id: str) -> None:
        self.cluster.step(name, e.ReadAsked(int(id)))

    def do_transfer(self, name: str, target: str = "") -> None:
        self.cluster.step(name, e.TransferAsked(self.next_id(), target))

    def do_change(self, name: str, *words: str) -> None:
        rest = list(words)
        learners: list[str] = []
        if "learners" in rest:
            learners = rest[rest.index("learners") + 1 :]
            rest = rest[: rest.index("learners")]
        membership = m.Membership(tuple(rest[1:]), tuple(learners))
        self.cluster.step(name, e.ChangeAsked(self.next_id(), membership))

    # -- what is looked at ----------------------------------------------------------------------------

    def do_log(self, name: str) -> None:
        log = self.cluster.nodes[name].raft._state.log
        entries: list[m.Entry] = []
        while log.first + len(entries) <= log.last:
            entries += log.entries(log.first + len(entries), log.last + 1, 1 << 20)
        below = f"snapshot {log.first - 1}; " if log.first > 1 else ""
        self.told.append(f"{name}: {below}{', '.join(shown_entry(one) for one in entries) or 'empty'}")

    def do_applied(self, name: str) -> None:
        told = " ".join(one.decode() for one in self.cluster.commands(name))
        self.told.append(f"{name}: {told or 'nothing'}")

    def do_status(self, name: str) -> None:
        s = self.cluster.nodes[name].raft.status()
        who = f" of {s.leader}" if s.leader and s.leader != name else ""
        self.told.append(
            f"{name}: {s.role.value}{who} in term {s.term}, log {s.first}..{s.last}, durable {s.durable}, "
            f"commit {s.commit}, {shown_membership(s.membership)}"
        )

    def do_others(self, name: str) -> None:
        for other, s in sorted(self.cluster.nodes[name].raft.status().others.items()):
            self.told.append(
                f"{name} of {other}: {s.sending}, match {s.match}, next {s.next}, in flight {s.inflight}"
            )


# -- in words ------------------------------------------------------------------------------------------


def shown(effect: e.Effect) -> str:
    match effect:
        case e.Send(to, message):
            return f"-> {to} {shown_message(message)}"
        case e.Write(seq, term, vote, entries):
            what = f", entries {', '.join(map(shown_entry, entries))}" if entries else ""
            return f"write {seq}: term {term}, vote {vote or 'nobody'}{what}"
        case e.Apply(entries):
            return f"apply {', '.join(map(shown_entry, entries))}"
        case e.SendChunk(to, _, _, snapshot, offset, _):
            return f"-> {to} snapshot {shown_snapshot(snapshot)} from byte {offset}"
        case e.StoreChunk(snapshot, offset, data, done):
            return f"store snapshot {snapshot.index} bytes {offset}..{offset + len(data)}{' (last)' * done}"
        case e.Accepted(_, term, index):
            return f"accepted at {index} in term {term}"
        case e.Refused(_, reason, leader):
            return f"refused, {reason.value}" + (f"; ask {leader}" if leader else "")
        case e.ReadReady(id, index):
            return f"read {id} from {index}"
        case e.Became(role, term, leader):
            return f"is {role.value} in term {term}" + (f", leader {leader}" if leader else "")


def shown_message(message: m.Message) -> str:
    match message:
        case m.VoteRequest(term, index, last_term, pre, forced):
            ask = "would you vote" if pre else "vote"
            return f"{ask} in term {term}? log ends {index}/{last_term}{', handed over' * forced}"
        case m.VoteReply(term, asked, granted, pre):
            word = ("I would" if pre else "yes") if granted else ("I would not" if pre else "no")
            return f"{word} in term {asked} (term {term})"
        case m.Append(term, round, prev, prev_term, commit, entries):
            what = ", ".join(map(shown_entry, entries)) or "nothing"
            return f"append {what} after {prev}/{prev_term}, commit {commit} (term {term}, round {round})"
        case m.AppendReply(term, round, True, match, _, _):
            return f"durable up to {match} (term {term}, round {round})"
        case m.AppendReply(term, round, False, match, index, hint_term):
            return f"lack {match}, try {index}/{hint_term} (term {term}, round {round})"
        case m.Chunk(term, _, snapshot, offset, data, done):
            return f"snapshot {snapshot.index} bytes {offset}..{offset + len(data)} (term {term})"
        case m.ChunkReply(term, _, index, offset, done):
            return f"snapshot {index} {'installed' if done else f'is here up to {offset}'} (term {term})"
        case m.TimeoutNow(term):
            return f"stand at once (term {term})"
        case m.ReadForward(term, id):
            return f"from where may I answer read {id}? (term {term})"
        case m.ReadAnswer(term, id, index):
            return f"read {id} {f'from {index}' if index else 'cannot be said'} (term {term})"


def shown_entry(entry: m.Entry) -> str:
    what = {m.Kind.EMPTY: "empty", m.Kind.COMMAND: entry.data.decode(errors="replace")}.get(entry.kind)
    return f"{entry.index}/{entry.term} {what or shown_membership(unpack(entry.data))}"


def shown_membership(membership: m.Membership) -> str:
    leaving = f" leaving[{' '.join(membership.outgoing)}]" if membership.outgoing else ""
    learning = f" learners[{' '.join(membership.learners)}]" if membership.learners else ""
    return f"voters[{' '.join(membership.voters)}]{leaving}{learning}"


def shown_snapshot(snapshot: m.Snapshot) -> str:
    return f"{snapshot.index}/{snapshot.term} {shown_membership(snapshot.membership)}"


def spoken(words: list[str]) -> m.Message:
    """`append 2 after 3/1 commit 3 4/2:x 5/2:y`, `vote 3 log 4/2`, `would 3 log 4/2`, `reply 2 5 round 1`."""
    match words:
        case ["append", term, "after", prev, "commit", commit, *entries]:
            index, prev_term = prev.split("/")
            return m.Append(
                int(term), 1, int(index), int(prev_term), int(commit), tuple(map(spoken_entry, entries))
            )
        case ["vote" | "would" as kind, term, "log", last, *rest]:
            index, last_term = last.split("/")
            return m.VoteRequest(int(term), int(index), int(last_term), kind == "would", "forced" in rest)
        case ["yes", term]:
            return m.VoteReply(int(term), int(term), True)
        case ["durable", match, "term", term, "round", round]:
            return m.AppendReply(int(term), int(round), True, int(match))
        case ["answer", id, index, "term", term]:
            return m.ReadAnswer(int(term), int(id), int(index))
        case ["read", id, "term", term]:
            return m.ReadForward(int(term), int(id))
        case ["stand", term]:
            return m.TimeoutNow(int(term))
    raise AssertionError(f"no such message: {words}")


def spoken_entry(word: str) -> m.Entry:
    place, data = word.split(":")
    index, term = place.split("/")
    return m.Entry(int(term), int(index), m.Kind.COMMAND, data.encode())
