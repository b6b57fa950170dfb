"""Disk: files in a folder, and beside them what must be undone to see what a power cut would have left.

A chalk board over an engraved plate. Writes are chalk; an fsync engraves what stands on that file. When the
power goes, the chalk is wiped, and the plate is what the next reader finds.

Source: LazyFS (Azevedo et al., VLDB 2024) for the idea; the undo log is our own.
Departure: files lie in a real folder with the newest content, and an undo log goes back to the forced one,
so an fsync costs nothing. Names are as ext4 with its journal keeps them: any fsync forces all names made
before it. So a directory that was never synced is not caught, unless nothing was synced after it.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

Undo = Callable[[], None]


@dataclass(slots=True)
class Inode:
    """One file or folder: its path below the root of content, and what goes back to its forced content."""

    node: int
    path: str
    undo: list[Undo] = field(default_factory=list)
    lost_bytes: int = 0
    gone: bool = False


@dataclass(slots=True)
class Counts:
    """What happened. `forced`: fsyncs of files. `undone_bytes`: what the last cut took away."""

    writes: int = 0
    forced: int = 0
    undone_bytes: int = 0
    undone_writes: int = 0
    undone_names: int = 0
    cuts: int = 0


class Disk:
    """The content below `root`. Methods raise OSError as the calls of the system do."""

    def __init__(self, root: Path) -> None:
        self.root = str(root / "content")
        self.grave = str(root / "grave")
        Path(self.root).mkdir(parents=True, exist_ok=True)
        Path(self.grave).mkdir(exist_ok=True)
        self.nodes: dict[int, Inode] = {1: Inode(1, "")}
        self.by_file: dict[int, int] = {os.lstat(self.root).st_ino: 1}
        self.names: list[Undo] = []
        self.counts = Counts()
        self._buried = 0
        self._newest = 1

    # -- nodes -------------------------------------------------------------------------------------

    def path(self, node: int) -> str:
        """Where its content is now."""
        inode = self.nodes[node]
        return os.path.join(self.grave if inode.gone else self.root, inode.path)

    def below(self, parent: int, name: str) -> str:
        """The content path of `name` in a folder."""
        return os.path.join(self.path(parent), name)

    def node(self, path: str) -> int:
        """The node of a content path; a new one where it was never asked for. Raises OSError."""
        file = os.lstat(path).st_ino
        if file not in self.by_file:
            self._newest += 1
            number = self._newest
            self.by_file[file] = number
            self.nodes[number] = Inode(number, os.path.relpath(path, self.root))
        return self.by_file[file]

    # -- content -----------------------------------------------------------------------------------

    def write(self, node: int, handle: int, data: bytes, offset: int) -> int:
        """Write, and note how to undo it."""
        inode = self.nodes.get(node)
        if inode is None:  # no name leads to it any more
            return os.pwrite(handle, data, offset)
        before, size = os.pread(handle, len(data), offset), os.fstat(handle).st_size
        written = os.pwrite(handle, data, offset)
        inode.undo.append(lambda: self._put_back(inode, before, offset, size))
        inode.lost_bytes += written
        self.counts.writes += 1
        return written

    def resize(self, node: int, size: int) -> None:
        """Cut off or lengthen, and note how to undo it."""
        inode, path = self.nodes[node], self.path(node)
        before = os.stat(path).st_size
        tail = b""
        if size < before:
            with open(path, "rb") as file:
                file.seek(size)
                tail = file.read()
        os.truncate(path, size)
        inode.undo.append(lambda: self._put_back(inode, tail, min(size, before), before))

    def force(self, node: int) -> None:
        """An fsync: this file's content, and every name made so far, stay."""
        if (inode := self.nodes.get(node)) is not None:
            inode.undo.clear()
            inode.lost_bytes = 0
        self.counts.forced += 1
        self.force_names()

    def force_names(self) -> None:
        """The journal is on the plate; what was removed before is gone for good."""
        self.names.clear()
        for inode in [i for i in self.nodes.values() if i.gone]:
            self._forget(inode)

    def force_all(self) -> None:
        """A sync of everything."""
        for node in list(self.nodes):
            self.force(node)

    def _put_back(self, inode: Inode, before: bytes, offset: int, size: int) -> None:
        handle = os.open(self.path(inode.node), os.O_RDWR)
        try:
            os.pwrite(handle, before, offset)
            os.ftruncate(handle, size)
        finally:
            os.close(handle)

    # -- names -------------------------------------------------------------------------------------

    def made(self, path: str) -> int:
        """A name that was just made below `path`; a cut before the next fsync takes it back."""
        node = self.node(path)
        self.names.append(lambda: self._unmake(node))
        return node

    def _unmake(self, node: int) -> None:
        path = self.path(node)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
        self._drop(node)

    def remove(self, path: str) -> None:
        """Take a name away; what it named can come back until the next fsync."""
        if os.path.isdir(path) and not os.path.islink(path) and os.listdir(path):
            raise OSError(39, "directory not empty", path)
        node = self.node(path)
        inode, was = self.nodes[node], path
        self._buried += 1
        inode.path, inode.gone = str(self._buried), True
        os.rename(path, os.path.join(self.grave, inode.path))

        def back() -> None:
            os.rename(self.path(node), was)
            inode.path, inode.gone = os.path.relpath(was, self.root), False

        self.names.append(back)

    def rename(self, old: str, new: str) -> None:
        """Give another name; what had that name is removed first. Files below a folder move with it."""
        node = self.node(old)
        if os.path.lexists(new):
            if self.node(new) == node:
                return
            self.remove(new)
        self._move(node, old, new)
        self.names.append(lambda: self._move(node, new, old))

    def _move(self, node: int, old: str, new: str) -> None:
        os.rename(old, new)
        was, now = os.path.relpath(old, self.root), os.path.relpath(new, self.root)
        for inode in self.nodes.values():
            if not inode.gone and (inode.path == was or inode.path.startswith(was + "/")):
                inode.path = now + inode.path[len(was) :]
        self.nodes[node].path = now

    def _forget(self, inode: Inode) -> None:
        """Nothing brings it back any more; whoever has it open still has it."""
        path = self.path(inode.node)
        self._drop(inode.node)
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        else:
            os.unlink(path)

    def _drop(self, node: int) -> None:
        self.nodes.pop(node, None)
        for file, number in list(self.by_file.items()):
            if number == node:
                del self.by_file[file]

    # -- the plug ----------------------------------------------------------------------------------

    def cut(self, dice: random.Random | None = None) -> None:
        """The power goes. Without dice all that was not forced is lost; with dice some of it is not.

        What a disk had taken on its own before the cut is, file by file, the first so many writes.
        """
        counts = self.counts
        counts.cuts += 1
        counts.undone_bytes = counts.undone_writes = counts.undone_names = 0
        for place, inode in enumerate([inode for inode in self.nodes.values() if inode.undo]):
            most = len(inode.undo) + (place > 0)  # with luck for all of them, nothing would have been tried
            kept = dice.randrange(most) if dice is not None else 0
            lost = inode.undo[kept:]
            if lost:
                counts.undone_bytes += round(inode.lost_bytes * len(lost) / len(inode.undo))
            counts.undone_writes += len(lost)
            for undo in reversed(lost):
                undo()
            inode.undo.clear()
            inode.lost_bytes = 0
        counts.undone_names = len(self.names)
        for undo in reversed(self.names):
            undo()
        self.names.clear()
