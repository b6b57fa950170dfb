"""The virtual disk: files in memory that forget, at a power cut, what was never forced.

Writing to a disk is writing on a steamed window: it looks written, and until somebody varnishes it
(fsync) a draught may take any of it. A *name* in a folder is steam too, until the folder is varnished;
so a file can be safe and unfindable.

`power_loss` answers the disk that is found afterwards and leaves this one as it was, so that one
moment can be cut off in many ways.

Source: Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014, section 2; Rebello et al.,
"Can Applications Recover from fsync Failures?", USENIX ATC 2020, for a failed fsync.
Departure: names within one folder become durable in their order (as on a journalling file system);
writes to one file in any order.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Sequence
from enum import Enum

SECTOR = 512


class PowerLoss(Enum):
    """What of the unforced survives."""

    KEPT = "kept"  # all of it: the machine was lucky, or only the process died
    DROPPED = "dropped"  # none of it
    TORN = "torn"  # of each file the first so many writes, the last of them cut at a sector
    REORDERED = "reordered"  # of each file any of the writes
    LOST_ENTRIES = "lost entries"  # all data, but no name that was not forced in its folder


class _Inode:
    """A file's forced bytes, and the writes since: (offset, data), or (size, None) for a truncation."""

    def __init__(self, forced: bytes = b"") -> None:
        self.forced = forced
        self.pending: list[tuple[int, bytes | None]] = []
        self.unforceable: list[tuple[int, bytes | None]] = []
        """Still seen, but a failed fsync has marked them clean: no later one writes them."""
        self.seen = bytearray(forced)


def _apply(content: bytearray, writes: Sequence[tuple[int, bytes | None]]) -> bytearray:
    for offset, data in writes:
        if data is None:
            del content[offset:]
            content.extend(bytes(offset - len(content)))
        else:
            content.extend(bytes(max(0, offset - len(content))))
            content[offset : offset + len(data)] = data
    return content


class VirtualFile:
    """An open file. Offsets and sizes in bytes; errors are OSError, as the kernel's."""

    def __init__(self, disk: VirtualDisk, path: str, inode: _Inode) -> None:
        self.path = path
        self._disk = disk
        self._inode = inode

    @property
    def size(self) -> int:
        return len(self._inode.seen)

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        end = self.size if size is None else offset + size
        return bytes(self._inode.seen[offset:end])

    def write(self, offset: int, data: bytes) -> None:
        growth = max(0, offset + len(data) - self.size)
        self._disk._make_room(growth, self.path)
        self._do((offset, bytes(data)))

    def append(self, data: bytes) -> None:
        self.write(self.size, data)

    def truncate(self, size: int) -> None:
        self._do((size, None))

    def _do(self, write: tuple[int, bytes | None]) -> None:
        self._inode.pending.append(write)
        _apply(self._inode.seen, [write])
        self._disk._changed()

    def sync(self) -> None:
        """Force the bytes, not the name. A failure loses them: trying again only seems to work."""
        self._disk.syncs += 1
        inode = self._inode
        if self._disk._sync_fails():
            inode.unforceable += inode.pending
            inode.pending = []
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.path)
        inode.forced = bytes(_apply(bytearray(inode.forced), inode.pending))
        inode.pending = []
        self._disk._changed()


class VirtualDisk:
    """Folders of files. `bytes_max`: beyond it a write is ENOSPC. Paths are opaque, parted by `/`."""

    def __init__(self, *, bytes_max: int | None = None) -> None:
        self.bytes_max = bytes_max
        self.syncs = 0
        """Forced writes so far, failed ones and folders included."""
        self.fail_sync_at: int | None = None
        """The number of the fsync that fails with EIO; `syncs` counts them."""
        self.on_change: Callable[[], None] | None = None
        """Called after each write, truncation, fsync and change of a name: the moments to cut the power."""
        self._seen: dict[str, _Inode] = {}
        self._forced: dict[str, _Inode] = {}
        self._renames: list[tuple[tuple[str, _Inode | None], ...]] = []

    def open(self, path: str, *, create: bool = True) -> VirtualFile:
        """The file at `path`, made empty if `create` and it is not there."""
        if path not in self._seen:
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            self._name((path, _Inode()))
        return VirtualFile(self, path, self._seen[path])

    def exists(self, path: str) -> bool:
        return path in self._seen

    def listdir(self, folder: str = "") -> list[str]:
        return sorted(path for path in self._seen if _folder(path) == folder)

    def unlink(self, path: str) -> None:
        if path not in self._seen:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self._name((path, None))

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old` at once, as it is seen; the names are forced by `sync_folder`."""
        if old not in self._seen:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), old)
        self._name((new, self._seen[old]), (old, None))

    def sync_folder(self, folder: str = "") -> None:
        """Force the names in one folder."""
        self.syncs += 1
        if self._sync_fails():
            raise OSError(errno.EIO, os.strerror(errno.EIO), folder)
        for step in self._renames:
            _rename(self._forced, [(p, inode) for p, inode in step if _folder(p) == folder])
        left = [tuple(one for one in step if _folder(one[0]) != folder) for step in self._renames]
        self._renames = [step for step in left if step]
        self._changed()

    def power_loss(self, how: PowerLoss, dice: random.Random) -> VirtualDisk:
        """The disk as it is found when the power is back: everything on it is forced."""
        names = dict(self._forced)
        match how:
            case PowerLoss.KEPT:
                steps = len(self._renames)
            case PowerLoss.DROPPED | PowerLoss.LOST_ENTRIES:
                steps = 0
            case _:
                steps = dice.randint(0, len(self._renames))
        for step in self._renames[:steps]:
            _rename(names, step)
        found = VirtualDisk(bytes_max=self.bytes_max)
        for path, inode in names.items():
            survivor = _Inode(_surviving(inode, how, dice))
            found._seen[path] = found._forced[path] = survivor
        return found

    def _name(self, *step: tuple[str, _Inode | None]) -> None:
        self._renames.append(step)
        _rename(self._seen, step)
        self._changed()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def _make_room(self, growth: int, path: str) -> None:
        if self.bytes_max is not None:
            if sum(len(inode.seen) for inode in self._seen.values()) + growth > self.bytes_max:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def _sync_fails(self) -> bool:
        return self.syncs == self.fail_sync_at


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _rename(names: dict[str, _Inode], step: Sequence[tuple[str, _Inode | None]]) -> None:
    for path, inode in step:
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode


def _surviving(inode: _Inode, how: PowerLoss, dice: random.Random) -> bytes:
    """What a file holds after the cut: its forced bytes and some of the writes since."""
    writes = inode.unforceable + inode.pending
    match how:
        case PowerLoss.KEPT | PowerLoss.LOST_ENTRIES:
            kept = writes
        case PowerLoss.DROPPED:
            kept = []
        case PowerLoss.REORDERED:
            kept = [write for write in writes if dice.random() < 0.5]
        case PowerLoss.TORN:
            kept = writes[: dice.randint(0, len(writes))]
            if kept and (data := kept[-1][1]):
                sectors = dice.randint(0, len(data) // SECTOR)
                kept = [*kept[:-1], (kept[-1][0], data[: sectors * SECTOR])]
    return bytes(_apply(bytearray(inode.forced), kept))
