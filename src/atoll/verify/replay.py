"""Replay: a store with one line per transaction, against which every sighting is held.

A court reporter reads the ledger aloud, line by line, and asks each witness who claims to have looked at
line 17: is this what you saw? What nobody wrote down (a lease that ran out, a write whose answer was
lost) is believed once, at the moment a witness needs it, and must stay true from then on.

Source: "Revisions" as in etcd's robustness tests and Spanner's external consistency; section 7 of the
design. Departure: the order is given by the answers, not searched for, so one pass suffices.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from math import inf

from atoll.ports.register import Entry
from atoll.ports.store import Compare, Delete, Field, Put
from atoll.verify.history import Call
from atoll.verify.judgement import Findings
from atoll.verify.lease_book import LeaseBook

_LAST = "\U0010ffff" * 8


@dataclass(slots=True)
class Version:
    """What a key holds. `create` is None while only an unanswered write could tell it."""

    value: bytes
    revision: int
    create: int | None
    lease: str | None
    call: Call | None


@dataclass(slots=True)
class Write:
    """A transaction with its place. `results` is None where the answer was lost and a sighting placed it."""

    revision: int
    call: Call
    results: tuple[Entry | None, ...] | None


class Replay:
    """The model. `present` and `absent` hold what a witness saw against it."""

    def __init__(self, findings: Findings, leases: LeaseBook) -> None:
        self.findings = findings
        self.leases = leases
        self.keys: dict[str, Version] = {}
        self.live: list[str] = []
        self.by_lease: dict[str, set[str]] = {}
        self.gone: dict[str, tuple[int, Call | None]] = {}
        self.touched: set[str] = set()
        self.unplaced_deletes: dict[str, list[Call]] = {}
        self.unplaced_puts: dict[str, list[Call]] = {}
        self.known_by: dict[int, float] = {}

    # -- what a transaction does -------------------------------------------------------------------

    def apply(self, write: Write) -> set[str]:
        """Judge the comparisons at the state just before, then write; answers the keys it changed."""
        changed: set[str] = set()
        asked, revision, call = write.call.asked, write.revision, write.call
        for compare in asked.compare:
            self.compare(compare, revision, call)
        if asked.guard is not None:
            key, token = asked.guard
            self.compare(Compare(key, Field.REVISION, token), revision, call)
        results = write.results
        if results is not None and len(results) != len(asked.then):
            self.findings.add(
                "results", f"{len(results)} results of {len(asked.then)} operations", "one for each", call
            )
            results = None
        for number, operation in enumerate(asked.then):
            result = results[number] if results is not None else None
            if isinstance(operation, Put):
                self._put(operation, write, result)
                changed.add(operation.key)
            elif self._delete(operation, write, result, told=results is not None):
                changed.add(operation.key)
        return changed

    def _put(self, operation: Put, write: Write, result: Entry | None) -> None:
        key, revision, call = operation.key, write.revision, write.call
        create: int | None = None
        if result is not None:
            want = (key, operation.value, revision, operation.lease)
            if (result.key, result.value, result.revision, result.lease) != want:
                self.findings.add("results", f"the put answered {result}", f"{want}", call)
            create = result.create_revision
            self._created(key, create, revision, call)
        if operation.lease is not None:
            if operation.lease in self.leases.ended_at:
                self.findings.add(
                    "write under an ended lease",
                    f"{key!r} written at revision {revision} under lease {operation.lease}",
                    "LeaseOver: the lease's keys had been removed before",
                    self.leases.ended_at[operation.lease][1],
                    call,
                )
            self.by_lease.setdefault(operation.lease, set()).add(key)
        self.set(key, Version(operation.value, revision, create, operation.lease, call))

    def _created(self, key: str, create: int, revision: int, call: Call) -> None:
        before = self.keys.get(key)
        if create == revision:
            if before is not None:
                self.absent(key, revision, call)
        elif before is None or (before.create is not None and before.create != create):
            if not self.unplaced_puts.get(key):
                self.findings.add(
                    "create revision",
                    f"{key!r} said to live since revision {create}",
                    f"{before.create if before else revision}",
                    before.call if before else self.gone_by(key),
                    call,
                )

    def _delete(self, operation: Delete, write: Write, result: Entry | None, *, told: bool) -> bool:
        key = operation.key
        if told and result is None:
            self.absent(key, write.revision, write.call)
        elif result is not None:
            self.present(key, result, write.revision, write.call)
        there = key in self.keys
        self.drop(key, write.revision, write.call)
        return there

    def set(self, key: str, version: Version) -> None:
        """The key holds this from now on."""
        if key not in self.keys:
            insort(self.live, key)
        self.keys[key] = version
        self.touched.add(key)

    def drop(self, key: str, revision: int, call: Call | None) -> None:
        """The key is gone from now on."""
        if self.keys.pop(key, None) is not None:
            self.live.pop(bisect_left(self.live, key))
            self.gone[key] = (revision, call)
            self.touched.add(key)

    def gone_by(self, key: str) -> Call | None:
        """The call by which the key is known to be gone."""
        return self.gone.get(key, (0, None))[1]

    # -- what a witness saw ------------------------------------------------------------------------

    def compare(self, compare: Compare, revision: int, call: Call) -> None:
        """A comparison that was said to hold."""
        version = self.keys.get(compare.key)
        if compare.field is not Field.VALUE and compare.expected == 0:
            if version is not None:
                self.absent(compare.key, revision, call)
            return
        if version is None:
            self._mismatch(
                "transaction on a false comparison", compare.key, f"{compare} to hold", revision, call
            )
            return
        create = version.create
        if create is None and compare.field is Field.CREATE_REVISION:
            create = version.create = int(compare.expected)
        entry = Entry(compare.key, version.value, version.revision, create or 0, version.lease)
        if not compare.holds(entry):
            self._mismatch(
                "transaction on a false comparison", compare.key, f"{compare} to hold", revision, call
            )

    def present(self, key: str, entry: Entry, revision: int, call: Call) -> None:
        """`call` saw `entry` at `revision`."""
        version = self.keys.get(key)
        if version is None or version.revision != entry.revision or version.value != entry.value:
            self._mismatch(self._kind(version, entry, revision), key, f"{entry}", revision, call)
            return
        if version.lease != entry.lease:
            self.findings.add(
                "lease of a key", f"{key!r} under {entry.lease}", f"{version.lease}", version.call, call
            )
        if version.create is None:
            version.create = entry.create_revision
        elif version.create != entry.create_revision:
            self.findings.add(
                "create revision",
                f"{key!r} said to live since revision {entry.create_revision}",
                f"{version.create}",
                version.call,
                call,
            )
        if entry.lease is not None and call.f in ("get", "range"):
            self.leases.standing(entry.lease, key, call)

    @staticmethod
    def _kind(version: Version | None, entry: Entry, revision: int) -> str:
        if entry.revision > revision:
            return "read from the future"
        if version is None:
            return "removed key seen"
        return "stale read" if entry.revision < version.revision else "write forgotten"

    def _mismatch(self, rule: str, key: str, found: str, revision: int, call: Call) -> None:
        version = self.keys.get(key)
        expected = (
            f"{key!r} = {version.value!r} of revision {version.revision}" if version else f"no key {key!r}"
        )
        because = version.call if version else self.gone_by(key)
        self.findings.add(rule, found, f"{expected}, as the state at revision {revision} is", because, call)

    def absent(self, key: str, revision: int, call: Call) -> None:
        """`call` saw no `key` at `revision`. A lease or an unanswered delete may explain it."""
        version = self.keys.get(key)
        if version is None:
            return
        if any(delete.began < (call.ended or inf) for delete in self.unplaced_deletes.get(key, ())):
            self.drop(key, revision, call)
        elif version.lease is not None:
            self.lease_ended(version.lease, revision, call)
        else:
            self._mismatch("write forgotten", key, f"no key {key!r}", revision, call)
            self.drop(key, revision, call)

    def lease_ended(self, lease: str, revision: int, call: Call) -> None:
        """All keys of the lease are gone at once: its end is one transaction."""
        self.leases.end(lease, revision, call, self.known_by.get(revision, call.ended_at))
        for key in self.by_lease.pop(lease, set()):
            version = self.keys.get(key)
            if version is not None and version.lease == lease:
                self.drop(key, revision, call)

    def span(self, low: str, high: str, seen: dict[str, Entry], revision: int, call: Call) -> None:
        """`call` saw exactly `seen` of the keys from `low` up to and without `high`, at `revision`."""
        live = self.live
        expected = live[bisect_left(live, low) : bisect_left(live, high)]
        for key in expected:
            if key not in seen and key in self.keys:
                self.absent(key, revision, call)
        for key, entry in seen.items():
            self.present(key, entry, revision, call)


def below(prefix: str) -> tuple[str, str]:
    """The bounds of the keys that begin with `prefix`; text order is the bytewise order of UTF-8."""
    return prefix, prefix + _LAST
