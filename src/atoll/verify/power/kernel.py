"""Kernel: answers what Linux asks of the forgetting disk, one question after another.

A clerk at a counter with one window. He takes a slip, does what it says, gives the answer through the same
window; nobody overtakes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from atoll.verify.power import protocol as p
from atoll.verify.power.disk import Disk

SILENT = {p.FORGET, p.BATCH_FORGET, p.INTERRUPT}


class Kernel:
    """The clerk: `answer` one request read from /dev/fuse; None where the kernel wants no answer."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self._open: dict[int, tuple[int, int]] = {}
        self._lists: dict[int, list[bytes]] = {}
        self._next = 0
        self._verbs: dict[int, Callable[[int, bytes, tuple[int, int]], bytes]] = {
            p.INIT: self._init,
            p.LOOKUP: self._lookup,
            p.GETATTR: self._getattr,
            p.SETATTR: self._setattr,
            p.READLINK: lambda node, body, who: os.readlink(os.fsencode(self.disk.path(node))),
            p.SYMLINK: self._symlink,
            p.MKNOD: self._mknod,
            p.MKDIR: self._mkdir,
            p.UNLINK: self._remove,
            p.RMDIR: self._remove,
            p.RENAME: lambda node, body, who: self._rename(node, body[:8], body[8:]),
            p.RENAME2: lambda node, body, who: self._rename(node, body[:12], body[16:]),
            p.OPEN: self._opened,
            p.CREATE: self._create,
            p.READ: self._read,
            p.WRITE: self._write,
            p.RELEASE: self._release,
            p.FSYNC: self._fsync,
            p.FSYNCDIR: self._fsyncdir,
            p.SYNCFS: self._syncfs,
            p.FLUSH: lambda node, body, who: b"",
            p.OPENDIR: self._opendir,
            p.READDIR: self._readdir,
            p.RELEASEDIR: self._releasedir,
            p.STATFS: self._statfs,
            p.FALLOCATE: self._fallocate,
            p.DESTROY: lambda node, body, who: b"",
        }

    def answer(self, request: bytes) -> bytes | None:
        """What to write back for one request."""
        _, opcode, unique, node, uid, gid, _, _, _ = p.IN.unpack_from(request)
        if opcode in SILENT:
            return None
        verb = self._verbs.get(opcode)
        try:
            if verb is None:
                raise OSError(errno.ENOSYS, f"opcode {opcode}")
            body = verb(node, request[p.IN.size :], (uid, gid))
        except (KeyError, StopIteration):
            return p.OUT.pack(p.OUT.size, -errno.ESTALE, unique)
        except OSError as error:
            return p.OUT.pack(p.OUT.size, -(error.errno or errno.EIO), unique)
        return p.OUT.pack(p.OUT.size + len(body), 0, unique) + body

    def would_force(self, request: bytes) -> bool:
        """Whether it asks for something to be forced that is not."""
        _, opcode, _, node, *_ = p.IN.unpack_from(request)
        inode = self.disk.nodes.get(node)
        return opcode == p.FSYNC and inode is not None and bool(inode.undo)

    # -- asking ------------------------------------------------------------------------------------

    def _init(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        minor, readahead = int.from_bytes(body[4:8], "little"), int.from_bytes(body[8:12], "little")
        return p.init_answer(minor, readahead)

    def _lookup(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        return self._entry(self.disk.node(self.disk.below(node, _name(body))))

    def _entry(self, node: int) -> bytes:
        return p.entry(node, os.lstat(self.disk.path(node)))

    def _getattr(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        return p.ATTR_OUT.pack(0, 0, 0) + p.attributes(node, self._stat(node))

    def _stat(self, node: int) -> os.stat_result:
        """Of a file that no name leads to any more, by whoever has it open."""
        if node in self.disk.nodes:
            return os.lstat(self.disk.path(node))
        return os.fstat(next(handle for handle, opened in self._open.values() if opened == node))

    def _statfs(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        found = os.statvfs(self.disk.root)
        sizes = (found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree)
        return p.STATFS_OUT.pack(*sizes, found.f_bsize, 255, found.f_frsize, 0)

    def _opendir(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        folder, lines = self.disk.path(node), []
        for place, name in enumerate([".", "..", *sorted(os.listdir(folder))], 1):
            path = folder if name in (".", "..") else os.path.join(folder, name)
            found = os.lstat(path)
            number = node if path == folder else self.disk.node(path)
            lines.append(p.dirent(number, place, os.fsencode(name), found.st_mode))
        self._next += 1
        self._lists[self._next] = lines
        return p.OPEN_OUT.pack(self._next, 0, 0)

    def _readdir(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        handle, offset, size = p.READ_IN.unpack_from(body)[:3]
        answer = b""
        for line in self._lists[handle][offset:]:
            if len(answer) + len(line) > size:
                break
            answer += line
        return answer

    def _releasedir(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        self._lists.pop(int.from_bytes(body[:8], "little"), None)
        return b""

    # -- names -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close what was open: whoever had it is gone."""
        for handle, _ in self._open.values():
            os.close(handle)
        self._open.clear()

    def _made(self, path: str, who: tuple[int, int]) -> int:
        if os.geteuid() == 0:
            os.lchown(path, *who)
        return self.disk.made(path)

    def _mknod(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        path = self.disk.below(node, _name(body[16:]))
        mode = int.from_bytes(body[:4], "little")
        if not (stat.S_ISREG(mode) or stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)):
            raise OSError(errno.EPERM, "no devices")
        os.mknod(path, mode)
        return self._entry(self._made(path, who))

    def _mkdir(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        path = self.disk.below(node, _name(body[8:]))
        os.mkdir(path)
        os.chmod(path, int.from_bytes(body[:4], "little") & 0o7777)
        return self._entry(self._made(path, who))

    def _symlink(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        name, target = body.split(b"\0")[:2]
        path = self.disk.below(node, os.fsdecode(name))
        os.symlink(target, os.fsencode(path))
        return self._entry(self._made(path, who))

    def _remove(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        self.disk.remove(self.disk.below(node, _name(body)))
        return b""

    def _rename(self, node: int, fixed: bytes, names: bytes) -> bytes:
        parent, flags = int.from_bytes(fixed[:8], "little"), int.from_bytes(fixed[8:12], "little")
        old, new = (os.fsdecode(part) for part in names.split(b"\0")[:2])
        path = self.disk.below(parent, new)
        if flags & 1 and os.path.lexists(path):
            raise OSError(errno.EEXIST, new)
        if flags & ~1:
            raise OSError(errno.EINVAL, "no exchange of names")
        self.disk.rename(self.disk.below(node, old), path)
        return b""

    # -- content -----------------------------------------------------------------------------------

    def _setattr(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        wish = p.SETATTR_IN.unpack_from(body)
        valid, size, path = wish[0], wish[3], self.disk.path(node)
        if valid & p.SET_MODE:
            os.chmod(path, wish[11] & 0o7777)
        if valid & (p.SET_UID | p.SET_GID):
            os.lchown(path, wish[13] if valid & p.SET_UID else -1, wish[14] if valid & p.SET_GID else -1)
        if valid & p.SET_SIZE:
            self.disk.resize(node, size)
        if valid & (p.SET_ATIME | p.SET_MTIME):
            found = os.lstat(path)
            atime = found.st_atime_ns if not valid & p.SET_ATIME else wish[5] * 10**9 + wish[8]
            mtime = found.st_mtime_ns if not valid & p.SET_MTIME else wish[6] * 10**9 + wish[9]
            if not valid & (p.SET_ATIME_NOW | p.SET_MTIME_NOW):
                os.utime(path, ns=(atime, mtime), follow_symlinks=False)
        return self._getattr(node, b"", who)

    def _handle(self, node: int) -> bytes:
        handle = os.open(self.disk.path(node), os.O_RDWR)
        self._next += 1
        self._open[self._next] = (handle, node)
        return p.OPEN_OUT.pack(self._next, 0, 0)

    def _opened(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        if int.from_bytes(body[:4], "little") & os.O_TRUNC:
            self.disk.resize(node, 0)
        return self._handle(node)

    def _create(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        path = self.disk.below(node, _name(body[16:]))
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        os.chmod(path, int.from_bytes(body[4:8], "little") & 0o7777)
        made = self._made(path, who)
        return self._entry(made) + self._handle(made)

    def _read(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        handle, offset, size = p.READ_IN.unpack_from(body)[:3]
        return os.pread(self._open[handle][0], size, offset)

    def _write(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        handle, offset, size = p.WRITE_IN.unpack_from(body)[:3]
        data = body[p.WRITE_IN.size : p.WRITE_IN.size + size]
        return p.WRITE_OUT.pack(self.disk.write(node, self._open[handle][0], data, offset), 0)

    def _release(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        handle, _ = self._open.pop(int.from_bytes(body[:8], "little"))
        os.close(handle)
        return b""

    def _fsync(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        self.disk.force(node)
        return b""

    def _fsyncdir(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        self.disk.force_names()
        return b""

    def _syncfs(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        self.disk.force_all()
        return b""

    def _fallocate(self, node: int, body: bytes, who: tuple[int, int]) -> bytes:
        _, offset, length, mode, _ = p.FALLOCATE_IN.unpack_from(body)
        if mode & ~1:
            raise OSError(errno.EOPNOTSUPP, "no holes")
        if not mode and offset + length > os.stat(self.disk.path(node)).st_size:
            self.disk.resize(node, offset + length)
        return b""


def _name(body: bytes) -> str:
    return os.fsdecode(body.split(b"\0", 1)[0])
