"""What the instances print: kept in bounded files, and shown on the console with a prefix.

A secretary with one notebook per speaker: everything is written down, the oldest notebook is thrown
away when there are two full ones, and the room hears who said what.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from pathlib import Path
from typing import IO

FILE_BYTES_MAX = 8 * 1024 * 1024
LINE_BYTES_MAX = 16 * 1024
CONSOLE_LINES_MAX = 10_000
COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)


class Console:
    """Standard output, written by a thread of its own: a terminal that is held up holds up nobody."""

    def __init__(self, stream: IO[str] | None = None, *, quiet: bool = False) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._quiet = quiet
        self._lines: queue.Queue[str | None] = queue.Queue(CONSOLE_LINES_MAX)
        self._missed = 0
        self._colours: dict[str, int] = {}
        wants = hasattr(self._stream, "isatty") and self._stream.isatty()
        self._coloured = wants and "NO_COLOR" not in os.environ
        self._width = 0
        self._thread = threading.Thread(target=self._write, name="atoll-console", daemon=True)
        self._thread.start()

    def names(self, names: list[str]) -> None:
        """Who will speak, so that the prefixes line up."""
        self._width = max((len(name) for name in names), default=0)

    def line(self, service: str, who: str, text: str) -> None:
        """Show a line of `who`, in the colour of its service."""
        if self._quiet:
            return
        prefix = f"{who:<{self._width}} | "
        if self._coloured:
            colour = self._colours.setdefault(service, COLOURS[len(self._colours) % len(COLOURS)])
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        self._put(f"{prefix}{text}\n")

    def say(self, text: str) -> None:
        """A line of `up` itself; shown also when quiet."""
        self._put(f"{text}\n")

    def close(self) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=1.0)
        self._thread.join(2.0)

    def _put(self, text: str) -> None:
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._missed += 1

    def _write(self) -> None:
        while (text := self._lines.get()) is not None:
            missed, self._missed = self._missed, 0
            if missed:
                text = f"({missed} lines not shown here; the files have them)\n{text}"
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(text)
                if self._lines.empty():
                    self._stream.flush()


class Output:
    """The notebook of one instance: a file, and the full one before it as NAME.log.1."""

    def __init__(self, folder: Path, service: str, who: str, console: Console) -> None:
        self._path = folder / f"{who}.log"
        self._service, self._who = service, who
        self._console = console
        self._pending = b""
        self._file: IO[bytes] | None = None
        self._size = 0
        self._broken = False

    def feed(self, chunk: bytes) -> None:
        """Bytes as they came from the process; lines are cut at LINE_BYTES_MAX."""
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        for line in lines:
            self._line(line)
        while len(self._pending) > LINE_BYTES_MAX:
            self._line(self._pending[:LINE_BYTES_MAX])
            self._pending = self._pending[LINE_BYTES_MAX:]
        self.flush()

    def note(self, text: str) -> None:
        """A line of the supervisor's, between the instance's own."""
        self.end_line()
        self._line(f"-- {text}".encode())
        self.flush()

    def end_line(self) -> None:
        """The process is over: what it began to say is a line."""
        if self._pending:
            self._line(self._pending)
            self._pending = b""

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            if self._file is not None:
                self._file.flush()

    def close(self) -> None:
        self.end_line()
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _line(self, line: bytes) -> None:
        line = line.rstrip(b"\r")
        try:
            self._keep(line + b"\n")
        except OSError as error:
            if not self._broken:
                self._console.say(f"{self._path}: {error.strerror}; the output is shown but not kept")
            self._broken = True
        self._console.line(self._service, self._who, line.decode("utf-8", "replace"))

    def _keep(self, line: bytes) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab")
            self._size = self._file.tell()
        if self._size + len(line) > FILE_BYTES_MAX:
            self._file.close()
            self._path.replace(self._path.with_suffix(".log.1"))
            self._file = self._path.open("ab")
            self._size = 0
        self._file.write(line)
        self._size += len(line)
        self._broken = False
