"""Translation: what SQLite says of the disk, in Atoll's three families. The only such place.

The question that matters is whether the write may stand. Before COMMIT it never does. At COMMIT a
full disk is a plain no, because the closing frame was not written; a failed fsync is a don't-know,
because that frame may be in the file already.
"""

from __future__ import annotations

import errno

import apsw

from atoll.errors import (
    AtollError,
    ConfigurationError,
    DiskFull,
    FormatRefused,
    NotSent,
    OutcomeUnknown,
    Overloaded,
    ReadOnly,
)

DISK = (
    apsw.FullError,
    apsw.IOError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.PermissionsError,
    apsw.NotADBError,
    apsw.CorruptError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.NoLFSError,
)
"""What is about the file. Anything else a caller's own SQL raised goes to that caller as it is."""


def translate(error: Exception, path: str, *, committing: bool = False) -> Exception:
    """The error of ours for `error`, or `error` itself when it is not about the file."""
    if isinstance(error, AtollError) or not isinstance(error, (*DISK, OSError)):
        return error
    if isinstance(error, OSError) and not isinstance(error, apsw.Error):
        return _of_system(error, path)
    found: AtollError
    match error:
        case apsw.FullError():
            found = DiskFull(
                f"no room to write {path}; nothing of this was written and what was there is unharmed. "
                "Free space on that file system and try again."
            )
        case apsw.ReadOnlyError() | apsw.PermissionsError():
            found = read_only(path, str(error))
        case apsw.CantOpenError():
            found = ConfigurationError(
                f"found that {path} cannot be opened ({error}); expected a file in a folder that is there "
                "and may be written, beside its -wal and -shm. Make the folder or correct the path."
            )
        case apsw.NotADBError() | apsw.CorruptError():
            found = FormatRefused(
                f"found that {path} is no SQLite database or is damaged ({error}). "
                "Name another file, or bring this one back from a copy."
            )
        case apsw.IOError() if committing:
            found = OutcomeUnknown(
                f"the disk failed while {path} was being forced ({error}): the write may stand or not. "
                "The file is closed here; look at the disk, then open it again and read."
            )
        case apsw.IOError():
            found = NotSent(f"the disk failed on {path} before the commit ({error}); nothing was written.")
        case _:
            found = busy(path)
    found.__cause__ = error
    return found


def busy(path: str) -> NotSent:
    """Somebody who does not line up has the file's write lock."""
    return NotSent(
        f"another program holds the write lock of {path}, which a transaction should hold for milliseconds. "
        "Nothing was written. See who has the file open (fuser) and end its transaction."
    )


def read_only(path: str, why: str) -> ReadOnly:
    """The file or its folder may not be written."""
    return ReadOnly(
        f"{path} may be read but not written here ({why}). Atoll also needs its folder writable, for the "
        "-wal, -shm and -atoll files beside it. Correct the permissions or the mount, or name another place."
    )


def _of_system(error: OSError, path: str) -> AtollError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        found: AtollError = DiskFull(
            f"no room for the files beside {path} ({error.strerror}). Free space there."
        )
    elif error.errno in (errno.EMFILE, errno.ENFILE):
        found = Overloaded(
            f"{path} could not be opened: too many files are open ({error.strerror}). Nothing was sent: "
            "close some, raise the limit (ulimit -n), or ask again later."
        )
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        found = read_only(path, error.strerror or str(error))
    else:
        found = ConfigurationError(
            f"found that the files beside {path} cannot be opened ({error.strerror}); expected a folder that "
            "is there and may be written. Make the folder or correct the path."
        )
    found.__cause__ = error
    return found
