"""Examination: what the members say of themselves, and what that means for what is kept on them.

A surveyor who asks the council itself: how many vote, who leads, how full the archive is, and whether the
alarm bell has been ringing for a week.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from atoll.engines.etcd import wire
from atoll.engines.etcd.call import Ended
from atoll.engines.etcd.endpoint import Endpoint
from atoll.engines.etcd.translation import failure
from atoll.errors import AtollError
from atoll.ports.examining import Finding, Weight, heaviest_first
from atoll.ports.store import Durable

if TYPE_CHECKING:
    from atoll.engines.etcd.attachment import Attachment
    from atoll.engines.etcd.store import EtcdStore

QUOTA = 2 << 30
"""etcd's own --quota-backend-bytes, which it does not tell."""


async def members(at: Attachment) -> list[Any]:
    """The cluster's members, as the one asked knows them."""
    answer = await at.client.read("MemberList", b"", "the question for the members")
    return list(answer.members)


async def durability(at: Attachment) -> Durable:
    """QUORUM with three voting members or more; NODE where they are fewer, or may not be asked for."""
    try:
        voting = [member for member in await members(at) if not member.is_learner]
    except AtollError:
        return Durable.NODE
    return Durable.QUORUM if len(voting) >= 3 else Durable.NODE


class EtcdExamining:
    """Looks at the members: reads only."""

    def __init__(self, store: EtcdStore) -> None:
        self._store = store

    async def damage(self) -> Sequence[str]:
        """etcd's own corruption alarm is among the findings."""
        return ()

    async def examine(self) -> Sequence[Finding]:
        """What was found, the heaviest first."""
        at = await self._store.attached()
        heard = await asyncio.gather(*(_status(at, endpoint) for endpoint in at.client.endpoints))
        found = [*_silent(heard)]
        statuses = [status for _, status in heard if not isinstance(status, str)]
        for status in statuses[:1]:
            found += _versions(statuses)
            found += _sizes(status)
        try:
            found += _members(await members(at), len(at.client.endpoints))
            alarms = await at.client.read("Alarm", b"", "the question for alarms")
            found += _alarms(alarms.alarms)
            found += await _compaction(at)
        except AtollError as error:
            found.append(_closed(error))
        if at.doubt is not None:
            found.append(_doubted(at))
        return heaviest_first(found)


async def _status(at: Attachment, endpoint: Endpoint) -> tuple[str, Any]:
    """A member's status, or why there is none."""
    try:
        return endpoint.address, await endpoint.ask("Status", b"", at.client.attempt_s)
    except Ended as error:
        failed = failure(error, endpoint.address)
        return endpoint.address, failed.text or failed.code


def _silent(heard: Sequence[tuple[str, Any]]) -> Iterator[Finding]:
    for address, status in heard:
        if isinstance(status, str):
            yield Finding(
                setting=f"member {address}",
                value=f"does not answer: {status[:120]}",
                weight=Weight.COSTS,
                cost="The cluster stands with one member less: the next that fails may stop every write.",
                fix="Start it again, or correct its address in the URL.",
            )
        elif not status.leader:
            yield Finding(
                setting=f"member {address}",
                value="knows no leader",
                weight=Weight.BREAKS,
                cost="No majority can be reached from it, so it neither reads nor writes.",
                fix="Mend the network between the members, or start those that are down.",
            )


def _versions(statuses: Sequence[Any]) -> Iterator[Finding]:
    for version in sorted({status.version for status in statuses}):
        numbers = tuple(int(part) for part in version.split("-")[0].split(".")[:3] if part.isdigit())
        weight, cost, fix = Weight.FINE, "Nothing against it is known here.", ""
        if (3, 5, 0) <= numbers <= (3, 5, 2):
            weight, fix = Weight.BREAKS, "Upgrade to the newest 3.5 or 3.6."
            cost = (
                "A member killed under load may come back with other data than the rest, and nobody notices."
            )
        elif numbers < (3, 4):
            weight, fix = Weight.BREAKS, "Upgrade, one minor release after the other."
            cost = "Watches choose no number of their own there, so observing does not work."
        elif numbers < (3, 5):
            weight, fix = Weight.COSTS, "Upgrade to the newest 3.5 or 3.6."
            cost = "This line is no longer mended; known faults of its watches stay."
        yield Finding(setting="version", value=version, weight=weight, cost=cost, fix=fix)


