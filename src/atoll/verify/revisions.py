"""Revisions: judges a store's history by the numbers the store itself gave out.

Every answer says which line of the ledger it is of. So nothing has to be guessed: sort by that number,
replay, and each answer must be what the ledger says; and the numbers must respect the clock on the wall:
what was asked after an answer may not be of an earlier line.

Source: Herlihy and Wing, "Linearizability", 1990, with the witness given; etcd's robustness tests.
Departure: the whole store, transactions and ranges included, instead of one key at a time; O(n log n).
A write without an answer is placed by its value, so the values of such writes must be unique.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

from atoll.ports.register import Applied, Entry, Got, Unmet
from atoll.ports.store import Put, Ranged, StoreClaims
from atoll.verify.history import Call, History, Type
from atoll.verify.judgement import Findings, Judgement
from atoll.verify.lease_book import LeaseBook
from atoll.verify.replay import Replay, Write, below
from atoll.verify.streams import Streams

_ASKS = ("transact", "get", "range")


def judge(history: History, *, claims: StoreClaims | None = None, late_slack_s: float = 0.5) -> Judgement:
    """Whether every answer in `history` is that of one store with one line per transaction.

    The history must hold every write to the keys it reads, from their first; keys of others may change the
    revision in between. With `claims`, leases are also held to what the engine claims of their end, with
    `late_slack_s` for a busy machine. Answers NOT_KNOWN for a history that was cut short or saw nothing.
    """
    return Revisions(history, claims, late_slack_s).judge()


class Revisions:
    """One judging: gather, place what had no answer, hold against real time, replay."""

    def __init__(self, history: History, claims: StoreClaims | None, late_slack_s: float) -> None:
        self.history = history
        self.findings = Findings()
        late = inf if claims is None else claims.expiry_late_max_s + late_slack_s
        early = claims is None or claims.never_early
        self.leases = LeaseBook(self.findings, never_early=early, late_max_s=late)
        self.replay = Replay(self.findings, self.leases)
        self.streams = Streams(self.findings, self.replay)
        self.writes: dict[int, Write] = {}
        self.reads: list[Call] = []
        self.unknown: dict[tuple[str, bytes], list[Call]] = {}
        self.failed: dict[tuple[str, bytes], Call] = {}
        self.placed: dict[int, Write] = {}
        self.requests: dict[str, Call] = {}
        self.replayed: list[Call] = []
        self.unknown_writes = 0

    def judge(self) -> Judgement:
        """The whole of it."""
        for call in self.history.calls:
            self._gather(call)
        self.leases.finish()
        self._replays()
        for call in self.reads:
            for entry in sighted(call):
                self._place(entry, call)
        for write in list(self.writes.values()):
            for result in write.results or ():
                if result is not None and result.revision != write.revision:
                    self._place(result, write.call)
        self._unplaced()
        self._real_time()
        self._replay()
        counts = {
            "calls": len(self.history.calls),
            "writes": len(self.writes),
            "reads": len(self.reads),
            "without answer": self.unknown_writes,
            "of them seen": len(self.placed),
            "leases ended": len(self.leases.ended_at),
            "stream items": self.streams.items,
        }
        blind = "nothing was written and read" if not (self.writes and self.reads) else ""
        return self.findings.judge(
            counts, blind="the history was cut short" if self.history.truncated else blind
        )

    # -- gather ------------------------------------------------------------------------------------

    def _gather(self, call: Call) -> None:
        if call.f == "transact":
            self._gather_transaction(call)
        elif call.f in ("get", "range", "observation", "change"):
            if call.type is Type.OK:
                self.reads.append(call)
        else:
            self.leases.read(call)

    def _gather_transaction(self, call: Call) -> None:
        puts = [op for op in call.asked.then if isinstance(op, Put)]
        if call.type is Type.FAIL:
            self.leases.read(call)
            for op in puts:
                self.failed.setdefault((op.key, op.value), call)
        elif call.type is Type.INFO:
            self.unknown_writes += bool(call.asked.then)
            for op in puts:
                self.unknown.setdefault((op.key, op.value), []).append(call)
        elif isinstance(call.answer, Applied) and call.answer.replayed:
            self.replayed.append(call)
        elif isinstance(call.answer, Applied) and (puts or any(call.answer.results)):
            self._gather_write(call, call.answer)
        else:
            for op in puts:
                self.failed.setdefault((op.key, op.value), call)
            self.reads.append(call)

    def _gather_write(self, call: Call, answer: Applied) -> None:
        if (other := self.writes.get(answer.revision)) is not None:
            self.findings.add(
                "revision reused",
                f"two transactions with revision {answer.revision}",
                "each transaction to have its own",
                other.call,
                call,
            )
            return
        self.writes[answer.revision] = Write(answer.revision, call, answer.results)
        if (request := call.asked.request_id) is not None:
            if request in self.requests:
                self.findings.add(
                    "request applied twice",
                    f"request_id {request!r} applied again at revision {answer.revision}",
                    "the first outcome, replayed",
                    self.requests[request],
                    call,
                )
            self.requests[request] = call

    def _replays(self) -> None:
        by_request = {c.asked.request_id: c for calls in self.unknown.values() for c in calls}
        for call in self.replayed:
            revision = call.answer.revision
            first = self.requests.get(call.asked.request_id)
            if first is None and (lost := by_request.get(call.asked.request_id)) is not None:
                self._at(revision, lost)
            elif first is None or first.answer.revision != revision:
                self.findings.add(
                    "replay of nothing", f"a replay at revision {revision}", "the first outcome", first, call
                )

    # -- place what had no answer --------------------------------------------------------------------

    def _place(self, entry: Entry, call: Call) -> None:
        if entry.revision in self.writes:
            return
        name = (entry.key, entry.value)
        candidates = self.unknown.get(name, [])
        for candidate in candidates:
            if id(candidate) not in self.placed:
                self._at(entry.revision, candidate)
                return
        if candidates:
            rule, found, cause = "applied twice", "a second revision of a single write", candidates[0]
        elif name in self.failed:
            rule, found, cause = (
                "not applied, yet seen",
                "the value of a write said not to have happened",
                None,
            )
            cause = self.failed[name]
        else:
            rule, found, cause = "value from nowhere", "a value that nobody wrote", None
            cause = next(
                (w.call for w in self.writes.values() if (entry.key, entry.value) in puts_of(w.call)), None
            )
            rule, found = ("wrong revision", "a value under another revision") if cause else (rule, found)
        self.findings.add(
            rule, f"{found}: {entry}", "only what was written, once, as it was answered", cause, call
        )
        self._at(entry.revision, cause if cause is not None else _stranger(entry, call))

    def _at(self, revision: int, call: Call) -> None:
        if revision not in self.writes:
            write = Write(revision, call, None)
            self.writes[revision] = self.placed[id(call)] = write

    def _unplaced(self) -> None:
        for call in self.history.calls:
            if call.f == "transact" and call.type is Type.INFO and id(call) not in self.placed:
                for op in call.asked.then:
                    kind = self.replay.unplaced_puts if isinstance(op, Put) else self.replay.unplaced_deletes
                    kind.setdefault(op.key, []).append(call)

    # -- real time -----------------------------------------------------------------------------------

    def _real_time(self) -> None:
        """Walk the history in its order; `newest` is the greatest revision anybody had been answered."""
        events: list[tuple[int, Call]] = []
        for call in self.history.calls:
            if call.f in _ASKS:
                events.append((call.began, call))
            if call.revision is not None and call.ended is not None:
                events.append((call.ended, call))
        events.sort(key=lambda event: event[0])
        newest, witness = 0, None
        is_write = {id(write.call): revision for revision, write in self.writes.items()}
        for place, call in events:
            if place == call.ended:
                if call.revision is not None and call.revision > newest:
                    newest, witness = call.revision, call
                continue
            mine = is_write.get(id(call))
            if mine is not None:
                if mine <= newest:
                    self._out_of_order(call, mine, newest, witness)
            elif call.type is Type.OK and call.revision is not None and call.revision < newest:
                if not (isinstance(call.answer, Applied) and call.answer.replayed):
                    self._out_of_order(call, call.revision, newest, witness)

    def _out_of_order(self, call: Call, revision: int, newest: int, witness: Call | None) -> None:
        wrote = (isinstance(call.answer, Applied) or call.type is Type.INFO) and bool(call.asked.then)
        self.findings.add(
            "revision not rising with time" if wrote else "stale answer",
            f"an answer of revision {revision}",
            f"{'more than' if wrote else 'at least'} {newest}, answered before it was asked",
            witness,
            call,
        )

    # -- replay --------------------------------------------------------------------------------------

    def _replay(self) -> None:
        events: list[tuple[int, int, int, Any]] = [(r, 0, 0, write) for r, write in self.writes.items()]
        events += [(call.revision or 0, 1, call.began, call) for call in self.reads]
        events.sort(key=lambda event: event[:3])
        known = inf
        for revision, _, _, event in reversed(events):
            call = event.call if isinstance(event, Write) else event
            if not isinstance(event, Write) or event.results is not None:
                known = min(known, call.ended_at)
            self.replay.known_by[revision] = known
        self.streams.open(self.reads)
        for revision, order, _, event in events:
            if order == 0:
                self.streams.wrote(event, self.replay.apply(event))
            else:
                self._read(event, revision)
            if self.replay.touched:
                self.streams.touched(self.replay.touched)
                self.replay.touched = set()

    def _read(self, call: Call, revision: int) -> None:
        replay, answer = self.replay, call.answer
        if isinstance(answer, Got):
            if answer.entry is None:
                replay.absent(call.asked, revision, call)
            else:
                replay.present(call.asked, answer.entry, revision, call)
        elif isinstance(answer, Ranged):
            self._range(call, answer)
        elif isinstance(answer, Unmet):
            self._unmet(call, answer)
        elif call.f == "observation":
            self.streams.observation(call)
        elif call.f == "change":
            self.streams.change(call)
        elif isinstance(answer, Applied):
            for compare in call.asked.compare:
                replay.compare(compare, revision, call)
            for op in call.asked.then:
                replay.absent(op.key, revision, call)

    def _unmet(self, call: Call, answer: Unmet) -> None:
        for key, entry in answer.entries.items():
            if entry is None:
                self.replay.absent(key, answer.revision, call)
        for key, entry in answer.entries.items():
            if entry is not None:
                self.replay.present(key, entry, answer.revision, call)
        if all(c.key in answer.entries and c.holds(answer.entries[c.key]) for c in call.asked.compare):
            self.findings.add(
                "refused without a reason", f"{answer}", "one comparison at least that does not hold", call
            )

    def _range(self, call: Call, answer: Ranged) -> None:
        asked, keys = call.asked, [entry.key for entry in answer.entries]
        low, high = below(asked.prefix)
        low, high = max(low, asked.start or ""), high if asked.end is None else min(high, asked.end)
        if sorted(set(keys)) != keys or len(keys) > asked.limit or any(not low <= k < high for k in keys):
            self.findings.add(
                "range",
                f"the keys {keys[:20]}",
                f"at most {asked.limit} keys, rising, within {low!r}...",
                call,
            )
        if answer.more and keys:
            high = keys[-1] + "\0"
        self.replay.span(low, high, {entry.key: entry for entry in answer.entries}, answer.revision, call)


def sighted(call: Call) -> Iterable[Entry]:
    """Every entry that an answer shows."""
    answer = call.answer
    if isinstance(answer, Got):
        return () if answer.entry is None else (answer.entry,)
    if isinstance(answer, Ranged):
        return answer.entries
    if isinstance(answer, Unmet):
        return [entry for entry in answer.entries.values() if entry is not None]
    return () if isinstance(answer, Applied) else answer.changed


def puts_of(call: Call) -> set[tuple[str, bytes]]:
    """The keys and values a transaction puts."""
    return {(op.key, op.value) for op in call.asked.then if isinstance(op, Put)}


def _stranger(entry: Entry, call: Call) -> Call:
    """A write nobody is known to have made, so that the rest of the history can still be judged."""
    from atoll.verify.history import Transaction

    asked = Transaction((Put(entry.key, entry.value, entry.lease),))
    return Call("nobody", "transact", asked, call.began, call.began_at)
