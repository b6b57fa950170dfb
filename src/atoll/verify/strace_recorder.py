"""Strace recorder: films what any program does to a folder, from outside.

For what does not go through SQLite's door: the kernel's own list of a process's calls, read back as the
same film. The program marks what it has answered by writing lines to a file called `marks` beside the
folder.

Source: strace(1), options -y (paths of descriptors) and -xx (strings in hexadecimal).
Departure: only the calls that change files are read; a mapped file that is written in memory is not seen.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from atoll.errors import ConfigurationError
from atoll.verify.disk_trace import (
    Created,
    FolderForced,
    FolderMade,
    Forced,
    Linked,
    Marked,
    Renamed,
    Step,
    Truncated,
    Unlinked,
    Wrote,
)

_CALLS = (
    "openat,open,creat,close,lseek,write,pwrite64,fsync,fdatasync,ftruncate,truncate,rename,renameat,"
    "renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat"
)
_LINE = re.compile(
    r"^(\d+)\s+(\w+)\((.*)\)\s+=\s+(-?\d+|0x[0-9a-f]+)"
    r"(?:<((?:\\x[0-9a-f]{2})*|[^>]*)>)?.*$"
)
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"^(\d+)<([^>]*)>")
STRING_MAX = 8 << 20


def available() -> bool:
    """Whether strace is installed."""
    return shutil.which("strace") is not None


def record(command: Sequence[str], folder: Path, marks: Path, *, timeout_s: float = 60.0) -> list[Step]:
    """Run `command` to its end and answer what it did below `folder`, with the lines it wrote to `marks`."""
    if not available():
        raise ConfigurationError("found no strace; expected it in PATH. Type: apt-get install strace")
    trace = marks.with_suffix(".strace")
    arguments = ["strace", "-f", "-y", "-xx", "-qq", "-s", str(STRING_MAX), "-e", f"trace={_CALLS}"]
    done = subprocess.run(
        [*arguments, "-o", str(trace), *command],
        timeout=timeout_s,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ConfigurationError(f"{command[0]} ended with {done.returncode}: {done.stderr[-500:]}")
    with open(trace, encoding="ascii", errors="replace") as lines:
        return Reader(folder.resolve(), marks.resolve()).read(list(lines))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


class Reader:
    """Reads strace's lines back as steps."""

    def __init__(self, folder: Path, marks: Path) -> None:
        self.folder = str(folder)
        self.marks = str(marks)
        self.steps: list[Step] = []
        self.offsets: dict[tuple[str, str], int] = {}
        self.appends: set[tuple[str, str]] = set()
        self.sizes: dict[str, int] = {}
        self.unfinished: dict[str, str] = {}

    def read(self, lines: Sequence[str]) -> list[Step]:
        """All lines, in order."""
        for line in lines:
            whole = self._whole(line.rstrip("\n"))
            if whole is not None and (match := _LINE.match(whole)) and not match[4].startswith("-"):
                self._call(match[2], match[3], match[4], match[5])
        return self.steps

    def _whole(self, line: str) -> str | None:
        """A call that another thread interrupted comes in two halves."""
        thread = line.partition(" ")[0]
        if line.endswith("<unfinished ...>"):
            self.unfinished[thread] = line.removesuffix("<unfinished ...>")
            return None
        if "resumed>" in line and line.partition(" ")[2].lstrip().startswith("<..."):
            return self.unfinished.pop(thread, thread) + line.partition("resumed>")[2]
        return line

    def _inside(self, path: str) -> str | None:
        full = os.path.normpath(path)
        if full == self.folder:
            return "."
        return os.path.relpath(full, self.folder) if full.startswith(self.folder + os.sep) else None

    def _call(self, name: str, arguments: str, answer: str, answered: str | None) -> None:
        if name in ("open", "openat", "creat"):
            self._open(name, arguments, answer, answered or "")
        elif name in ("write", "pwrite64", "fsync", "fdatasync", "ftruncate", "lseek"):
            match = _DESCRIPTOR.match(arguments)
            if match:
                self._descriptor(name, (match[1], _path(match[2])), arguments[match.end() :], answer)
        elif name in ("rename", "renameat", "renameat2", "link", "linkat"):
            old, new = (self._inside(path) for path in self._paths(arguments)[:2])
            if old is not None and new is not None:
                self.steps.append(Renamed(old, new) if name.startswith("rename") else Linked(old, new))
                self.sizes[new] = self.sizes.get(old, 0)
        elif name in ("unlink", "unlinkat", "mkdir", "mkdirat"):
            path = self._inside(self._paths(arguments)[0])
            if path is not None:
                self.steps.append(FolderMade(path) if name.startswith("mkdir") else Unlinked(path))
        elif name == "truncate" and (path := self._inside(self._paths(arguments)[0])) is not None:
            self.steps.append(Truncated(path, int(arguments.rpartition(",")[2])))

    def _paths(self, arguments: str) -> list[str]:
        """Every path named, made absolute by the folder descriptor before it."""
        found, base = [], ""
        for part in re.finditer(r'(?:AT_FDCWD|\d+)<([^>]*)>|"((?:\\x[0-9a-f]{2})*)"', arguments):
            if part[2] is None:
                base = _path(part[1])
            else:
                found.append(os.path.join(base, os.fsdecode(_bytes(part[2]))))
        return found

    def _open(self, name: str, arguments: str, answer: str, answered: str) -> None:
        path = _path(answered)
        key, inside = (answer, path), self._inside(path)
        self.offsets[key] = 0
        (self.appends.add if "O_APPEND" in arguments else self.appends.discard)(key)
        if inside is None or not (name == "creat" or "O_CREAT" in arguments):
            return
        if inside not in self.sizes:
            self.steps.append(Created(inside))
            self.sizes[inside] = 0
        elif "O_TRUNC" in arguments or name == "creat":
            self.steps.append(Truncated(inside, 0))
            self.sizes[inside] = 0

    def _descriptor(self, name: str, key: tuple[str, str], rest: str, answer: str) -> None:
        inside = self._inside(key[1])
        if name == "lseek":
            self.offsets[key] = int(answer)
        elif name == "write" and key[1] == self.marks and (text := _STRING.search(rest)):
            self.steps += [Marked(line) for line in _bytes(text[1]).decode().splitlines()]
        elif inside is None:
            return
        elif name in ("fsync", "fdatasync"):
            folder = inside == "." or os.path.isdir(key[1])
            self.steps.append(FolderForced(inside) if folder else Forced(inside))
        elif name == "ftruncate":
            self.sizes[inside] = int(rest.rpartition(",")[2])
            self.steps.append(Truncated(inside, self.sizes[inside]))
        elif text := _STRING.search(rest):
            data = _bytes(text[1])[: int(answer)]
            if name == "pwrite64":
                offset = int(rest.rpartition(",")[2])
            else:
                offset = self.sizes.get(inside, 0) if key in self.appends else self.offsets.get(key, 0)
                self.offsets[key] = offset + len(data)
            self.sizes[inside] = max(self.sizes.get(inside, 0), offset + len(data))
            self.steps.append(Wrote(inside, offset, data))


def _path(text: str) -> str:
    """The path of a descriptor, which -xx may have written in hexadecimal."""
    return os.fsdecode(_bytes(text)) if text.startswith("\\x") else text
