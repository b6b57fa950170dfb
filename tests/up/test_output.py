"""What instances print is kept in bounded files and shown with a prefix; nothing printed holds `up` up."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from atoll.up import output
from atoll.up.output import Console, Output


def test_lines_are_kept_as_they_were_and_shown_with_who_said_them(tmp_path: Path) -> None:
    shown = io.StringIO()
    console = Console(shown)
    console.names(["api-0", "worker-10"])
    notebook = Output(tmp_path, "api", "api-0", console)
    notebook.feed(b"one\ntw")
    notebook.feed(b"o\r\n\xff\n")
    notebook.feed(b"unfinished")
    notebook.close()
    console.close()
    assert (tmp_path / "api-0.log").read_bytes() == b"one\ntwo\n\xff\nunfinished\n"
    assert shown.getvalue().splitlines()[:2] == ["api-0     | one", "api-0     | two"]


def test_the_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "FILE_BYTES_MAX", 1000)
    console = Console(io.StringIO(), quiet=True)
    notebook = Output(tmp_path, "api", "api-0", console)
    for number in range(500):
        notebook.feed(b"%06d xxx\n" % number)
    notebook.close()
    console.close()
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"api-0.log", "api-0.log.1"} and max(sizes.values()) <= 1000
    assert (tmp_path / "api-0.log").read_text().endswith("000499 xxx\n")


def test_an_endless_line_is_cut(tmp_path: Path) -> None:
    console = Console(io.StringIO(), quiet=True)
    notebook = Output(tmp_path, "api", "api-0", console)
    for _ in range(10):
        notebook.feed(b"x" * 10_000)
    notebook.close()
    console.close()
    lines = (tmp_path / "api-0.log").read_bytes().splitlines()
    assert sum(map(len, lines)) == 100_000 and max(map(len, lines)) <= output.LINE_BYTES_MAX


def test_a_console_that_fails_stops_nobody(tmp_path: Path) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    console = Console(Gone())
    notebook = Output(tmp_path, "api", "api-0", console)
    notebook.feed(b"one\n")
    notebook.close()
    console.close()
    assert (tmp_path / "api-0.log").read_bytes() == b"one\n"


def test_a_folder_that_cannot_be_written_is_said_once_and_the_output_still_shown(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    shown = io.StringIO()
    console = Console(shown)
    notebook = Output(tmp_path / "logs", "api", "api-0", console)
    notebook.feed(b"one\ntwo\n")
    notebook.close()
    console.close()
    assert shown.getvalue().count("shown but not kept") == 1
    assert shown.getvalue().count("| one") == shown.getvalue().count("| two") == 1
