"""Line: how many who want one thing get it one after the other, in the order in which they came.

A bakery with numbered tickets. Who finds the counter free and nobody waiting is served at once; else
you draw a number and watch only the customer before you, so one departure wakes one person. A sign
"there is a line" keeps newcomers from walking past it.

Keys below `<kind>/<name>/`: `owner` (leased), `line` (the sign; stands while somebody may be waiting),
`queue/<nonce>` (leased, one for each who waits; their order is that of their create_revision). Where a holder
may name who comes next, `heir` holds that one's nonce; it counts only while that place stands in the line.

Promise: at most one owner in the store at any revision; owners in the order of their tickets, a named heir
first; the token
is the revision of the transaction that wrote the owner, so it only rises.
What can break it: a store that loses acknowledged writes, or goes back in time without a new epoch.
Proved by: atoll verify --workload lock
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from atoll import clock
from atoll.blocks.ownership import Doubt, Keys, Owner, View, Won, look, read_owner, said
from atoll.blocks.session import Session, again, finished, join
from atoll.blocks.watching import State, first_of, until
from atoll.errors import LeaseOver, NotApplied, OutcomeUnknown, Taken
from atoll.ports.register import Applied, Entry, Unmet
from atoll.ports.store import (
    Compare,
    Operation,
    Store,
    StoreClaims,
    Token,
    absent,
    created,
    delete,
    put,
    unchanged,
)

log = logging.getLogger("atoll.lock")


class Attempt:
    """One try for ownership, from the first look to owning it or to leaving nothing behind."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        *,
        ttl_s: float,
        owner: str,
        title: str,
        suits: Callable[[StoreClaims], None],
        heirs: bool = False,
    ) -> None:
        self.store, self.keys, self.ttl_s, self.title = store, keys, ttl_s, title
        self._who, self._suits, self._heirs = owner, suits, heirs
        self._session: Session | None = None
        self._me = Owner(owner=owner, since=0.0, nonce="")
        self._value = b""
        self._place = 0  # create_revision of our place in the line; 0: we have none
        self._in_flight = False  # a write of ours was sent and no answer has come
        self._in_doubt = False  # one never got an answer, and may happen yet
        self._owned = False
        self._woken = asyncio.Event()

    def lease_ended(self, reason: str) -> None:
        log.info("%s lost its place in the line of %s: %s", self._who, self.title, reason)
        self._woken.set()

    async def own(self, wait_s: float | None) -> Won:
        """Wait until it is ours, at most `wait_s` and the deadline in force; then Taken."""
        began = clock.loop_now()
        due = clock.call_deadline(math.inf if wait_s is None else wait_s)
        try:
            while True:
                session = await self._begin()
                try:
                    entry = await self._wait(due, began)
                except LeaseOver:
                    session.end("the store says that its lease is over")
                    entry = None
                if entry is not None and session.left_s > 0:
                    break
                await self._leave()  # the lease ended meanwhile: all over again, with a new one
        except BaseException:
            await finished(f"leaving the line of {self.title}", self._leave())
            raise
        return Won(
            store=self.store,
            key=self.keys.owner,
            session=session,
            me=self._me,
            token=Token(session.epoch, entry.revision),
            doubt=self._doubt,
            in_doubt=self._in_doubt,
        )

    def handed_over(self) -> None:
        """A holding stands on the session now instead of this attempt."""
        if self._session is not None:
            self._session.leave(self)

    async def _begin(self) -> Session:
        self._woken.clear()
        self._place, self._in_flight, self._in_doubt, self._owned = 0, False, False, False
        self._session = await join(self.store, self.ttl_s, self)
        assert self._session.claims is not None
        self._suits(self._session.claims)
        since, nonce = round(clock.wall_now(), 3), clock.unique_id()
        self._me = Owner(owner=self._who, since=since, nonce=nonce, ttl_s=self._session.ttl_s)
        self._value = msgspec.json.encode(self._me)
        return self._session

    async def _wait(self, due: float, began: float) -> Entry | None:
        """Until the owner's key is ours; None when the lease ended first."""
        keys, held = self.keys, put(self.keys.owner, self._value, lease=self._lease)
        answer = await self._write([held], [absent(keys.owner), absent(keys.line)])
        if isinstance(answer, Entry):
            return answer
        view = View(answer.entries.get(keys.owner), answer.entries.get(keys.line), ())
        if view.owner is not None:
            if clock.loop_now() >= due:
                raise self._taken(view, began)
            await self._draw_number()
        looks = 0
        while self._session is not None and self._session.ended is None:
            if looks and clock.loop_now() >= due:
                raise self._taken(view, began)
            view = await again(lambda: look(self.store, keys))
            if view.owner is not None and view.owner.value == self._value:
                return view.owner
            if (entry := await self._step(view, due, began)) is not None:
                return entry
            looks += 1
            if looks > 20:  # somebody is quicker each time: give the store a rest
                await asyncio.sleep(0.02 * clock.chance().random())
        return None

    async def _step(self, view: View, due: float, began: float) -> Entry | None:
        """One move, by what was seen; the owner's entry if that made us owner."""
        keys = self.keys
        before = self._before(view)
        if before is None:
            if view.owner is None and not view.queue:  # the sign of a line that has died out
                return await self._take(view)
            if clock.loop_now() >= due:
                raise self._taken(view, began)
            self._place = 0
            await self._draw_number()
            return None
        heir = self._heir(view)
        if view.owner is None and (heir == self._place_key if heir else not before):
            return await self._take(view)
        if clock.loop_now() >= due:
            raise self._taken(view, began)
        ahead = before[-1].key if before else keys.owner
        if view.owner is None and heir and not before:
            ahead = heir  # the owner's key is gone already; the heir takes it, or dies
        gone = await self._until_gone(ahead, due)
        if gone and ahead == keys.owner and self._session is not None and self._session.ended is None:
            return await self._take(View(None, view.line, view.queue, view.heir))
        return None

    def _heir(self, view: View) -> str | None:
        """The place of who is to come next, if somebody in the line was named."""
        named = self.keys.place(view.heir.value.decode(errors="replace")) if view.heir else None
        return named if any(entry.key == named for entry in view.queue) else None

    def _before(self, view: View) -> tuple[Entry, ...] | None:
        """Who is in line before us; None if we are not in it."""
        mine = [n for n, entry in enumerate(view.queue) if entry.key == self._place_key]
        return view.queue[: mine[0]] if mine else None

    async def _take(self, view: View) -> Entry | None:
        """Become owner, as the first in line or past the sign of an empty one."""
        keys, place = self.keys, self._place_key
        then: list[Operation] = [put(keys.owner, self._value, lease=self._lease)]
        compare: list[Compare] = [absent(keys.owner)]
        mine = [entry for entry in view.queue if entry.key == place]
        if mine:
            compare.append(created(place, mine[0].create_revision))
            then.append(delete(place))
        signs = [(keys.heir, view.heir)] if self._heirs else []
        if len(mine) == len(view.queue) and not (mine and self._heirs):  # seven is too many
            signs.append((keys.line, view.line))
        for key, sign in signs:
            compare.append(unchanged(key, sign.revision) if sign else absent(key))
            then += [delete(key)] if sign else []
        answer = await self._write(then, compare)
        return answer if isinstance(answer, Entry) else None

    async def _draw_number(self) -> None:
        """Stand in line: our place, and the sign."""
        mine = put(self._place_key, self._value, lease=self._lease)
        answer = await again(lambda: self._send([mine, put(self.keys.line, b"1")], []))
        assert isinstance(answer, Applied), answer
        self._place = answer.revision

    async def _write(self, then: Sequence[Operation], compare: Sequence[Compare]) -> Entry | Unmet:
        """A transaction that makes us owner. Asked again while unknown: its compare makes that safe."""
        answer = await again(lambda: self._send(then, compare))
        owner: Entry | None
        if isinstance(answer, Applied):
            owner = answer.results[0]
            assert owner is not None, answer
        else:
            owner = answer.entries.get(self.keys.owner)
            if owner is None or owner.value != self._value:
                return answer  # else it was applied before, and the answer was lost
        self._owned = True
        return owner

    async def _send(self, then: Sequence[Operation], compare: Sequence[Compare]) -> Applied | Unmet:
        """One transaction, remembering whether its answer is known."""
        self._in_flight = True
        try:
            answer = await self.store.transact(*then, compare=compare)
        except OutcomeUnknown:
            self._in_doubt = True
            raise
        except NotApplied:
            self._in_flight = False
            raise
        self._in_flight = False
        return answer

    async def _until_gone(self, key: str, due: float) -> bool:
        """Until `key` is not there (True), or we are named next, our lease is over, or it is time to go.

        Or until it is ours: a taking that was given up for lost may still arrive.
        """

        def gone_or_ours(state: State) -> bool:
            return key not in state or state[key].value == self._value

        waits: list[Coroutine[Any, Any, object]] = [until(self.store, key, gone_or_ours)]
        if self._heirs:
            me, heir = self._me.nonce.encode(), self.keys.heir
            waits.append(until(self.store, heir, lambda s: heir in s and s[heir].value == me))
        done = await first_of(due, *waits, self._woken.wait())
        return 0 in done

    @property
    def _place_key(self) -> str:
        return self.keys.place(self._me.nonce)

    @property
    def _doubt(self) -> Doubt:
        return Doubt(self.store, (self._place_key, self.keys.owner), self._value)

    @property
    def _lease(self) -> str:
        assert self._session is not None
        return self._session.lease

    async def _leave(self) -> None:
        """Leave nothing behind: no place, no ownership that nobody knows of."""
        session, self._session = self._session, None
        if session is None:
            return
        doubt = self._doubt
        settled = session.ended is not None
        try:
            if settled:
                return
            if self._in_flight or self._in_doubt or self._owned:
                removed = await again(doubt.settle)
                settled = removed and not self._in_doubt
            elif self._place:
                await again(lambda: self.store.transact(delete(self._place_key)))
                settled = True
                await self._take_the_sign_down()
            else:
                settled = True
        finally:
            if not settled:
                session.retire(doubt.settle)
            session.leave(self)

    async def _take_the_sign_down(self) -> None:
        """If nobody is in line any more: newcomers go the short way again."""
        view = await look(self.store, self.keys)
        if view.line is not None and not view.queue:
            sign = unchanged(self.keys.line, view.line.revision)
            await again(lambda: self.store.transact(delete(self.keys.line), compare=[sign]))

    def _taken(self, view: View, began: float) -> Taken:
        before = self._before(view)
        ahead = len(view.queue if before is None else before)
        if view.owner is None:
            first = read_owner(view.queue[0]) if view.queue else None
            who = f"is being handed over to {first.owner}" if first else "is just being taken by somebody"
            return Taken(
                f"{self.title} {who}; waited {clock.loop_now() - began:.3g} s. "
                "Ask again, or wait longer (wait_s).",
                owner=first.owner if first else None,
            )
        owner = read_owner(view.owner)
        since = None if math.isnan(owner.since) else owner.since
        more = f", {ahead} before us in line" if ahead else ""
        return Taken(
            f"{self.title} is held by {owner.owner}{said(since)}{more}; waited "
            f"{clock.loop_now() - began:.3g} s. Ask again, or wait longer (wait_s).",
            owner=owner.owner,
            since=since,
        )
