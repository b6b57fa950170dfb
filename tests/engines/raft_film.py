"""Films a member's whole folder: what SQLite does through its own door, and what all else does.

Two cameras and one reel. The calls of `os` that change files are noted between those of SQLite, in the order
in which they were done, so the power may be cut between any two of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atoll.verify.disk_trace import (
    Created,
    FolderForced,
    FolderMade,
    Forced,
    Renamed,
    Step,
    Truncated,
    Unlinked,
    Wrote,
)
from atoll.verify.vfs_recorder import Film, filming

CALLS = ("open", "pwrite", "ftruncate", "posix_fallocate", "rename", "unlink", "mkdir")


class _SqliteOf(Film):
    """SQLite's camera knows one folder only: what it forces is the state's."""

    def add(self, step: Step) -> None:
        super().add(FolderForced("state") if step == FolderForced(".") else step)


@contextmanager
def filmed(folder: Path, monkeypatch: Any) -> Iterator[tuple[Film, str]]:
    """The film, and the VFS to open the state with. `force` of the film is how to force a file."""
    folder.mkdir(parents=True, exist_ok=True)
    with filming(folder) as (film, vfs), monkeypatch.context() as patch:
        film.__class__ = _SqliteOf
        camera = _Camera(film)
        film.force = camera.force
        for call in CALLS:
            patch.setattr(os, call, getattr(camera, call))
        yield film, vfs


class _Camera:
    def __init__(self, film: Film) -> None:
        self._film = film
        self._real = {call: getattr(os, call) for call in (*CALLS, "fdatasync", "stat")}

    def _add(self, step: Step) -> None:
        Film.add(self._film, step)

    def _of(self, descriptor: int) -> str | None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        return "." if path == str(self._film.folder) else self._film.name(path)

    def open(self, path: Any, flags: int, *more: Any, **named: Any) -> int:
        name = self._film.name(os.fspath(path))
        there = os.path.exists(path)
        descriptor: int = self._real["open"](path, flags, *more, **named)
        if name is not None and flags & os.O_CREAT:
            if not there:
                self._add(Created(name))
            elif flags & os.O_TRUNC:
                self._add(Truncated(name, 0))
        return descriptor

    def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        done: int = self._real["pwrite"](descriptor, data, offset)
        if (name := self._of(descriptor)) is not None:
            self._add(Wrote(name, offset, bytes(data)[:done]))
        return done

    def ftruncate(self, descriptor: int, size: int) -> None:
        self._real["ftruncate"](descriptor, size)
        if (name := self._of(descriptor)) is not None:
            self._add(Truncated(name, size))

    def posix_fallocate(self, descriptor: int, offset: int, size: int) -> None:
        before = os.fstat(descriptor).st_size
        self._real["posix_fallocate"](descriptor, offset, size)
        if (name := self._of(descriptor)) is not None and offset + size > before:
            self._add(Truncated(name, offset + size))

    def force(self, descriptor: int) -> None:
        self._real["fdatasync"](descriptor)
        if (name := self._of(descriptor)) is not None:
            folder = os.path.isdir(self._film.folder / name)
            self._add(FolderForced(name) if folder else Forced(name))

    def rename(self, old: Any, new: Any) -> None:
        self._real["rename"](old, new)
        before, after = self._film.name(os.fspath(old)), self._film.name(os.fspath(new))
        if before is not None and after is not None:
            self._add(Renamed(before, after))

    def unlink(self, path: Any, **named: Any) -> None:
        self._real["unlink"](path, **named)
        if (name := self._film.name(os.fspath(path))) is not None:
            self._add(Unlinked(name))

    def mkdir(self, path: Any, *more: Any, **named: Any) -> None:
        self._real["mkdir"](path, *more, **named)
        if (name := self._film.name(os.fspath(path))) is not None:
            self._add(FolderMade(name))
