"""Removal: a store is moved to another place while a fleet uses it, and its page is turned.

A family moves. First the word goes round that nobody new moves in; who is inside finishes what they do. Then
the old door is locked with a note, the boxes are carried and counted, the new house number is made greater
than the old one's, and last the new door is opened. Until that moment the old door can be unlocked again and
nothing has happened.

Promise: after a move the new store has every value that the old one had when it was frozen, nobody holds
anything in the old one, and every token of the new one is greater than every token of the old one.
What can break it: a writer of the old store that its note does not stop (an older Atoll that has it open).
Proved by: tests/blocks/test_removal.py, tests/blocks/test_formerly.py
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote

from atoll import clock
from atoll.blocks.moving import (
    OURS,
    Contents,
    Copied,
    Say,
    carry,
    check_sizes,
    foreign_entries,
    moving_of,
    read_all,
    read_once,
)
from atoll.blocks.ownership import below
from atoll.blocks.session import again, finished
from atoll.errors import ConfigurationError, Conflict, LeaseOver
from atoll.ports.moving import DRAINING, left, mark, move_of, note
from atoll.ports.register import Entry, Unmet
from atoll.ports.store import Leasing, Moving, Put, Store, StoreClaims, absent, delete, put

LOOK_S = 0.25
GRACE_S = 5.0
"""How long who came in at the last moment may finish, once the old store is frozen."""
DRAIN_S = 10.0
"""The word that goes round is under a lease of this length: it falls silent when who said it dies."""
LEASE_UNKNOWN_S = 60.0
"""How long an ended lease is waited out where neither the store nor its key says how long it was."""


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
class Moved:
    """How a move ended. Not `done`: `held` are in the way, and the source takes writes again."""

    done: bool
    move: str
    copied: Copied | None = None
    epoch: int = 0
    interrupted: tuple[Holds, ...] = ()
    held: tuple[Holds, ...] = ()


async def holds(store: Store) -> list[Holds]:
    """What leases keep in the store now."""
    return [_held(entry) for entry in (await read_once(store, None)).entries if entry.lease is not None]


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
        self._word: str | None = None
        self._word_at = 0.0
        self._first: set[tuple[str, int]] = set()
        self._strangers = False
        self._turned = self._resumed = False

    async def move(self) -> Moved:
        """See `atoll store move`. Until the mark is written every failure leaves the source in use."""
        claims = await self._target.open()
        await self._source.open()
        old, new = moving_of(self._source), moving_of(self._target)
        move, finished_before = await self._number(old)
        if finished_before:
            return Moved(done=True, move=move, epoch=await self._target.epoch())
        await self._prepare(new, claims)
        try:
            held = await self._alone_in(move, old)
            if held and not self._interrupt:
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
        finally:
            await finished("taking the word back", self._take_the_word_back())
        await old.freeze(note(self._target.url, move, done=True))
        for key in await self._left_behind(move):
            await again(partial(self._target.transact, delete(left(move, key))))
        return Moved(done=True, move=move, copied=copied, epoch=epoch, interrupted=tuple(interrupted))

    async def _alone_in(self, move: str, old: Moving) -> list[Holds]:
        """Freeze the source when nobody holds anything there; who still does when the time is over.

        Whoever seems not to know the word is met with a freeze. One that does know it, and was only quicker
        than we were, stands still then in the middle of its work and waits for us as we wait for it: so the
        source is thawed again, and this time they are waited for.
        """
        until = clock.loop_now() + self._wait_s
        if not self._resumed:
            await self._send_the_word(move)
        while True:
            if not self._resumed:
                held = await self._wait(move, max(0.0, until - clock.loop_now()))
                if held and not self._interrupt and not self._strangers:
                    return held
                await old.freeze(note(self._target.url, move, done=False))
            held = await self._wait(move, max(0.0, min(GRACE_S, until - clock.loop_now())), frozen=True)
            if not held or self._interrupt:
                return held
            await old.freeze(None)
            if self._resumed or clock.loop_now() >= until:
                return held
            self._first |= {(one.key, one.revision) for one in held}

    async def _send_the_word(self, move: str) -> None:
        """From now on a process with the word `formerly` begins nothing new; what is held goes on."""
        leasing = self._target.leasing
        if leasing is None:
            return
        granted = await again(partial(leasing.grant, DRAIN_S))
        self._word, self._word_at = granted.lease, clock.loop_now()
        text = note(self._target.url, move, done=False)
        await self._alone(Put(DRAINING, text.encode(), granted.lease))
        if (seen := (await self._source.get(DRAINING)).entry) is not None and seen.value == text.encode():
            raise ConfigurationError(
                f"found that {self._source.url} and {self._target.url} are one store; expected two. "
                "Nothing was moved: name another target."
            )
        self._first = {(one.key, one.revision) for one in await self._held(move)}

    async def _alone(self, word: Put) -> None:
        """One move at a time into a store; one that was killed falls silent after DRAIN_S."""
        until = clock.loop_now() + DRAIN_S * 1.5
        said = False
        while True:
            answer = await again(partial(self._target.transact, word, compare=[absent(DRAINING)]))
            there = answer.entries.get(DRAINING) if isinstance(answer, Unmet) else None
            if there is None or there.lease == word.lease:
                return
            if clock.loop_now() > until:
                raise ConfigurationError(
                    f"found another move into {self._target.url}: {there.value.decode(errors='replace')}. "
                    "Nothing was moved: one at a time."
                )
            if not said:
                self._say("another move into this store goes on, or was killed just now; waiting for its end")
                said = True
            await self._keep_the_word()
            await asyncio.sleep(LOOK_S)

    async def _take_the_word_back(self) -> None:
        word, self._word = self._word, None
        if word is not None and self._target.leasing is not None:
            await self._target.leasing.revoke(word)

    async def _keep_the_word(self) -> None:
        if self._word is None or self._target.leasing is None:
            return
        if clock.loop_now() - self._word_at > DRAIN_S / 4:
            try:
                await again(partial(self._target.leasing.keep_alive, self._word))
            except LeaseOver:  # we were paused: who came in meanwhile is waited for as everybody is
                raise Conflict(
                    f"this command was paused for longer than {DRAIN_S:g} s, so others did not wait for it "
                    "any more. Nothing was moved: type it again."
                ) from None
            self._word_at = clock.loop_now()

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
            self._resumed = True
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
        kept = (await read_all(self._source)).kept
        check_sizes(kept, claims, self._target)
        there = {entry.key: entry for entry in (await read_all(self._target)).entries}
        foreign_entries(self._target, there, {e.key: e.value for e in kept}, force=self._force)
        if found is not None:
            await new.freeze(None)

    async def _wait(self, move: str, wait_s: float, *, frozen: bool = False) -> list[Holds]:
        """Until nobody holds anything, or only who came after the word was sent; who holds at the end.

        Whoever came after it does not know the word: waiting for them would never end, until it is `frozen`.
        """
        until = clock.loop_now() + wait_s
        said = ""
        while True:
            await self._keep_the_word()
            held = await self._held(move)
            for one in held:
                left_s = await self._leasing.remaining(one.lease)
                self._left[one.lease] = max(left_s or 0.0, self._left.get(one.lease, 0.0))
            self._strangers = bool(held) and self._first.isdisjoint((one.key, one.revision) for one in held)
            if not held or (self._strangers and self._word is not None and not frozen):
                return held
            if clock.loop_now() >= until:
                return held
            if (text := ", ".join(sorted({f"{one.title} ({one.owner})" for one in held})[:5])) != said:
                said = text
                self._say(f"waiting for {len(held)} to finish: {text}")
            await asyncio.sleep(LOOK_S)

    async def _held(self, move: str) -> list[Holds]:
        """Who holds something, without those who only wait and those who have said that they left."""
        given_up = await self._left_behind(move)
        found = await holds(self._source)
        return [one for one in found if not one.waits and given_up.get(one.key) != one.revision]

    async def _left_behind(self, move: str) -> dict[str, int]:
        """What was given up while the old store could not take it: keys and their revisions there."""
        prefix = left(move)
        entries = await below(self._target, prefix)
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
        lost = [e.key for e in contents.kept if there.get(e.key) != e.value and not e.key.startswith(OURS)]
        if lost:
            raise Conflict(
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
