"""Disk trace: what was done to a folder, step by step, and what a power cut may leave of it.

A film of somebody painting a wall. Only what was varnished (forced) is sure to survive the rain; of the
rest any part may run. The film can be stopped at each frame, and each wall that may be found next morning
can be built from it.

Source: Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014; Zheng et al., "Torturing
Databases for Fun and Profit", OSDI 2014. Departure: names within a folder become durable in their order,
as a journalling file system keeps them; writes within a file in any order, torn at 512 bytes.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

SECTOR = 512


@dataclass(frozen=True, slots=True)
class Created:
    """A new name for a new file."""

    path: str


@dataclass(frozen=True, slots=True)
class Wrote:
    """Bytes into a file."""

    path: str
    offset: int
    data: bytes

    def __str__(self) -> str:
        return f"write {self.path} {self.offset}+{len(self.data)}"


@dataclass(frozen=True, slots=True)
class Truncated:
    """A file cut or stretched to `size`."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Forced:
    """fsync or fdatasync of a file: its bytes and size, not its name."""

    path: str


@dataclass(frozen=True, slots=True)
class FolderForced:
    """fsync of a folder: the names in it."""

    path: str


@dataclass(frozen=True, slots=True)
class Renamed:
    """A file under another name; what had that name is gone."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Linked:
    """A second name for a file."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Unlinked:
    """A name taken away."""

    path: str


@dataclass(frozen=True, slots=True)
class FolderMade:
    """A new folder."""

    path: str


@dataclass(frozen=True, slots=True)
class Marked:
    """Not of the disk: something was promised or answered at this moment, as `text` says."""

    text: str


Naming = Created | Renamed | Linked | Unlinked | FolderMade
Step = Naming | Wrote | Truncated | Forced | FolderForced | Marked


@dataclass(slots=True)
class Inode:
    """A file's forced bytes and what was done to it since."""

    forced: bytes = b""
    pending: list[Wrote | Truncated] = field(default_factory=list)


def parent(path: str) -> str:
    """The folder a name is in, "." for the folder that is recorded."""
    return str(PurePosixPath(path).parent)


@dataclass(slots=True)
class Names:
    """Which name leads where, and which folders there are."""

    files: dict[str, int] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {"."})

    def copy(self) -> Names:
        """Another, to be changed apart."""
        return Names(dict(self.files), set(self.folders))

    def take(self, step: Naming, inode: int) -> None:
        """One step; `inode` is the file it is about."""
        match step:
            case Created(path):
                self.files[path] = inode
            case Renamed(old, new):
                self.files.pop(old, None)
                self.files[new] = inode
            case Linked(_, new):
                self.files[new] = inode
            case Unlinked(path):
                self.files.pop(path, None)
            case FolderMade(path):
                self.folders.add(path)


class Disk:
    """The state of a folder in the middle of a trace: what is forced, and what is pending."""

    def __init__(self, before: dict[str, bytes] | None = None) -> None:
        self.inodes: list[Inode] = []
        self.seen = Names()
        self.forced = Names()
        self.pending: list[tuple[Naming, int]] = []
        for path, content in (before or {}).items():
            self.inodes.append(Inode(content))
            for names in (self.seen, self.forced):
                names.files[path] = len(self.inodes) - 1
                names.folders.update(str(p) for p in PurePosixPath(path).parents)

    def take(self, step: Step) -> None:
        """Go one step on in the trace."""
        match step:
            case Wrote(path) | Truncated(path):
                if (number := self.seen.files.get(path)) is not None:
                    self.inodes[number].pending.append(step)
            case Forced(path):
                if (number := self.seen.files.get(path)) is not None:
                    inode = self.inodes[number]
                    inode.forced = replayed(inode.forced, inode.pending)
                    inode.pending = []
            case FolderForced(path):
                self._force_names(path)
            case Marked():
                pass
            case _:
                self._name(step)

    def _name(self, step: Naming) -> None:
        number = -1
        if isinstance(step, Created):
            self.inodes.append(Inode())
            number = len(self.inodes) - 1
        elif isinstance(step, Renamed | Linked):
            number = self.seen.files.get(step.old, -1)
        self.seen.take(step, number)
        self.pending.append((step, number))

    def _force_names(self, folder: str) -> None:
        kept = []
        for step, number in self.pending:
            name = step.new if isinstance(step, Renamed | Linked) else step.path
            if parent(name) == folder:
                self.forced.take(step, number)
            else:
                kept.append((step, number))
        self.pending = kept

    def unforced(self) -> list[tuple[int, int]]:
        """Every pending write as (inode, number), of files that can still be reached."""
        reachable = sorted(set(self.seen.files.values()) | set(self.forced.files.values()))
        return [(i, n) for i in reachable for n in range(len(self.inodes[i].pending))]


