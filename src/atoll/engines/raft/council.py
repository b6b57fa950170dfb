"""Council: every member asked one by one, and members added, removed, given the lead.

A visitor who knocks at each councillor's own door. What one says of another is hearsay; here each speaks for
themselves, and who does not open is told so too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from atoll import clock
from atoll.engines.raft import wire
from atoll.engines.raft.link import Broken
from atoll.engines.raft.members import Members
from atoll.errors import ConfigurationError, NotReady, NotSent, OutcomeUnknown

Say = Callable[[str], None]
LOOK_S = 0.1
NEAR = 64
"""A learner that lacks no more entries than this is asked to vote; while others write it never lacks none."""


@dataclass(slots=True)
class Member:
    """One member, by its own words; `said`: why it does not answer."""

    address: str
    name: str = ""
    said: str = ""
    votes: bool = False
    belongs: bool = False
    """It is a member: a voter or a learner. Who was removed, or not added yet, may answer too."""
    behind: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def answers(self) -> bool:
        return bool(self.facts)

    @property
    def leads(self) -> bool:
        return self.facts.get("role") == "leader"

    @property
    def role(self) -> str:
        """What it is, for people."""
        if not self.answers:
            return "silent"
        role = str(self.facts.get("role", "?"))
        if not self.belongs:
            return "no member"
        return "learner" if role == "follower" and not self.votes else role

    @property
    def release(self) -> str:
        return str(self.facts.get("release", ""))

    @property
    def sync_p50_ms(self) -> float | None:
        found = self.facts.get("sync_p50_ms")
        return None if found is None else float(found)

    def number(self, name: str) -> int:
        """One of its counters, -1 where it does not say."""
        return int(self.facts.get(name, -1))


class Council:
    """All members of the cluster that `members` leads to."""

    def __init__(self, members: Members) -> None:
        self._members = members

    async def members(self) -> list[Member]:
        """Every member, as each says of itself; the leader's list of them counts, else the newest term's."""
        heard: dict[str, Member] = {}
        waiting = list(self._members.given)
        while waiting:
            asked = [self._ask(address) for address in waiting]
            heard |= {one.address: one for one in await asyncio.gather(*asked)}
            known = _places(list(heard.values()))
            waiting = [address for address in known.values() if address and address not in heard]
        return _judged(list(heard.values()))

    async def _ask(self, address: str) -> Member:
        members = self._members
        within = clock.remaining_s(members.options.attempt_s)
        try:
            link = await members.line(address, within)
            answer = await link.ask(wire.AskStatus(), within, max(within, 0.001))
        except (NotSent, Broken, TimeoutError) as error:
            return Member(address, said=str(error) or "no answer in time")
        if not isinstance(answer, wire.Status):
            return Member(address, said=f"it answered with {type(answer).__name__}")
        return Member(address, name=link.name, facts=answer.facts)

    async def add(self, name: str, place: str, *, wait_s: float, say: Say) -> None:
        """Add a learner, wait until it has the log, make it a voter. NotReady where it has not in time."""
        await self._patiently(wire.Change("learner", name, place))
        say(f"{name} is a learner at {place}: it receives the log and does not vote")
        until = clock.loop_now() + wait_s
        shown = -1
        why = ""
        while clock.loop_now() < until:
            found = await self.members()
            mine = next((one for one in found if one.address == place), None)
            if mine is not None and mine.votes:
                return
            if mine is None or not mine.answers:
                why = f"it does not answer at {place}"
            elif mine.behind > NEAR:
                why = f"{mine.behind:,} entries behind"
            else:
                try:
                    await self._change(wire.Change("voter", name))
                    say(f"{name} has caught up and votes")
                    return
                except NotReady:
                    why = "it has nearly caught up"
            if mine is not None and mine.behind != shown:
                shown = mine.behind
                say(f"{name}: {why}")
            await asyncio.sleep(LOOK_S)
        raise NotReady(
            f"{name} is a learner and has not caught up in {wait_s:g} s ({why}). It goes on by itself: start "
            f"it (atoll node --id {name} --listen {place} --join ... --data FOLDER), then say the same again."
        )

    async def remove(self, name: str, *, say: Say) -> None:
        """Remove a member; one that leads hands over first."""
        leader = await self._leader()
        known = {*leader.facts.get("voters", ()), *leader.facts.get("learners", ())}
        if name not in known:
            raise ConfigurationError(
                f"found no member {name!r}; expected one of {', '.join(sorted(known))}. Look at the names: "
                "atoll cluster status"
            )
        if leader.name == name and len(leader.facts.get("voters", ())) > 1:
            say(f"{name} leads: it hands over first")
            await self.transfer("")
        await self._patiently(wire.Change("remove", name))

    async def transfer(self, target: str) -> str:
        """Hand the lead to `target`, "" for whoever is furthest; answers who leads now."""
        before = await self._leader()
        if target and target not in before.facts.get("voters", ()):
            raise ConfigurationError(
                f"found no voter {target!r}; expected one of {', '.join(before.facts.get('voters', ()))}."
            )
        if before.name == target:
            return target
        await self._said(wire.Transfer(target), "the hand-over")
        until = clock.loop_now() + self._members.options.ceiling_s
        while clock.loop_now() < until:
            after = await self._leader()
            if after.name != before.name:
                return after.name
            await asyncio.sleep(LOOK_S)
        raise NotReady(f"{before.name} was asked to hand over and still leads. Look at the others' state.")

    async def snapshot(self, name: str = "") -> list[Member]:
        """Make a snapshot on that member, "" for all that answer; answers how they stand."""
        found = [one for one in await self.members() if one.answers and name in ("", one.name)]
        if not found:
            raise ConfigurationError(f"found no member {name!r} that answers.")
        for one in found:
            link = await self._members.line(one.address, self._members.options.attempt_s)
            answer = await self._members.of(link, wire.Save(), "the snapshot")
            assert isinstance(answer, wire.Status)
            one.facts = answer.facts
        return found

    async def _leader(self) -> Member:
        until = clock.loop_now() + clock.remaining_s(self._members.options.ceiling_s)
        while True:
            found = next((one for one in await self.members() if one.leads), None)
            if found is not None:
                return found
            if clock.loop_now() > until:
                raise NotSent(f"no member of {self._members.url} leads. Nothing was changed.")
            await asyncio.sleep(LOOK_S)

    async def _change(self, asked: wire.Change) -> None:
        """A change may be asked again: where it is so already, nothing happens."""
        await self._said(asked, f"the change of {asked.name}")

    async def _patiently(self, asked: wire.Change) -> None:
        """As soon as no other change is under way, and the leader has said its first word."""
        until = clock.loop_now() + self._members.options.ceiling_s
        while True:
            try:
                return await self._change(asked)
            except NotReady:
                if clock.loop_now() > until:
                    raise
                await asyncio.sleep(LOOK_S)

    async def _said(self, verb: wire.Verb, what: str) -> None:
        try:
            await self._members.ask(verb, what)
        except OutcomeUnknown as error:
            raise OutcomeUnknown(f"{error} Look: atoll cluster status") from None


def _places(heard: Sequence[Member]) -> dict[str, str]:
    """Names and addresses by the member that knows best."""
    told = [one for one in heard if one.answers]
    if not told:
        return {}
    best = max(told, key=lambda one: (one.leads, one.number("term"), one.number("commit")))
    return dict(best.facts.get("places", {}))


def _judged(heard: list[Member]) -> list[Member]:
    """In the order of their names, with who votes and who is behind by how much."""
    told = [one for one in heard if one.answers]
    if not told:
        raise NotSent("; ".join(f"{one.address}: {one.said}" for one in heard))
    places = _places(heard)
    best = max(told, key=lambda one: (one.leads, one.number("term"), one.number("commit")))
    names = {address: name for name, address in places.items()}
    newest = max(one.number("last") for one in told)
    voters = {*best.facts.get("voters", ()), *best.facts.get("outgoing", ())}
    by_name: dict[str, Member] = {}
    for one in heard:
        one.name = one.name or names.get(one.address, "")
        one.votes = one.name in voters
        one.belongs = one.votes or one.name in best.facts.get("learners", ())
        one.behind = max(0, newest - one.number("last")) if one.answers else 0
        known = by_name.get(one.name or one.address)
        if known is None or (one.answers and not known.answers):
            by_name[one.name or one.address] = one
    return [by_name[name] for name in sorted(by_name)]
