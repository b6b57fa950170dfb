"""Moving: everything of one store into another, and the page turned for those who use it.

A removal. The flat is locked, who is still inside may finish, the boxes are carried and counted, the new
flat's house number is made greater than the old one's, and last its door is opened. Until that moment the old
flat can be unlocked again and nothing has happened.

Promise: after a move the new store has every value that the old one had when it was frozen, nobody holds
anything in the old one, and every token of the new one is greater than every token of the old one.
What can break it: a writer of the old store that its note does not stop (an older Atoll that has it open).
Proved by: tests/blocks/test_moving.py, tests/blocks/test_formerly.py
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import unquote

from atoll import clock
from atoll.blocks.session import again, finished
from atoll.errors import AtollError, ConfigurationError, LeaseOver, LimitReached
from atoll.ports.moving import LEFT, MARKS, left, mark, move_of, note
from atoll.ports.register import Applied, Entry, Unmet
from atoll.ports.store import Compare, Leasing, Moving, Operation, Store, StoreClaims, absent, delete, put

PAGE = 500
BATCH_BYTES = 256 << 10
LOOK_S = 0.25
LEASE_UNKNOWN_S = 60.0
"""How long an ended lease is waited out where neither the store nor its key says how long it was."""
TRIES = 5
_OURS = (MARKS, LEFT)
"""Keys of moves themselves; they are of one store and are not carried into another."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Holds:
    """Something in the old store that a lease keeps there. `owner`, `since`: where its value says so."""

    key: str
    revision: int
    lease: str
    owner: str
    since: float | None
    ttl_s: float | None

    @property
    def title(self) -> str:
        """What it is, as people named it."""
        kind, _, rest = self.key.partition("/")
        return f"{kind.replace('_', '/')} {unquote(rest.partition('/')[0])}" if rest else self.key

    @property
    def waits(self) -> bool:
        """Only a place in a line. In a line without an owner's key, a place may be inside."""
        return self.key.startswith(("lock/", "election/")) and "/queue/" in self.key


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """How a move ended. Not `done`: `held` are in the way, and the source takes writes again."""

    done: bool
    move: str
    copied: Copied | None = None
    epoch: int = 0
    interrupted: tuple[Holds, ...] = ()
    held: tuple[Holds, ...] = ()


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
        found = await _read_once(store, say)
        if found.one_moment:
            break
    return found


async def _read_once(store: Store, say: Say | None) -> Contents:
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
    kept = [entry for entry in contents.kept if not entry.key.startswith(_OURS)]
    _check_sizes(kept, claims, target)
    there = {entry.key: entry for entry in (await read_all(target)).entries}
    wanted = {entry.key: entry.value for entry in kept}
    foreign = _foreign(target, there, wanted, force=force)
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


def _foreign(target: Store, there: dict[str, Entry], wanted: dict[str, bytes], *, force: bool) -> list[Entry]:
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
    return entry.lease is None and not sign and not entry.key.startswith(_OURS)


def _check_sizes(entries: Sequence[Entry], claims: StoreClaims, target: Store) -> None:
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
            await _write(target, [entry for entry in batch if entry.key not in there], {})


async def holds(store: Store) -> list[Holds]:
    """What leases keep in the store now."""
    return [_held(entry) for entry in (await _read_once(store, None)).entries if entry.lease is not None]


def _held(entry: Entry) -> Holds:
    owner, since, ttl_s = "somebody", None, None
    try:
        value = json.loads(entry.value)
        owner = str(value["owner"])
        since, ttl_s = float(value["since"]), float(value.get("ttl_s") or 0) or None
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return Holds(entry.key, entry.revision, entry.lease or "", owner, since, ttl_s)


