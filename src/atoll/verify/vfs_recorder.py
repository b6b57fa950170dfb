"""VFS recorder: films what SQLite does to a folder, from inside, on any machine.

SQLite speaks to the disk through one small door (its VFS). A doorman stands in it who lets everything
pass and notes the writes, the forced ones and the names that come and go.

Source: sqlite.org/vfs.html; os_unix.c, for which names are forced with which file.
Departure: shared memory (-shm) is not noted, because SQLite rebuilds it from the log.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from atoll import clock
from atoll.verify.disk_trace import Created, FolderForced, Forced, Marked, Step, Truncated, Unlinked, Wrote

_JOURNALS = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_SUPER_JOURNAL


class Film:
    """The steps below `folder`, in the order in which they were done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.steps: list[Step] = []
        self.lock = threading.Lock()

    def add(self, step: Step) -> None:
        """Note one step."""
        with self.lock:
            self.steps.append(step)

    def mark(self, text: str) -> None:
        """Note that something was promised or answered."""
        self.add(Marked(text))

    def name(self, path: str | None) -> str | None:
        """The path inside the folder, None where it is elsewhere."""
        if not path:
            return None
        full = os.path.realpath(path)
        inside = full.startswith(f"{self.folder}{os.sep}")
        return os.path.relpath(full, self.folder) if inside else None


class _File(apsw.VFSFile):
    def __init__(self, film: Film, under: str, filename: Any, flags: list[int]) -> None:
        self.film = film
        path = filename.filename() if isinstance(filename, apsw.URIFilename) else filename
        self.path = film.name(path)
        fresh = self.path is not None and not os.path.exists(path)
        super().__init__(under, filename, flags)
        self.force_folder = fresh and bool(flags[0] & _JOURNALS)
        if fresh and self.path is not None:
            film.add(Created(self.path))

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        if self.path is not None:
            self.film.add(Wrote(self.path, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        if self.path is not None:
            self.film.add(Truncated(self.path, newsize))

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        if self.path is not None:
            self.film.add(Forced(self.path))
            if self.force_folder:
                self.film.add(FolderForced("."))
                self.force_folder = False


class _Vfs(apsw.VFS):
    def __init__(self, name: str, film: Film, *, everywhere: bool) -> None:
        self.film = film
        self.under = apsw.vfs_names()[0]
        super().__init__(name, self.under, makedefault=everywhere)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(self.film, self.under, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        if (path := self.film.name(filename)) is not None:
            self.film.add(Unlinked(path))
            if syncdir:
                self.film.add(FolderForced("."))


@contextmanager
def filming(folder: Path, *, everywhere: bool = False) -> Iterator[tuple[Film, str]]:
    """A film of `folder`, and the name of the VFS that makes it: `sqlite:///...?vfs=NAME`.

    `everywhere`: the door of every SQLite file that this process opens meanwhile without naming one.
    """
    film = Film(folder)
    name = f"atoll-film-{clock.unique_id()[:12]}"
    vfs = _Vfs(name, film, everywhere=everywhere)
    try:
        yield film, name
    finally:
        vfs.unregister()
