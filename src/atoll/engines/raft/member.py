"""Member: one voice of a cluster, put together from its parts: folder, machine, hands, lines, door, desk.

Opening a branch office: unlock the room, read the books, sit the clerk down, connect the telephones, and only
then unlock the front door.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from atoll import clock
from atoll.algorithms.raft.machine import Raft
from atoll.algorithms.raft.messages import Membership
from atoll.engines.raft.acquaintances import Acquaintances
from atoll.engines.raft.connection import Connection, dial
from atoll.engines.raft.consensus import Consensus
from atoll.engines.raft.door import Door
from atoll.engines.raft.folder import DataFolder, Identity
from atoll.engines.raft.frames import FORMAT, FORMAT_OLDEST, FRAME_BYTES_MAX, MAGIC, Caller, Hello
from atoll.engines.raft.member_options import MemberOptions, cluster_of
from atoll.engines.raft.peers import Peers, Self
from atoll.engines.raft.runtime import Runtime
from atoll.engines.raft.tls import check_open_door
from atoll.engines.raft.watchdog import Watchdog
from atoll.errors import ConfigurationError, NotReady, NotSent

log = logging.getLogger("atoll.raft")
JOIN_S = 30.0
"""How long a member that joins asks for its cluster before it gives up."""


class Serves(Protocol):
    """What serves clients: `desk.Desk`."""

    def welcome(self, connection: Connection, hello: Hello) -> None: ...
    async def close(self) -> None: ...


@dataclass(slots=True)
class Member:
    """One that runs in this process."""

    options: MemberOptions
    folder: DataFolder
    runtime: Runtime
    consensus: Consensus
    door: Door
    peers: Peers
    watchdog: Watchdog

    async def ended(self) -> str:
        """Returns when this member must not go on, with the sentence that says why."""
        return await asyncio.shield(self.runtime.ended)

    async def hand_over(self) -> None:
        """Before a stop that was asked for: let another lead, if one can."""
        consensus = self.consensus
        if not consensus.is_leader or len(consensus.membership.voters) < 2:
            return
        try:
            await consensus.transfer()
        except (NotReady, NotSent) as error:
            log.info("%s stops without a successor: %s", self.options.id, error)

    def about(self) -> dict[str, Any]:
        """What whoever started it wants to know."""
        me = self.peers.me
        return {"name": me.name, "cluster": me.cluster, "place": me.place, "listen": self.door.place}


@asynccontextmanager
async def running(
    options: MemberOptions,
    *,
    prepared: DataFolder | None = None,
    desk: Callable[[Consensus], Serves] | None = None,
) -> AsyncIterator[Member]:
    """A member at work in this event loop. User code in its loop would stall its heartbeats: see Node."""
    if options.where:
        check_open_door(options.where, options.tls, options.insecure)
    async with AsyncExitStack() as stack:
        folder: DataFolder = prepared if prepared else await asyncio.to_thread(DataFolder, options.data)
        stack.callback(folder.close)
        identity = folder.identity or await _establish(folder, options)
        _check_identity(identity, options)
        listen = _where(identity, options)
        await asyncio.to_thread(folder.load)
        place = options.place or options.members.get(options.id, "") or listen
        me = Self(options.id, identity.cluster, identity.incarnation, clock.unique_id(), place)
        final: list[str] = []
        peers = Peers(me, Acquaintances(options.data), final.append, options.tls, options.members)
        stack.callback(peers.close)
        log_, settings = folder.log, options.settings
        term, vote = log_.term_and_vote
        machine = Raft(
            options.id,
            log_,
            term=term,
            vote=vote,
            bootstrap=identity.bootstrap,
            settings=settings,
            dice=clock.chance(),
            now=clock.lease_now(),
            applied=folder.applied,
        )
        runtime = Runtime(machine, folder, peers, settings)
        peers.final = runtime.end
        stack.callback(runtime.close)
        consensus = Consensus(runtime, folder.state, settings, options.compaction)
        stack.callback(consensus.close)
        counter = (desk or _desk())(consensus)
        stack.push_async_callback(counter.close)
        door = Door(peers, runtime.heard, counter.welcome, bytes_max=FRAME_BYTES_MAX)
        stack.callback(door.close)
        await door.open(listen)
        watchdog = Watchdog(settings.election_s / 2)
        stack.callback(watchdog.close)
        runtime.start(consensus)
        yield Member(options, folder, runtime, consensus, door, peers, watchdog)


def _where(identity: Identity, options: MemberOptions) -> str:
    """Where to listen: as told, or as the folder knows."""
    listen = options.where or identity.bootstrap.places.get(options.id, "")
    if not listen:
        raise ConfigurationError(
            f"found no place for {options.id} to listen at; expected --listen host:port, "
            "where others reach it."
        )
    check_open_door(listen, options.tls, options.insecure)
    return listen


def _desk() -> Callable[[Consensus], Serves]:
    from atoll.engines.raft.desk import Desk

    return Desk


async def _establish(folder: DataFolder, options: MemberOptions) -> Identity:
    """The first start in this folder: a new cluster, or a seat in one that stands."""
    if options.members:
        places = dict(options.members)
        identity = Identity(
            cluster=cluster_of(places),
            member=options.id,
            bootstrap=Membership(voters=tuple(sorted(places)), places=places),
            incarnation=clock.unique_id(),
        )
    elif options.join:
        identity = Identity(
            cluster=await _ask_cluster(options),
            member=options.id,
            bootstrap=Membership(voters=()),
            incarnation=clock.unique_id(),
        )
    else:
        raise ConfigurationError(
            f"the data folder {options.data} is new; expected --members, to begin a cluster, or "
            "--join, to join "
            "one that stands."
        )
    await asyncio.to_thread(folder.establish, identity)
    return identity


async def _ask_cluster(options: MemberOptions) -> str:
    """The id of the cluster at `join`."""
    hello = Hello(MAGIC, FORMAT_OLDEST, FORMAT, "", Caller.CLIENT, f"{options.id}, who joins")
    tls = options.tls.for_calling() if options.tls is not None else None
    due = clock.loop_now() + JOIN_S
    while True:
        try:
            connection, welcome = await dial(options.join, hello, _ignore, _ignore, tls=tls)
        except NotSent as error:
            if clock.loop_now() > due:
                raise NotSent(
                    f"{error} Name a member that runs in --join, then start this one again."
                ) from None
            await asyncio.sleep(0.2)
            continue
        connection.close()
        return welcome.cluster


def _ignore(*_: object) -> None:
    return


def _check_identity(identity: Identity, options: MemberOptions) -> None:
    if identity.member != options.id:
        raise ConfigurationError(
            f"the data folder {options.data} is that of the member {identity.member!r}; found --id "
            f"{options.id}. "
            "Each member has a folder of its own: name the right one, or an empty one."
        )
    first = identity.bootstrap.places
    if options.members and first and options.members.keys() != first.keys():
        log.warning(
            "%s was first started with the members %s; those count, and what was changed "
            "since. Of --members now only the places count",
            options.id,
            ", ".join(first),
        )
