"""Streams: observations and followed changes, held against the replay.

Two kinds of newspaper. An observation is a summary: it may skip what came and went, but after reading it
you must know the present state. The changes are the minutes: every transaction, whole, in order, once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from atoll.ports.register import Observation
from atoll.ports.store import Change
from atoll.verify.history import Call, Stream
from atoll.verify.judgement import Findings
from atoll.verify.replay import Replay, Write, below


@dataclass(slots=True)
class Reader:
    """Somebody who reads one stream, and what he believes."""

    stream: Stream
    last: Call | None = None
    revision: int = 0
    view: dict[str, int] = field(default_factory=dict)
    dirty: set[str] = field(default_factory=set)
    owed: list[tuple[Write, set[str]]] = field(default_factory=list)


class Streams:
    """Every stream of a history, fed in the order of the revisions."""

    def __init__(self, findings: Findings, replay: Replay) -> None:
        self.findings = findings
        self.replay = replay
        self.observers: dict[str, Reader] = {}
        self.followers: dict[str, Reader] = {}
        self.items = 0

    def touched(self, keys: set[str]) -> None:
        """These keys changed, or are found to be gone."""
        for reader in self.observers.values():
            reader.dirty.update(key for key in keys if key.startswith(reader.stream.prefix))

    def open(self, calls: list[Call]) -> None:
        """Read every item once, as it came: no stream goes back. Followers are owed what comes after."""
        newest: dict[str, Call] = {}
        for call in calls:
            if call.f not in ("observation", "change"):
                continue
            before = newest.get(call.asked.id)
            if before is not None and (call.revision or 0) < (before.revision or 0):
                self.findings.add(
                    "stream went back",
                    f"revision {call.revision}",
                    f"not before {before.revision}",
                    before,
                    call,
                )
            newest[call.asked.id] = call
            if call.f == "change":
                self.followers.setdefault(call.asked.id, Reader(call.asked, revision=call.asked.after))

    def wrote(self, write: Write, changed: set[str]) -> None:
        """A transaction that changed these keys: whoever follows them must hear of it."""
        for reader in self.followers.values():
            mine = {key for key in changed if key.startswith(reader.stream.prefix)}
            if mine and write.revision > reader.stream.after:
                reader.owed.append((write, mine))

    def observation(self, call: Call) -> None:
        """One item of an observation."""
        self.items += 1
        item: Observation = call.answer
        reader = self.observers.get(call.asked.id)
        if reader is None:
            reader = self.observers[call.asked.id] = Reader(call.asked)
            if not item.reset:
                self.findings.add(
                    "first item is no reset", "an observation that begins with a difference", "a reset", call
                )
        seen = {entry.key: entry for entry in item.changed}
        self._below(reader, [*seen, *item.removed], call)
        if item.reset:
            reader.view = {key: entry.revision for key, entry in seen.items()}
            self.replay.span(*below(reader.stream.prefix), seen, item.revision, call)
        else:
            for key in item.removed:
                reader.view.pop(key, None)
                self.replay.absent(key, item.revision, call)
            for key, entry in seen.items():
                reader.view[key] = entry.revision
                self.replay.present(key, entry, item.revision, call)
        self.touched(self.replay.touched)
        self.replay.touched = set()
        self._believes(reader, item.revision, call)
        reader.dirty.clear()
        reader.last, reader.revision = call, item.revision

    def _below(self, reader: Reader, keys: list[str], call: Call) -> None:
        strangers = [key for key in keys if not key.startswith(reader.stream.prefix)]
        if strangers:
            self.findings.add("outside the prefix", f"{strangers[0]!r}", f"{reader.stream.prefix!r}...", call)

    def _believes(self, reader: Reader, revision: int, call: Call) -> None:
        """What changed since the item before must be known to the reader now."""
        for key in sorted(reader.dirty):
            believed = reader.view.get(key)
            version = self.replay.keys.get(key)
            if believed is None and version is not None:
                self.replay.absent(key, revision, call)
            elif believed is not None and version is None:
                self.findings.add(
                    "removal not observed",
                    f"an observer that still believes in {key!r} of revision {believed}",
                    f"it told of the removal by revision {revision}",
                    self.replay.gone_by(key),
                    call,
                )
                reader.view.pop(key)
            elif version is not None and believed != version.revision:
                self.findings.add(
                    "change not observed",
                    f"an observer that believes {key!r} is of revision {believed}",
                    f"revision {version.revision}, as the state at {revision} is",
                    version.call,
                    call,
                )
                reader.view[key] = version.revision

    def change(self, call: Call) -> None:
        """One item of the changes."""
        self.items += 1
        item: Change = call.answer
        reader = self.followers[call.asked.id]
        revision = item.at.revision
        if revision == reader.revision and (item.changed or item.removed):
            self.findings.add(
                "told twice", f"revision {revision} again", "one item for each transaction", reader.last, call
            )
        self._below(reader, [*(e.key for e in item.changed), *item.removed], call)
        mine: tuple[Write, set[str]] | None = None
        for write, keys in reader.owed:
            if write.revision < revision:
                self.findings.add(
                    "gap in the changes",
                    f"an item of revision {revision}, and none of {write.revision} before it",
                    "one item for each transaction, none skipped",
                    write.call,
                    call,
                )
            elif write.revision == revision:
                mine = (write, keys)
        reader.owed.clear()
        if mine is not None:
            self._whole(item, *mine, call)
        else:
            self._by_nobody(item, call)
        for entry in item.changed:
            self.replay.present(entry.key, entry, revision, call)
        reader.last, reader.revision = call, revision

    def _whole(self, item: Change, write: Write, wrote: set[str], call: Call) -> None:
        said = {entry.key for entry in item.changed} | set(item.removed)
        if said != wrote or any(key in self.replay.keys for key in item.removed):
            self.findings.add(
                "torn change",
                f"an item of {sorted(said)}",
                f"the transaction whole: {sorted(wrote)}",
                write.call,
                call,
            )

    def _by_nobody(self, item: Change, call: Call) -> None:
        """A transaction that no call made: the end of a lease, or a delete whose answer was lost."""
        revision = item.at.revision
        for key in item.removed:
            if key not in self.replay.keys and self.replay.gone.get(key, (revision, None))[0] < revision:
                self.findings.add(
                    "removed in two transactions",
                    f"{key!r} removed at revision {revision}",
                    f"it gone since revision {self.replay.gone[key][0]}, in one transaction with its lease",
                    self.replay.gone_by(key),
                    call,
                )
            self.replay.absent(key, revision, call)