class Removal:
    """One move. `wait_s`: how long holders may finish; `interrupt`: then their leases are ended."""

    def __init__(
        self, source: Store, target: Store, *, wait_s: float, interrupt: bool, force: bool, say: Say
    ) -> None:
        self._source, self._target = source, target
        self._wait_s, self._interrupt, self._force, self._say = wait_s, interrupt, force, say
        self._left: dict[str, float] = {}
        self._turned = False

    async def move(self) -> Moved:
        """See `atoll store move`. Until the mark is written every failure leaves the source in use."""
        claims = await self._target.open()
        await self._source.open()
        old, new = moving_of(self._source), moving_of(self._target)
        move, finished_before = await self._number(old)
        if finished_before:
            return Moved(done=True, move=move, epoch=await self._target.epoch())
        await self._prepare(new, claims)
        await old.freeze(note(self._target.url, move, done=False))
        try:
            await self._refuse_one_store(old, new)
            held = await self._wait(move)
            if held and not self._interrupt:
                await old.freeze(None)
                return Moved(done=False, move=move, held=tuple(held))
            interrupted = await self._end_leases(held)
            contents = await read_all(self._source, self._say)
            copied = await carry(contents, self._target, claims, force=self._force, say=self._say)
            await self._compare(contents)
            epoch = await new.bump(above=await self._source.epoch())
            await self._turn(move, epoch)
        except BaseException:
            if not self._turned:
                await finished("taking the note down", old.freeze(None))
            raise
        await old.freeze(note(self._target.url, move, done=True))
        for key in await self._left_behind(move):
            await again(partial(self._target.transact, delete(left(move, key))))
        return Moved(done=True, move=move, copied=copied, epoch=epoch, interrupted=tuple(interrupted))

    async def _number(self, old: Moving) -> tuple[str, bool]:
        """This move's number: a new one, or that of one which was broken off. True: it is done already."""
        found = await old.frozen()
        if found is None:
            return clock.unique_id()[:12], False
        move = move_of(found)
        if move is None or f" {self._target.url} " not in found:
            raise ConfigurationError(
                f"found {self._source.url} frozen: {found}. Expected one that takes writes; to have it do so "
                "again type: atoll store thaw"
            )
        done = (await self._target.get(mark(move))).entry is not None
        if done:
            await old.freeze(note(self._target.url, move, done=True))
        else:
            self._say("going on with the move that was broken off")
        return move, done

    async def _prepare(self, new: Moving, claims: StoreClaims) -> None:
        """What can be refused is refused before anybody is stopped."""
        found = await new.frozen()
        if found is not None:
            if not self._force:
                raise ConfigurationError(
                    f"found the target {self._target.url} frozen: {found}. Expected one that takes writes; "
                    "to move back into it say --force."
                )
            await new.freeze(None)
        kept = (await read_all(self._source)).kept
        _check_sizes(kept, claims, self._target)
        there = {entry.key: entry for entry in (await read_all(self._target)).entries}
        _foreign(self._target, there, {e.key: e.value for e in kept}, force=self._force)

    async def _refuse_one_store(self, old: Moving, new: Moving) -> None:
        """Two URLs may lead to one store; then the note that was just written hangs on both doors."""
        written = await old.frozen()
        if written is not None and await new.frozen() == written:
            raise ConfigurationError(
                f"found that {self._source.url} and {self._target.url} are one store; expected two. "
                "Nothing was moved: name another target."
            )

    async def _wait(self, move: str) -> list[Holds]:
        """Until nobody holds anything; who still does when the time is over."""
        until = clock.loop_now() + self._wait_s
        said = ""
        while True:
            given_up = await self._left_behind(move)
            found = await holds(self._source)
            held = [one for one in found if not one.waits and given_up.get(one.key) != one.revision]
            for one in held:
                left_s = await self._leasing.remaining(one.lease)
                self._left[one.lease] = max(left_s or 0.0, self._left.get(one.lease, 0.0))
            if not held or clock.loop_now() >= until:
                return held
            if (text := ", ".join(sorted({f"{one.title} ({one.owner})" for one in held})[:5])) != said:
                said = text
                self._say(f"waiting for {len(held)} to finish: {text}")
            await asyncio.sleep(LOOK_S)

    async def _left_behind(self, move: str) -> dict[str, int]:
        """What was given up while the old store could not take it: keys and their revisions there."""
        prefix = left(move)
        page = await self._target.range(prefix, limit=PAGE)
        entries = list(page.entries)
        while page.more:
            page = await self._target.range(start=entries[-1].key + "\0", end=prefix[:-1] + "0", limit=PAGE)
            entries += page.entries
        return {entry.key.removeprefix(prefix): int(entry.value) for entry in entries}

    async def _end_leases(self, held: Sequence[Holds]) -> list[Holds]:
        """End what is left, and wait until whoever held it must have noticed by their own clock."""
        found = await holds(self._source)
        for lease in dict.fromkeys(one.lease for one in found):
            try:
                await again(partial(self._leasing.revoke, lease))
            except LeaseOver:
                pass
        if held:
            wait_s = max(self._term_s(one) for one in held)
            self._say(f"ended what {len(held)} held; waiting {wait_s:.1f} s until they must have stopped")
            await asyncio.sleep(wait_s)
        return list(held)

    def _term_s(self, one: Holds) -> float:
        """How long its holder may believe in it. Renewed every third: at most 1.5 times what was seen."""
        if one.ttl_s is not None:
            return one.ttl_s
        seen = self._left.get(one.lease, 0.0)
        return seen * 1.5 if seen else LEASE_UNKNOWN_S

    @property
    def _leasing(self) -> Leasing:
        if self._source.leasing is None:
            raise ConfigurationError(f"{self._source.url} has no leases; copy it instead: atoll store copy")
        return self._source.leasing

    async def _compare(self, contents: Contents) -> None:
        """Read the target again: what was not carried over is found before the page is turned."""
        there = {entry.key: entry.value for entry in (await read_all(self._target)).entries}
        lost = [e.key for e in contents.kept if there.get(e.key) != e.value and not e.key.startswith(_OURS)]
        if lost:
            raise AtollError(
                f"read {self._target.url} again and found {len(lost)} entries missing or different, such as "
                f"{lost[0]!r}. Nothing was moved, the old store takes writes again."
            )

    async def _turn(self, move: str, epoch: int) -> None:
        text = json.dumps({"from": self._source.url, "epoch": epoch, "at": clock.wall_now()})
        self._turned = True  # from here on only the mark itself can tell
        try:
            await again(lambda: self._target.transact(put(mark(move), text.encode())))
        except BaseException:
            self._turned = (await self._target.get(mark(move))).entry is not None
            raise


def moving_of(store: Store) -> Moving:
    """The ability; ConfigurationError where the store has none."""
    if store.moving is None:
        raise ConfigurationError(
            f"{store.url} can neither be frozen nor have its epoch raised. Stop what uses it, then: "
            "atoll store copy OLD NEW"
        )
    return store.moving
