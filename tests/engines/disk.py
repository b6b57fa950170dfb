"""A disk that counts what is forced and fails on command: an apsw VFS over the system's own."""

from __future__ import annotations

import itertools
from typing import Any

import apsw

_names = itertools.count()


class Disk:
    """`syncs`: forced writes so far, of the log and of the file. Set `fail_sync` or `fail_write` to break it.

    `full_after`: bytes that may still be written before it says that there is no room.
    """

    def __init__(self) -> None:
        self.syncs = 0
        self.fail_sync = False
        self.full_after: int | None = None
        self.name = f"disk{next(_names)}"
        self._vfs = _Vfs(self)


class _Vfs(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        super().__init__(disk.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(self._disk, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:
        if self._disk.fail_sync:
            raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)
        self._disk.syncs += 1
        super().xSync(flags)

    def xWrite(self, data: Any, offset: int) -> None:
        if self._disk.full_after is not None:
            self._disk.full_after -= len(data)
            if self._disk.full_after < 0:
                raise apsw.exception_for(apsw.SQLITE_FULL)
        super().xWrite(data, offset)


def integrity(path: Any) -> str:
    """What SQLite itself says of the file, read by a connection of its own."""
    connection = apsw.Connection(str(path))
    try:
        return str(connection.pragma("integrity_check"))
    finally:
        connection.close()