def _sizes(status: Any) -> Iterator[Finding]:
    used, size = status.db_size_in_use or status.db_size, status.db_size
    full = size > QUOTA * 0.8
    yield Finding(
        setting="database size",
        value=f"{size:,} bytes, {used:,} in use",
        weight=Weight.COSTS if full else Weight.FINE,
        cost="At --quota-backend-bytes (2 GiB if nothing else was set) the cluster takes no more writes.",
        fix="etcdctl compact REVISION, etcdctl defrag; or a higher --quota-backend-bytes." if full else "",
    )


def _members(found: Sequence[Any], named: int) -> Iterator[Finding]:
    voting = [member for member in found if not member.is_learner]
    count = len(voting)
    weight, fix = Weight.FINE, ""
    cost = f"Any {(count - 1) // 2} of them may fail and nothing that was answered is lost."
    if count < 3:
        weight, fix = Weight.COSTS, "Run three or five members, on machines that fail apart."
        cost = (
            "One member that fails stops all writes; one disk that is lost takes what was answered with it."
        )
    elif count % 2 == 0:
        weight, fix = Weight.NOTE, "Add or remove one."
        cost = (
            "An even number tolerates no more failures than one member less, and each write waits for more."
        )
    yield Finding(setting="voting members", value=str(count), weight=weight, cost=cost, fix=fix)
    if named < count:
        yield Finding(
            setting="members in the URL",
            value=f"{named} of {count}",
            weight=Weight.COSTS,
            cost="When those named are down, this client finds none, though the cluster may stand.",
            fix="Name every member: etcd://a:2379,b:2379,c:2379.",
        )


def _alarms(found: Sequence[Any]) -> Iterator[Finding]:
    for one in found:
        if one.alarm == wire.NOSPACE:
            yield Finding(
                setting="alarm",
                value=f"NOSPACE of member {one.member_id:x}",
                weight=Weight.BREAKS,
                cost="Every write is refused until the alarm is disarmed.",
                fix="etcdctl compact REVISION; etcdctl defrag; etcdctl alarm disarm.",
            )
        elif one.alarm == wire.CORRUPT:
            yield Finding(
                setting="alarm",
                value=f"CORRUPT of member {one.member_id:x}",
                weight=Weight.BREAKS,
                cost="The members' data differ: what you read depends on whom you ask.",
                fix="Remove that member, add it again empty, then etcdctl alarm disarm.",
            )


async def _compaction(at: Attachment) -> list[Finding]:
    """Whether somebody compacts: the setting is not told, but whether old revisions are still there is."""
    answer = await at.client.read("Range", wire.message("RangeRequest", key=at.keys.meta), "a look")
    revision = answer.header.revision
    if revision < 100_000:
        return []
    old = wire.message("RangeRequest", key=at.keys.meta, revision=revision - 90_000, count_only=True)
    try:
        await at.client.read("Range", old, "a look at an old revision")
    except AtollError:
        return []
    return [
        Finding(
            setting="--auto-compaction-retention",
            value=f"revision {revision - 90_000} of {revision} is still there",
            weight=Weight.COSTS,
            cost="Old revisions are kept until somebody compacts; the database grows to its quota and stops.",
            fix="--auto-compaction-mode=periodic --auto-compaction-retention=1h on every member.",
        )
    ]


def _closed(error: AtollError) -> Finding:
    return Finding(
        setting="members and alarms",
        value="not told",
        weight=Weight.NOTE,
        cost=f"What could not be asked was not examined: {str(error)[:200]}".rstrip(".") + ".",
        fix="Examine it as root.",
    )


def _doubted(at: Attachment) -> Finding:
    return Finding(
        setting="incarnation",
        value=f"{at.client.cluster_id:x}: {at.doubt}",
        weight=Weight.BREAKS,
        cost="Tokens given now could be lower than tokens given before, so exclusive use is refused.",
        fix=f"When it is meant to be so: atoll store bump {at.url}",
    )
