"""Recovery: goes on with one member's folder when the others are lost for good, as another cluster.

A library that burnt, but for one reader's copy of the catalogue. What is in the copy is the catalogue from
now on; it gets a new cover, so nobody takes another half-burnt copy for it, and the old one is kept in a box.

Everything in the log is applied, agreed or not: what was not agreed was never answered, so it may have
happened. The epoch rises, which makes every token and bookmark of before out of date.

Source: Ongaro (2014), section 11.5, on why this cannot be safe and is needed all the same.
Departure: the id of the cluster changes with it, so members of before are refused and not believed.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from atoll import clock
from atoll.algorithms.raft.events import Write
from atoll.algorithms.raft.messages import Entry, Kind, Member, Membership, Term
from atoll.engines.raft import command, files
from atoll.engines.raft.folder import DataFolder
from atoll.engines.raft.lineage import following, generation
from atoll.engines.raft.snapshots import Snapshots
from atoll.engines.raft.state import State
from atoll.errors import ConfigurationError

_PIECE = 8 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder holds. `last`, `term`: of its newest entry; `applied`: what is known to be agreed."""

    folder: str
    member: Member
    cluster: str
    voters: tuple[Member, ...]
    last: int
    term: Term
    applied: int
    revision: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was done. `kept`: where the folder of before is now."""

    member: Member
    cluster: str
    generation: int
    epoch: int
    revision: int
    kept: str


def look(path: Path) -> Found:
    """What is in a data folder that no process works in. ConfigurationError where it is none."""
    folder = _opened(path)
    try:
        return _found(folder)
    finally:
        folder.close()


def warning(found: Found) -> str:
    """What may be lost, for whoever is about to say yes."""
    others = [name for name in found.voters if name != found.member]
    return (
        f"{found.folder} is that of {found.member}, of a cluster of {', '.join(found.voters)}. Its log goes "
        f"up to entry {found.last:,} of term {found.term} (revision {found.revision:,} of the store). "
        f"Recovering makes {found.member} the only voter of a new generation: what was answered by "
        f"{', '.join(others) or 'others'} beyond that entry is lost, and every token and bookmark of before "
        "is out of date. Of "
        "several folders recover the one with the greatest term, then the greatest entry; never start the "
        "others again, but empty them and add them as new members."
    )


def recover(path: Path) -> Recovered:
    """Make `path` the folder of the only voter of the next generation; the old one stands beside it."""
    path = path.absolute()
    fresh = path.with_name(f"{path.name}.recovered")
    if fresh.exists():
        raise ConfigurationError(
            f"found {fresh}, left by a recovery that was stopped half-way; nothing there counts. Remove it, "
            "then say the same again."
        )
    folder = _opened(path)
    try:
        assert folder.identity is not None
        identity, made = folder.identity, following(folder.identity.cluster)
        epoch, revision = _made(fresh, folder, made)
    finally:
        folder.close()
    kept = path.with_name(f"{path.name}.before-{generation(made)}")
    os.rename(path, kept)
    os.rename(fresh, path)
    files.force_folder(path.parent, files.force)
    return Recovered(identity.member, made, generation(made), epoch, revision, str(kept))


def plain(done: Recovered) -> dict[str, Any]:
    """For programs."""
    return asdict(done)


def sentence(done: Recovered) -> str:
    """For people."""
    return (
        f"{done.member} is the only voter of generation {done.generation}, at epoch {done.epoch} and "
        f"revision {done.revision:,}: every token and bookmark of before is out of date.\n"
        "Start it as before, then add the others anew, each on an empty folder: atoll cluster add.\n"
        f"The folder of before is kept at {done.kept}; remove it when all is well."
    )


def _opened(path: Path) -> DataFolder:
    if not (path / "identity").is_file():
        raise ConfigurationError(
            f"found no member's data in {path}; expected the folder that atoll node was given as --data."
        )
    folder = DataFolder(path)
    try:
        folder.load()
    except BaseException:
        folder.close()
        raise
    return folder


def _found(folder: DataFolder) -> Found:
    identity, log, state = folder.identity, folder.log, folder.state
    assert identity is not None
    memberships = log.memberships()
    newest = log.snapshot()
    members = memberships[-1][1] if memberships else newest.membership if newest else identity.bootstrap
    return Found(
        str(folder.path),
        identity.member,
        identity.cluster,
        members.voters,
        log.last,
        log.term(log.last) or 0,
        state.applied,
        state.revision(),
        state.epoch(),
    )


def _alone(folder: DataFolder) -> Membership:
    """This member and nobody else, where it was reached before."""
    assert folder.identity is not None
    name = folder.identity.member
    known = [membership.places for _, membership in folder.log.memberships()]
    newest = folder.log.snapshot()
    known += [newest.membership.places] if newest else []
    known.append(folder.identity.bootstrap.places)
    place = next((places[name] for places in reversed(known) if name in places), "")
    return Membership((name,), places={name: place} if place else {})


def _made(path: Path, before: DataFolder, cluster: str) -> tuple[int, int]:
    """A folder of the next generation, begun with a snapshot; its epoch and revision.

    The state is advanced in a copy: the folder of before stays as it was.
    """
    assert before.identity is not None
    alone = _alone(before)
    fresh = DataFolder(path)
    try:
        fresh.establish(msgspec.structs.replace(before.identity, cluster=cluster, bootstrap=alone))
        term = max(before.log.term_and_vote[0], before.log.term(before.log.last) or 0) + 1
        with tempfile.TemporaryDirectory(dir=path) as work:
            copy = Path(work) / "state.db"
            before.state.copy_to(copy)
            state = State(copy)
            _advance(state, before, alone, term)
            Snapshots(path / "snapshots", cluster).make(state, alone)
            state.close()
        fresh.load()
        fresh.log.append([Write(1, term, "")])
        fresh.log.sync()
        return fresh.state.epoch(), fresh.state.revision()
    finally:
        fresh.close()


def _advance(state: State, before: DataFolder, alone: Membership, term: Term) -> None:
    """Apply the whole log, then the new membership and a higher epoch."""
    last = before.log.last
    while state.applied < last:
        state.apply(before.log.entries(state.applied + 1, last + 1, _PIECE))
    bump = command.stamp(command.pack((command.Bump(),)), clock.wall_now())
    state.apply(
        (
            Entry(term, last + 1, Kind.MEMBERSHIP, msgspec.msgpack.encode(alone)),
            Entry(term, last + 2, Kind.COMMAND, bump),
        )
    )
