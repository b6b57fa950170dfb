"""Moving: everything of one store into another, as far as it is not kept there by a lease.

Boxes on a list. Each is carried only where its place is free or holds the same, the list is compared at the
end, and what would not fit through the door is found before the first box is lifted.

Promise: what is written is what was read; nothing is written where something else stands, unless `force`.
What can break it: somebody who writes the target meanwhile; it is noticed where a key is the same.
Proved by: tests/blocks/test_removal.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from atoll.blocks.session import again
from atoll.errors import ConfigurationError, LimitReached
from atoll.ports.moving import LEFT, MARKS
from atoll.ports.register import Applied, Entry, Unmet
from atoll.ports.store import Compare, Moving, Operation, Store, StoreClaims, absent, delete, put

PAGE = 500
BATCH_BYTES = 256 << 10
TRIES = 5
OURS = (MARKS, LEFT)
"""Keys of moves themselves; they are of one store and are not carried into another."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What was carried over. `leased`: left behind, because it dies with a lease."""

    entries: int
    bytes: int
    leased: int
    there: int
    """Of the entries, those that stood in the target already with the same value."""
    revision: int
    one_moment: bool
    """False: the source was written meanwhile."""


@dataclass(slots=True)
class Contents:
    """Everything in a store, read page by page."""

    entries: list[Entry] = field(default_factory=list)
    revision: int = 0
    one_moment: bool = True

    @property
    def kept(self) -> list[Entry]:
        """Without what dies with a lease."""
        return [entry for entry in self.entries if entry.lease is None]


async def read_all(store: Store, say: Say | None = None) -> Contents:
    """Read it, up to TRIES times until no page is newer than another."""
    for _ in range(TRIES):
        found = await read_once(store, say)
        if found.one_moment:
            break
    return found


async def read_once(store: Store, say: Say | None) -> Contents:
    """Page by page, whatever happens meanwhile."""
    page = await again(partial(store.range, limit=PAGE))
    found = Contents(list(page.entries), page.revision)
    while page.more:
        page = await again(partial(store.range, start=found.entries[-1].key + "\0", limit=PAGE))
        found.entries += page.entries
        found.one_moment &= page.revision == found.revision
        if say is not None:
            say(f"read {len(found.entries):,} entries")
    return found


async def copy(source: Store, target: Store, *, force: bool = False, say: Say | None = None) -> Copied:
    """Every entry without a lease, with its value. Reads the source; freezes nothing.

    Raises ConfigurationError where something else stands in the target and `force` is not said, LimitReached
    where the target does not take a key or a value; nothing was written then.
    """
    claims = await target.open()
    await source.open()
    contents = await read_all(source, say)
    return await carry(contents, target, claims, force=force, say=say)


async def carry(
    contents: Contents, target: Store, claims: StoreClaims, *, force: bool, say: Say | None = None
) -> Copied:
    """Write what was read, unless something else is in the way."""
    kept = [entry for entry in contents.kept if not entry.key.startswith(OURS)]
    check_sizes(kept, claims, target)
    there = {entry.key: entry for entry in (await read_all(target)).entries}
    wanted = {entry.key: entry.value for entry in kept}
    foreign = foreign_entries(target, there, wanted, force=force)
    missing = [e for e in kept if e.key not in there or there[e.key].value != e.value]
    written, size = 0, sum(len(entry.value) for entry in kept)
    for batch in batches(missing, claims):
        await _write(target, batch, there if force else {})
        written += len(batch)
        if say is not None:
            say(f"wrote {written:,} of {len(missing):,} entries")
    for entry in foreign:
        if entry.key not in wanted:
            await again(partial(target.transact, delete(entry.key)))
    return Copied(
        entries=len(kept),
        bytes=size,
        leased=len(contents.entries) - len(contents.kept),
        there=len(kept) - len(missing),
        revision=contents.revision,
        one_moment=contents.one_moment,
    )


def foreign_entries(
    target: Store, there: dict[str, Entry], wanted: dict[str, bytes], *, force: bool
) -> list[Entry]:
    """What stands in the target and is not the source's; ConfigurationError unless `force` is said."""
    foreign = [e for e in there.values() if _in_the_way(e) and wanted.get(e.key) != e.value]
    if foreign and not force:
        names = ", ".join(repr(entry.key) for entry in foreign[:3])
        raise ConfigurationError(
            f"found {len(foreign):,} other entries in {target.url} ({names}{' ...' if foreign[3:] else ''}); "
            "expected a store with nothing of its own. Name another, or --force it to be like the source."
        )
    return foreign


def _in_the_way(entry: Entry) -> bool:
    """Locks taken in the new store already, the signs of their lines and the marks of moves are not."""
    sign = entry.key.endswith("/line") and entry.value == b"1"
    return entry.lease is None and not sign and not entry.key.startswith(OURS)


def check_sizes(entries: Sequence[Entry], claims: StoreClaims, target: Store) -> None:
    """LimitReached for a key or value that the target does not take."""
    for entry in entries:
        key, value = len(entry.key.encode()), len(entry.value)
        if key > claims.key_bytes_max or value > claims.value_bytes_max:
            raise LimitReached(
                f"found {entry.key[:60]!r} with {key} bytes of key and {value} of value; {target.url} takes "
                f"{claims.key_bytes_max} and {claims.value_bytes_max}. Nothing was written: raise its "
                "limits, or remove the entry."
            )


def batches(entries: Sequence[Entry], claims: StoreClaims) -> Iterator[list[Entry]]:
    """Transactions that the target takes: by operations, a compare beside each put, and by bytes."""
    most = max(1, min(claims.operations_max // 2, 200))
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if batch and (len(batch) == most or size + len(entry.value) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += len(entry.value)
    if batch:
        yield batch


async def _write(target: Store, batch: Sequence[Entry], known: dict[str, Entry]) -> None:
    """Each entry only where nothing stands; where `known` has it, over what is there."""
    then: list[Operation] = [put(entry.key, entry.value) for entry in batch]
    compare: list[Compare] = [absent(entry.key) for entry in batch if entry.key not in known]
    answer: Applied | Unmet = await again(lambda: target.transact(*then, compare=compare))
    if isinstance(answer, Unmet):
        for entry in batch:
            now = answer.entries.get(entry.key)
            if now is not None and now.value != entry.value:
                raise ConfigurationError(
                    f"found that somebody else wrote {entry.key!r} in {target.url} meanwhile. Stop what uses "
                    "it, then type the command again."
                )
        there = {e.key: e for e in batch if answer.entries.get(e.key) is not None}
        if len(there) < len(batch):  # else all of it was applied before, and the answer was lost
            await _write(target, [entry for entry in batch if entry.key not in there], known)


def moving_of(store: Store) -> Moving:
    """The ability; ConfigurationError where the store has none."""
    if store.moving is None:
        raise ConfigurationError(
            f"{store.url} can neither be frozen nor have its epoch raised. Stop what uses it, then: "
            "atoll store copy OLD NEW"
        )
    return store.moving
