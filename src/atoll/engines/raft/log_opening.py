"""Opening a log: reads every record once, cuts what was never promised, refuses what was spoilt.

The first mate after a shipwreck. A last line that breaks off is struck out, because nobody was told of it. A
line missing from the middle is another matter: the book is closed again and the owner is called.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import msgspec

from atoll.algorithms.raft.messages import Kind, Member, Snapshot, Term
from atoll.engines.raft import files, record, segment
from atoll.engines.raft.log_index import LogIndex, Span
from atoll.engines.raft.record import Record, RecordKind, Spoilt
from atoll.engines.raft.segment import BLOCK, REMEDY, Cover
from atoll.engines.raft.wal import ENTRY, Log, LogOptions, new_span, unpack_membership
from atoll.errors import FormatRefused


class Owner(NamedTuple):
    """Whose log it is."""

    cluster: str
    member: Member


def open_log(
    folder: Path, owner: Owner, *, snapshot: Snapshot | None = None, options: LogOptions | None = None
) -> Log:
    """The log in `folder`, made where there is none; `snapshot`: the newest durable one.

    A record that was not wholly written, at the end of the newest segment, is cut off: it was never
    promised. Raises FormatRefused for anything else that is not as it was written, naming file and byte, and
    for a log of another cluster or member, or of a newer format.
    """
    options = options or LogOptions()
    folder.mkdir(parents=True, exist_ok=True)
    spans = _covers(folder, owner)
    if not spans:
        spans = [_begin(folder, owner, snapshot, options)]
    try:
        log = _replayed(folder, spans, options)
        _reconcile(log, snapshot)
    except BaseException:
        for span in spans:
            _close(span.descriptor)
        raise
    return log


def _begin(folder: Path, owner: Owner, snapshot: Snapshot | None, options: LogOptions) -> Span:
    index, term = (snapshot.index, snapshot.term) if snapshot else (0, 0)
    cover = Cover(owner.cluster, owner.member, 1, segment.salt(), index, term, 0, "", 0)
    return new_span(folder, cover, options.segment_bytes, options.force)


def _covers(folder: Path, owner: Owner) -> list[Span]:
    """The segments that count, each open and with its cover read; void ones are taken away."""
    found: list[Span] = []
    for number in segment.numbers(folder):
        path = segment.path_of(folder, number)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            cover = segment.read_cover(os.pread(descriptor, BLOCK, 0), path)
            _check_owner(cover, owner, number, path)
        except BaseException:
            for other in (descriptor, *(span.descriptor for span in found)):
                _close(other)
            raise
        size = os.fstat(descriptor).st_size
        seed = record.seed_of(cover.number, cover.salt)
        found.append(Span(path, cover, seed, descriptor, cover.before_index + 1, size, BLOCK))
    while (anew := next((n for n, span in enumerate(found) if n and span.cover.anew), None)) is not None:
        for span in found[:anew]:
            _close(span.descriptor)
            span.path.unlink()
        del found[:anew]
    return found


def _check_owner(cover: Cover, owner: Owner, number: int, path: Path) -> None:
    if (cover.cluster, cover.member) != owner:
        raise FormatRefused(
            f"found that {path} belongs to member {cover.member!r} of cluster {cover.cluster}; expected "
            f"{owner.member!r} of {owner.cluster}. Each member has its own data folder: name the right one."
        )
    if cover.number != number:
        raise FormatRefused(f"found segment {cover.number} under the name {path}. {REMEDY}")


def _replayed(folder: Path, spans: list[Span], options: LogOptions) -> Log:
    first = spans[0].cover
    index = LogIndex(first.before_index, first.before_term)
    hard: tuple[Term, Member] = (first.term, first.vote)
    written = 0
    for place, span in enumerate(spans):
        following = spans[place + 1].cover if place + 1 < len(spans) else None
        if following is not None and following.number != span.cover.number + 1:
            missing = segment.path_of(folder, span.cover.number + 1)
            raise FormatRefused(f"found that {missing} is missing, between older and newer ones. {REMEDY}")
        index.begin(span)
        hard, written = _replay(span, index, hard, following)
    newest = spans[-1]
    if written > newest.end:
        os.ftruncate(newest.descriptor, newest.end)
    files.reserve(newest.descriptor, max(options.segment_bytes, newest.end))
    newest.size = max(options.segment_bytes, newest.end)
    # What a killed process wrote and named may be in the kernel's memory alone; from here on it counts.
    options.force(newest.descriptor)
    files.force_folder(folder, options.force)
    return Log(folder, options, index, hard)


def _replay(
    span: Span, index: LogIndex, hard: tuple[Term, Member], following: Cover | None
) -> tuple[tuple[Term, Member], int]:
    """The hard state behind it, and where the last byte stands that is not zero."""
    block = os.pread(span.descriptor, span.size, 0)
    while len(block) < span.size and (more := os.pread(span.descriptor, span.size - len(block), len(block))):
        block += more
    offset, seed = BLOCK, span.seed
    while isinstance(found := record.read(block, offset, seed), Record):
        if found.kind == RecordKind.ENTRY:
            term, number, _, _, kind = ENTRY.unpack_from(found.payload)
            if number > index.last + 1:
                raise FormatRefused(
                    f"found entry {number} behind entry {index.last} in {span.path} at {offset}. {REMEDY}"
                )
            index.put(number, term, offset)
            if kind == Kind.MEMBERSHIP:
                data = found.payload[ENTRY.size :]
                index.memberships.append((number, unpack_membership(data)))
        elif found.kind == RecordKind.HARD_STATE:
            hard = msgspec.msgpack.decode(found.payload, type=tuple[Term, Member])
        else:
            raise FormatRefused(f"found a record of kind {found.kind} in {span.path} at {offset}. {REMEDY}")
        offset = found.end
    span.end = offset
    if following is not None and not following.anew:
        if offset != following.before_end:
            raise FormatRefused(
                f"found a bad record in {span.path} at {offset}: {found.value}; the segment after it says "
                f"that this one was durable up to {following.before_end}. {REMEDY}"
            )
    written = offset + len(block[offset:].rstrip(b"\0"))
    if following is None and (written > offset or found is not Spoilt.END):
        _judge_end(span, memoryview(block)[:written], found)
    return hard, written


def _judge_end(span: Span, block: memoryview, found: Spoilt) -> None:
    """Raise unless what stands behind the last good record was never promised."""
    proof = record.proof_of_damage(block, span.end, len(block), span.seed)
    if proof is not None:
        raise FormatRefused(
            f"found a bad record in {span.path} at {span.end}; it was durable when the good one at {proof} "
            f"was written, so it was spoilt later. {REMEDY}"
        )
    if found is Spoilt.DAMAGED:
        raise FormatRefused(
            f"found the last record of {span.path}, at {span.end}, whole but changed: no power cut "
            f"does that. {REMEDY}"
        )


def _reconcile(log: Log, snapshot: Snapshot | None) -> None:
    """The log and the newest snapshot must meet; where they conflict the snapshot is right."""
    first = log.first
    if (snapshot.index if snapshot else 0) < first - 1:
        raise FormatRefused(
            f"found that the log in {log.folder} begins at entry {first}, and "
            + (f"the newest snapshot ends at {snapshot.index}" if snapshot else "there is no snapshot")
            + f". {REMEDY}"
        )
    if snapshot is not None:
        log.begin_anew(snapshot)
        log.show()


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        pass
