"""State: all that a member knows between two events, and the tray on which its effects are laid.

Figure 2's table, and beside it what an honest table leaves out: what was asked of the disk and is not
answered, and the letters that must wait for it. Nobody may say "I am in term 7" and forget it by falling.

Source: Ongaro and Ousterhout, In Search of an Understandable Consensus Algorithm (2014), figure 2.
Departure: `commit` is not persisted. All messages wait while a new term or vote is on its way to the disk.
"""

from __future__ import annotations

from collections import deque

from atoll.algorithms.raft.events import Became, Dice, Effect, LogView, Role, Send, Write
from atoll.algorithms.raft.leadership import Leadership
from atoll.algorithms.raft.log import Log
from atoll.algorithms.raft.membership import Members, may_vote
from atoll.algorithms.raft.messages import Entry, Index, Kind, Member, Membership, Message, Snapshot, Term
from atoll.algorithms.raft.settings import Settings

HELD_MAX = 256
NEVER = float("-inf")


class Ballot:
    """One attempt to be elected, in `term`; with `pre` only a question."""

    __slots__ = ("forced", "no", "pre", "term", "yes")

    def __init__(self, term: Term, *, pre: bool, forced: bool) -> None:
        self.term = term
        self.pre = pre
        self.forced = forced
        self.yes: set[Member] = set()
        self.no: set[Member] = set()


class Disk:
    """What was asked of the disk. `hard`: the newest write that changed term or vote."""

    __slots__ = ("changed", "hard", "seq", "staged", "waiting", "written")

    def __init__(self) -> None:
        self.seq = self.written = self.hard = 0
        self.changed = False
        self.staged: list[Entry] = []
        self.waiting: deque[tuple[int, float]] = deque()

    @property
    def owes_term(self) -> bool:
        """Whether the present term or vote might be forgotten in a crash."""
        return self.changed or self.written < self.hard

    def owed_since(self) -> float | None:
        """When the oldest unanswered write was asked for."""
        return self.waiting[0][1] if self.waiting else None


class Following:
    """What a follower knows of the leader's log, in one term."""

    __slots__ = ("agreed", "answered", "offset", "receiving", "round", "storing")

    def __init__(self) -> None:
        self.agreed: Index = 0
        """Up to here the log is the leader's, durable or not."""
        self.answered: Index = 0
        """What the leader was last told."""
        self.round = 0
        self.receiving: Snapshot | None = None
        self.offset = 0
        self.storing = False


class State:
    """One member's state. Only the plain functions of this folder change it."""

    __slots__ = (
        "applied",
        "ballot",
        "commit",
        "dice",
        "disk",
        "election_at",
        "failed",
        "following",
        "forwards",
        "heard_at",
        "held",
        "installing",
        "lead",
        "leader",
        "log",
        "me",
        "members",
        "now",
        "out",
        "reported",
        "role",
        "settings",
        "term",
        "vote",
    )

    def __init__(self, me: Member, view: LogView, settings: Settings, dice: Dice) -> None:
        self.me = me
        self.settings = settings
        self.dice = dice
        self.log = Log(view)
        self.disk = Disk()
        self.members: Members
        self.role = Role.FOLLOWER
        self.term: Term = 0
        self.vote: Member = ""
        self.leader: Member = ""
        self.commit: Index = 0
        self.applied: Index = 0
        """Handed out to be applied, up to here."""
        self.reported: Index = 0
        """The state said that it has applied all up to here."""
        self.now = 0.0
        self.election_at = 0.0
        self.heard_at = NEVER
        self.failed = False
        self.installing: Snapshot | None = None
        self.following = Following()
        self.ballot: Ballot | None = None
        self.lead: Leadership | None = None
        self.forwards: dict[int, float] = {}
        """Reads that the leader was asked about, and when."""
        self.held: deque[tuple[Member, Message]] = deque(maxlen=HELD_MAX)
        self.out: list[Effect] = []

    @property
    def membership(self) -> Membership:
        return self.members.current

    @property
    def promotable(self) -> bool:
        return may_vote(self.members.current, self.me)

    def send(self, to: Member, message: Message) -> None:
        """Send, or hold until the term and vote that it speaks of are durable."""
        if self.disk.owes_term:
            self.held.append((to, message))
        else:
            self.out.append(Send(to, message))

    def release(self) -> None:
        """The term is durable: what was held may go. What was held in an earlier term is gone already."""
        held, self.held = self.held, deque(maxlen=HELD_MAX)
        self.out += [Send(to, message) for to, message in held]

    def set_term(self, term: Term, vote: Member) -> None:
        """Both become durable with the next write."""
        assert_never(term < self.term, f"the term goes back from {self.term} to {term}")
        if term != self.term:
            self.following = Following()  # what agreed with one term's leader says nothing of the next one's
        self.term, self.vote = term, vote
        self.disk.changed = True
        self.held.clear()

    def append(self, entries: list[Entry] | tuple[Entry, ...]) -> None:
        """Put `entries` in the place of all from the first one's index on, here and soon on the disk."""
        first = entries[0].index
        if first <= self.log.last:
            assert_never(
                first <= self.commit,
                f"entry {first} would be overwritten, and all up to {self.commit} is committed",
            )
            self.members.truncated(first)
        self.log.append(entries)
        self.disk.staged += entries
        for entry in entries:
            if entry.kind is not Kind.COMMAND:
                self.members.appended(entry)

    def flush(self) -> None:
        """Ask the disk for what this step changed, as one write, before anything else is done."""
        disk = self.disk
        if not disk.changed and not disk.staged:
            return
        disk.seq += 1
        if disk.changed:
            disk.hard = disk.seq
        disk.waiting.append((disk.seq, self.now))
        self.log.writing(disk.seq)
        self.out.insert(0, Write(disk.seq, self.term, self.vote, tuple(disk.staged)))
        disk.changed = False
        disk.staged = []

    def standing(self) -> Became:
        return Became(self.role, self.term, self.leader)


def assert_never(wrong: bool, what: str) -> None:
    """Stop loudly, also where asserts are switched off: going on would lose what was promised."""
    if wrong:
        raise AssertionError(f"{what}; this is a fault of the program or of the disk: stop this member")