def replayed(content: bytes, steps: list[Wrote | Truncated]) -> bytes:
    """The content after all `steps`."""
    result = bytearray(content)
    for step in steps:
        if isinstance(step, Truncated):
            del result[step.size :]
            result.extend(bytes(step.size - len(result)))
        else:
            result.extend(bytes(max(0, step.offset - len(result))))
            result[step.offset : step.offset + len(step.data)] = step.data
    return bytes(result)


@dataclass(frozen=True, slots=True)
class State:
    """A folder as it may be found. `how`: what became of the unforced, for people."""

    how: str
    files: dict[str, bytes]
    folders: frozenset[str]

    def digest(self) -> bytes:
        """Names it by its content: equal states need to be looked at once."""
        sum = hashlib.blake2b(digest_size=16)
        for path in sorted(self.files):
            sum.update(f"{path}\0{len(self.files[path])}\0".encode())
            sum.update(self.files[path])
        return sum.digest()

    def build(self, folder: Path) -> None:
        """Make it real in an empty folder."""
        for inner in sorted(self.folders):
            (folder / inner).mkdir(parents=True, exist_ok=True)
        for path, content in self.files.items():
            if parent(path) in self.folders:
                (folder / path).write_bytes(content)


Kept = dict[tuple[int, int], slice | None]
"""Of each pending write what survives: all (slice(None)), a part in bytes, nothing (None)."""


def cut(disk: Disk, dice: random.Random, samples: int) -> Iterator[State]:
    """The states a power cut may leave now: the extremes, each write alone, torn ones, a sample."""
    every = disk.unforced()
    names = len(disk.pending)
    all_kept: Kept = dict.fromkeys(every, slice(None))
    none: Kept = dict.fromkeys(every)
    yield _state(disk, "all kept", all_kept, names)
    yield _state(disk, "nothing that was not forced", none, 0)
    if names:
        yield _state(disk, "bytes kept, names lost", all_kept, 0)
        yield _state(disk, "names kept, bytes lost", none, names)
    if not every:
        for number in range(1, names):
            yield _state(disk, f"the first {number} names", all_kept, number)
        return
    picked = every if len(every) <= samples else dice.sample(every, samples)
    for one in picked:
        yield _state(disk, f"without {_name_of(disk, one)}", {**all_kept, one: None}, names)
        yield _state(disk, f"only {_name_of(disk, one)}", {**none, one: slice(None)}, names)
        yield from _torn(disk, one, all_kept, dice)
    for number in range(samples):
        some: Kept = {one: slice(None) if dice.random() < 0.5 else None for one in every}
        yield _state(disk, f"some of the writes, sample {number}", some, dice.randrange(names + 1))


def _torn(disk: Disk, one: tuple[int, int], all_kept: Kept, dice: random.Random) -> Iterator[State]:
    step = disk.inodes[one[0]].pending[one[1]]
    if isinstance(step, Truncated) or len(step.data) < 2:
        return
    first = SECTOR - step.offset % SECTOR
    edges = list(range(first, len(step.data), SECTOR))
    edge = dice.choice(edges) if edges else None
    if edge is not None:
        names = len(disk.pending)
        yield _state(disk, f"{step} torn after {edge} bytes", {**all_kept, one: slice(0, edge)}, names)
        yield _state(disk, f"{step} torn before {edge} bytes", {**all_kept, one: slice(edge, None)}, names)


def _name_of(disk: Disk, one: tuple[int, int]) -> str:
    return str(disk.inodes[one[0]].pending[one[1]])


def _state(disk: Disk, how: str, kept: Kept, names: int) -> State:
    found = disk.forced.copy()
    for step, number in disk.pending[:names]:
        found.take(step, number)
    files = {path: _content(disk, number, kept) for path, number in found.files.items() if number >= 0}
    return State(how, files, frozenset(found.folders))


def _content(disk: Disk, number: int, kept: Kept) -> bytes:
    steps: list[Wrote | Truncated] = []
    for place, step in enumerate(disk.inodes[number].pending):
        part = kept.get((number, place))
        if part is None:
            continue
        if isinstance(step, Wrote) and part != slice(None):
            start = part.start or 0
            step = Wrote(step.path, step.offset + start, step.data[part])
        steps.append(step)
    return replayed(disk.inodes[number].forced, steps)
