"""Files: how bytes and names are made to stay, and what the system says when there is no room.

Ink, blotting paper and a nail. What is written may still run; what was blotted (forced) stays; and a sheet
hangs where its name says only when the nail was driven in, which is a forced write of the folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def reserve(descriptor: int, size: int) -> None:
    """Take the room now: a forced write into room that is there already is cheaper, and cannot be refused."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise


def write(descriptor: int, data: bytes, offset: int) -> None:
    """All of `data` at `offset`."""
    view = memoryview(data)
    while view:
        done = os.pwrite(descriptor, view, offset)
        offset += done
        view = view[done:]


def _force_through(descriptor: int) -> None:
    """On macOS fsync stops at the drive's own memory; this goes on to the medium."""
    try:
        fcntl.fcntl(descriptor, _FULL)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOTTY, errno.EINVAL):
            raise
        os.fsync(descriptor)


_FULL: int = getattr(fcntl, "F_FULLFSYNC", 0)
force: Callable[[int], None] = _force_through if _FULL else getattr(os, "fdatasync", os.fsync)
"""Ask the disk to keep what was written. Where it raises, it must never be asked again about that file: the
kernel may have thrown the pages away and would say yes."""


def force_folder(folder: Path, force: Callable[[int], None]) -> None:
    """Ask the disk to keep the names in `folder`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        force(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, pieces: Iterable[bytes], force: Callable[[int], None]) -> None:
    """A file of just these bytes, forced; its name is not."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        offset = 0
        for piece in pieces:
            write(descriptor, piece, offset)
            offset += len(piece)
        force(descriptor)
    finally:
        os.close(descriptor)


def read_pieces(path: Path, begins: int = 0, piece: int = 1 << 20) -> Iterable[bytes]:
    """The bytes of a file from `begins` on."""
    with open(path, "rb") as source:
        source.seek(begins)
        while data := source.read(piece):
            yield data
