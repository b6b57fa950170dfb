"""Examining: what the members say of themselves, and what that means for what is kept on them.

A surveyor who asks every member of the council in turn: how many vote, who leads, who is behind, how slow the
disks are, and whether the door can be locked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from atoll.engines.raft.council import Council, Member
from atoll.engines.raft.tls import on_loopback
from atoll.ports.examining import Finding, Weight

if TYPE_CHECKING:
    from atoll.engines.raft.store import RaftStore

_HEAVIEST = [Weight.BREAKS, Weight.COSTS, Weight.NOTE, Weight.FINE]
BEHIND_MAX = 10_000
SYNC_SLOW_MS = 50.0


class RaftExamining:
    """Looks at every member: reads only."""

    def __init__(self, store: RaftStore) -> None:
        self._store = store

    async def damage(self) -> Sequence[str]:
        """A member that finds its log or its state spoilt stops and says so; here each is asked."""
        at = await self._store.attached()
        found = await Council(at.members).members()
        return [f"the member {one.name} stopped: {one.said}" for one in found if "damage" in one.said]

    async def examine(self) -> Sequence[Finding]:
        """What was found, the heaviest first."""
        at = await self._store.attached()
        members = [one for one in await Council(at.members).members() if one.belongs]
        card = await at.card(fresh=False)
        found = [
            *_voting(members),
            *_silent(members),
            *_behind(members),
            *_disks(members),
            *_releases(members),
            *_named(at.members.given, members),
        ]
        if self._store.options.ca is None and not all(on_loopback(one.address) for one in members):
            found.append(_open_door())
        if card.frozen is not None:
            found.append(_frozen(card.frozen))
        return sorted(found, key=lambda finding: _HEAVIEST.index(finding.weight))


def _voting(members: Sequence[Member]) -> Iterator[Finding]:
    count = sum(one.votes for one in members)
    weight, fix = Weight.FINE, ""
    cost = f"Any {(count - 1) // 2} of them may fail and nothing that was answered is lost."
    if count < 3:
        weight, fix = (
            Weight.COSTS,
            "Run three or five members, on machines that fail apart: atoll cluster add.",
        )
        cost = "A member that fails stops all writes; a disk that is lost takes what was answered with it."
    elif count % 2 == 0:
        weight, fix = Weight.NOTE, "Add or remove one: atoll cluster add, atoll cluster remove."
        cost = "An even number stands no more failures than one member less, and each write waits for more."
    elif count > 7:
        weight, fix = Weight.NOTE, "Remove some: atoll cluster remove."
        cost = "Each write is sent to every member; beyond seven that costs more than it saves."
    yield Finding(setting="voting members", value=str(count), weight=weight, cost=cost, fix=fix)


def _silent(members: Sequence[Member]) -> Iterator[Finding]:
    if not any(one.leads for one in members):
        yield Finding(
            setting="leader",
            value="none",
            weight=Weight.BREAKS,
            cost="No majority agrees on a leader, so nothing is read and nothing is written.",
            fix="Start the members that are down, or mend the network between them.",
        )
    for one in members:
        if not one.answers:
            yield Finding(
                setting=f"member {one.name or one.address}",
                value=f"does not answer at {one.address}: {one.said[:120]}",
                weight=Weight.COSTS,
                cost="The cluster stands with one member less: the next that fails may stop every write.",
                fix="Start it again; where its disk is lost, remove it and add another under a new name.",
            )


def _behind(members: Sequence[Member]) -> Iterator[Finding]:
    for one in members:
        if one.answers and one.behind > BEHIND_MAX:
            yield Finding(
                setting=f"member {one.name}",
                value=f"{one.behind:,} entries behind",
                weight=Weight.COSTS,
                cost="Until it has caught up the cluster has one member less than it seems to have.",
                fix="See its disk and its network; it catches up by itself when it can.",
            )


def _disks(members: Sequence[Member]) -> Iterator[Finding]:
    for one in members:
        p50_ms = one.sync_p50_ms
        if p50_ms is None:
            continue
        slow = p50_ms > SYNC_SLOW_MS
        yield Finding(
            setting=f"forced write of {one.name}",
            value=f"{p50_ms:.3g} ms in the middle",
            weight=Weight.COSTS if slow else Weight.FINE,
            cost="Each write waits for the forced writes of a majority; it takes at least this long.",
            fix="A disk with a cache that survives a power cut; not one that other programs write to." * slow,
        )


def _releases(members: Sequence[Member]) -> Iterator[Finding]:
    releases = sorted({one.release for one in members if one.release})
    if len(releases) > 1:
        yield Finding(
            setting="release",
            value=", ".join(f"{one.name} {one.release}" for one in members if one.release),
            weight=Weight.NOTE,
            cost="Members one release apart work together, so that a cluster is renewed one by one.",
            fix="Renew the others too, one at a time.",
        )


def _named(named: Sequence[str], members: Sequence[Member]) -> Iterator[Finding]:
    if len(named) < len(members):
        yield Finding(
            setting="members in the URL",
            value=f"{len(named)} of {len(members)}",
            weight=Weight.COSTS,
            cost="When those named are down, a client that starts finds none, though the cluster may stand.",
            fix=f"Name every member: raft://{','.join(one.address for one in members)}",
        )


def _open_door() -> Finding:
    return Finding(
        setting="TLS",
        value="off, beyond this machine",
        weight=Weight.BREAKS,
        cost="Whoever reaches a member's port reads and writes everything, and may call themselves a member.",
        fix="Start the members with --ca, --cert and --key, and give the same three to the URL.",
    )


def _frozen(note: str) -> Finding:
    return Finding(
        setting="frozen",
        value=note[:200],
        weight=Weight.NOTE,
        cost="Every write is refused until it is thawed.",
        fix="atoll store thaw URL, where that is what you want.",
    )
