"""Reads the papers: code blocks, links, paths, commands and tables in Markdown files."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]\n]*\]\(([^)\s]+)\)")
_PATH = re.compile(r"`((?:src|tests|docs|examples|benchmarks|scripts)/[\w./*<>-]*)`")
_FILE = re.compile(r'^"""(?P<file>[\w/]+\.py)')
_CODE = re.compile(r"`([^`\n]+)`")
_ROW = re.compile(r"^\|\s*`([^`]+)`", re.M)
_ATOLL = re.compile(r"^(?:\$ |)atoll (.+?)(?:\s{2,}#.*| #.*)?$")


def pages() -> list[Path]:
    """Every paper a person reads."""
    return sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language; "" for those without."""
    return [body for found, body in _FENCE.findall(text) if found == language]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", text)


def words(text: str) -> set[str]:
    """Every name that stands in code on the page."""
    code = " ".join([*_CODE.findall(prose(text)), *(body for _, body in _FENCE.findall(text))])
    return set(re.findall(r"[A-Za-z_][\w-]*", code))


def section(text: str, heading: str) -> str:
    """What stands below a heading, to the next one as high."""
    match = re.search(rf"^(#+) {re.escape(heading)}\s*$", text, re.M)
    if match is None:
        return ""
    rest = text[match.end() :]
    end = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.M)
    return rest[: end.start()] if end else rest


def rows(text: str) -> set[str]:
    """The names that begin a row of a table."""
    return {re.split(r"[ *]", name)[0] for name in _ROW.findall(text)}


def anchors(text: str) -> set[str]:
    """The places a link can point at."""
    heads = re.findall(r"^#+ (.+?)\s*$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links whose file, or whose heading in it, is not there."""
    found = []
    for pair in _LINK.findall(prose(text)):
        link = pair[0] or pair[1]
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            found.append(f"{page.name}: the link {link} leads nowhere")
        elif anchor and target.suffix == ".md":
            if anchor not in anchors(text if target == page else target.read_text()):
                found.append(f"{page.name}: {link} names no heading there")
    return found


def broken_paths(page: Path, text: str) -> list[str]:
    """Paths of the house in code marks that are not there."""
    return [
        f"{page.name}: there is no {path}"
        for path in _PATH.findall(prose(text))
        if "<" not in path and not any(ROOT.glob(path.rstrip("/")))
    ]


def commands(text: str) -> Iterator[str]:
    """Every `atoll ...` line of the page's plain blocks, comments and prompts cut off."""
    for body in blocks(text, "") + blocks(text, "sh") + blocks(text, "bash") + blocks(text, "console"):
        for line in body.splitlines():
            prompted = line.startswith("$ atoll ")
            if (match := _ATOLL.match(line)) and (prompted or not body.count("\n$ ")):
                yield match[1].strip()


def wrong_command(line: str) -> str | None:
    """Why the command line would refuse these words; None when it would take them."""
    from atoll.cli.main import VERBS

    try:
        argv = shlex.split(line.split(" &", 1)[0].split(" | ", 1)[0].split(" > ", 1)[0])
    except ValueError:
        return f"atoll {line}: cannot be read"
    if not argv or argv[0] not in VERBS:
        return None if argv and argv[0].startswith("-") else f"atoll {line}: no such verb"
    if any(word in ("...", "[...]") or word.startswith("[") for word in argv):
        return None
    parser = parser_of(argv[0])
    try:
        with contextlib.redirect_stderr(said := io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            parser.parse_args(argv[1:])
    except SystemExit as end:
        return f"atoll {line}: {said.getvalue().strip().splitlines()[-1]}" if end.code else None
    return None


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The parser of a verb, as the command makes it."""
    from atoll.cli.main import VERBS

    module = importlib.import_module(VERBS[verb][0])
    parser = argparse.ArgumentParser(prog=f"atoll {verb}")
    module.arguments(parser)
    if not any("--json" in action.option_strings for action in parser._actions):
        parser.add_argument("--json", action="store_true")
    return parser


def options_of(verb: str) -> list[str]:
    """The long options of a verb that its help shows."""
    return [
        option
        for action in parser_of(verb)._actions
        for option in action.option_strings
        if option.startswith("--") and option != "--help" and action.help is not argparse.SUPPRESS
    ]


def scripts(text: str) -> Iterator[tuple[dict[str, str], str]]:
    """Each block that begins with `# runs`, with the files that the page has shown before it."""
    files: dict[str, str] = {}
    for body in blocks(text, "python"):
        if match := _FILE.match(body):
            files[match["file"]] = body
        elif body.startswith("# runs"):
            yield dict(files), body
