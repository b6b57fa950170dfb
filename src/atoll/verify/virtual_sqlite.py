"""SQLite on a virtual disk: the real library, on files that forget what was never forced.

A stunt double's car with the real engine in it. SQLite believes it writes to a disk; when the power is
cut, the disk that is found afterwards is opened by another SQLite, and must hold what was promised.

No shared memory: a write-ahead log works with `locking_mode=EXCLUSIVE` only, a rollback journal always.
"""

from __future__ import annotations

from typing import Any

import apsw

from atoll.verify.virtual_disk import VirtualDisk, VirtualFile

_NEW_NAMES = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL


class SqliteVirtualVfs(apsw.VFS):
    """A VFS over `disk`; `connect` opens a database on it. Close it when done with it."""

    _made = 0

    def __init__(self, disk: VirtualDisk) -> None:
        SqliteVirtualVfs._made += 1
        self.name = f"atoll-virtual-{SqliteVirtualVfs._made}"
        self.disk = disk
        self._locks: dict[str, _Locks] = {}
        super().__init__(self.name, "", iVersion=1)

    def connect(self, path: str) -> apsw.Connection:
        return apsw.Connection(path, vfs=self.name)

    def xAccess(self, pathname: str, flags: int) -> bool:
        return self.disk.exists(pathname)

    def xFullPathname(self, filename: str) -> str:
        return filename

    def xDelete(self, filename: str, syncdir: bool) -> None:
        if self.disk.exists(filename):
            self.disk.unlink(filename)
        if syncdir:
            try:
                self.disk.sync_folder(filename.rpartition("/")[0])
            except OSError as error:
                raise apsw.IOError(str(error)) from error

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        path = name.filename() if isinstance(name, apsw.URIFilename) else (name or f"temporary-{id(flags)}")
        try:
            file = self.disk.open(path, create=bool(flags[0] & apsw.SQLITE_OPEN_CREATE))
        except FileNotFoundError:
            raise apsw.CantOpenError(path) from None
        return _File(file, self.disk, self._locks.setdefault(path, _Locks()), bool(flags[0] & _NEW_NAMES))


class _Locks:
    """SQLite's five lock states over the open handles of one file."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}

    def others(self, handle: int) -> int:
        return max((level for other, level in self.held.items() if other != handle), default=0)


class _File:
    """One open handle, with the methods apsw asks of a VFS file."""

    def __init__(self, file: VirtualFile, disk: VirtualDisk, locks: _Locks, new_name: bool) -> None:
        self._file = file
        self._disk = disk
        self._locks = locks
        self._sync_folder = new_name

    def xRead(self, amount: int, offset: int) -> bytes:
        return self._file.read(offset, amount)

    def xWrite(self, data: bytes, offset: int) -> None:
        try:
            self._file.write(offset, data)
        except OSError as error:
            raise apsw.FullError(str(error)) from error

    def xTruncate(self, size: int) -> None:
        self._file.truncate(size)

    def xSync(self, flags: int) -> None:
        """As SQLite's own: the first sync of a new journal forces its name too."""
        try:
            self._file.sync()
            if self._sync_folder:
                self._disk.sync_folder(self._file.path.rpartition("/")[0])
                self._sync_folder = False
        except OSError as error:
            raise apsw.IOError(str(error)) from error

    def xFileSize(self) -> int:
        return self._file.size

    def xSectorSize(self) -> int:
        return 512

    def xDeviceCharacteristics(self) -> int:
        return 0

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xLock(self, level: int) -> None:
        others = self._locks.others(id(self))
        shared = level == apsw.SQLITE_LOCK_SHARED and others < apsw.SQLITE_LOCK_PENDING
        reserved = level == apsw.SQLITE_LOCK_RESERVED and others < apsw.SQLITE_LOCK_RESERVED
        alone = others == apsw.SQLITE_LOCK_NONE
        if not (shared or reserved or alone):
            raise apsw.BusyError("another handle of the virtual file holds it")
        self._locks.held[id(self)] = level

    def xUnlock(self, level: int) -> None:
        self._locks.held[id(self)] = level

    def xCheckReservedLock(self) -> bool:
        return max(self._locks.held.values(), default=0) >= apsw.SQLITE_LOCK_RESERVED

    def xClose(self) -> None:
        self._locks.held.pop(id(self), None)
