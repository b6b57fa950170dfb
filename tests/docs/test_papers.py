"""The papers are kept: every name has its line, every link and path exists, every shown program runs.

Each check has its negative control: a broken page that it must catch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import papers
import pytest

import atoll
import atoll.sync
import atoll.testing
from atoll import ConfigurationError
from atoll.cli.main import VERBS
from atoll.up import manifest
from atoll.urls import ENGINES

REFERENCE = papers.DOCS / "reference"
DOORS = {
    "store": atoll.store,
    "register": atoll.urls.register,
    "broker": atoll.broker,
    "tier": atoll.tier,
    "database": atoll.database,
}
PAGES = {page.relative_to(papers.ROOT).as_posix(): page for page in papers.pages()}
SCRIPTS = [
    (f"{name}-{n}", files, body)
    for name, page in PAGES.items()
    for n, (files, body) in enumerate(papers.scripts(page.read_text()), 1)
]


def everything() -> str:
    return "\n".join(page.read_text() for page in PAGES.values())


def read(name: str) -> str:
    return (REFERENCE / name).read_text()


def unnamed(names: list[str], text: str) -> list[str]:
    known = papers.words(text)
    return [name for name in names if name not in known]


def url_options(scheme: str, door: str) -> list[str]:
    """What the engine itself lists when an option is wrong."""
    with pytest.raises(ConfigurationError) as refusal:
        DOORS[door](f"{scheme}://{'/x.db' * (scheme == 'sqlite')}?nonsense=1")
    return str(refusal.value).partition(" knows ")[2].partition(". ")[0].split(", ")


def manifest_keys(table: str, folder: Path) -> list[str]:
    """What the manifest itself lists when a key of a table is wrong."""
    text = (
        '[app]\nname = "x"\n[services.a]\ncommand = ["true"]\n[gateway]\nport = 0\nroutes = { "/" = "a" }\n'
    )
    header = f"[{table}]" if table else ""
    text = text.replace(header, f"{header}\nqqqq = 1") if header in text and table else text
    if header not in text or not table:
        text = f"[{table or 'qqqq'}]\nqqqq = 1\n{text}"
    (folder / "atoll.toml").write_text(text)
    with pytest.raises(manifest.ManifestFaults) as refusal:
        manifest.load(folder)
    said = next(fault.expected for fault in refusal.value.faults if "qqqq" in fault.found)
    return said.partition("one of: ")[2].split(", ")


def test_every_public_name_is_explained_somewhere() -> None:
    assert unnamed([*atoll.__all__, *atoll.sync.__all__, *atoll.testing.__all__], everything()) == []


def test_a_name_without_a_line_is_caught() -> None:
    assert unnamed(["Lock", "Unheard"], "Take a `Lock`. An Unheard one is not in code.") == ["Unheard"]


def test_every_error_has_its_section() -> None:
    names = [name for name in atoll.__all__ if isinstance(getattr(atoll, name), type)]
    errors = [n for n in names if issubclass(getattr(atoll, n), atoll.AtollError)]
    assert [n for n in errors if n not in papers.rows(read("errors.md"))] == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_is_described(verb: str) -> None:
    text = papers.section(read("cli.md"), f"atoll {verb}")
    assert text, f"docs/reference/cli.md has no section 'atoll {verb}'"
    assert [option for option in papers.options_of(verb) if f"`{option}" not in text] == []


def own_page(scheme: str, door: str) -> str:
    """The options on the engine's own page, one for all its schemes."""
    text = read(f"{ENGINES[scheme][door].partition(':')[0].rpartition('.')[2]}.md")
    return papers.section(text, f"Options of a {door}") or papers.section(text, "Options")


@pytest.mark.parametrize(("scheme", "door"), [(s, d) for s, doors in ENGINES.items() for d in doors])
def test_every_option_of_a_url_has_its_row(scheme: str, door: str) -> None:
    text = papers.section(read("urls.md"), f"{scheme}:// as a {door}") or own_page(scheme, door)
    options = url_options(scheme, door)
    assert len(options) > 3 and [name for name in options if name not in papers.rows(text)] == []


def test_every_fault_option_has_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOLL_FAULTS", "1")
    with pytest.raises(ConfigurationError) as refusal:
        atoll.store("faulty+memory://?fault_nonsense=1")
    listed = set(papers.re.findall(r"fault_\w+", str(refusal.value))) - {"fault_nonsense"}
    assert len(listed) > 5
    assert listed - papers.rows(papers.section(read("urls.md"), "faulty+...")) == set()


@pytest.mark.parametrize("table", ["", "app", "services.a", "services.a.restarts", "gateway", "admin"])
def test_every_key_of_the_manifest_is_described(table: str, tmp_path: Path) -> None:
    keys = manifest_keys(table, tmp_path)
    text = read("manifest.md")
    assert keys and [key for key in unnamed(keys, text) if f"[{key}" not in text] == []


def test_a_missing_row_is_caught() -> None:
    table = "## sqlite:// as a store\n\n| option |\n|---|\n| `ceiling_s` | 10 |\n\n## next\n| `vfs` |\n"
    assert papers.rows(papers.section(table, "sqlite:// as a store")) == {"ceiling_s"}


@pytest.mark.parametrize("name", PAGES)
def test_links_paths_and_commands_lead_somewhere(name: str) -> None:
    page = PAGES[name]
    text = page.read_text()
    wrong = [problem for line in papers.commands(text) if (problem := papers.wrong_command(line))]
    assert [*papers.broken_links(page, text), *papers.broken_paths(page, text), *wrong] == []


@pytest.mark.parametrize(
    "text",
    [
        "see [there](nowhere.md)\n",
        "see [there](reference/errors.md#no-such-heading)\n",
        "read `src/atoll/blocks/nowhere.py`\n",
        "```\n$ atoll dance\n```\n",
        "```\n$ atoll locks --nonsense\n```\n",
    ],
)
def test_a_page_that_leads_nowhere_is_caught(text: str) -> None:
    page = papers.DOCS / "start.md"
    wrong = [problem for line in papers.commands(text) if (problem := papers.wrong_command(line))]
    assert [*papers.broken_links(page, text), *papers.broken_paths(page, text), *wrong]


def run(folder: Path, files: dict[str, str], body: str) -> subprocess.CompletedProcess[str]:
    for file, source in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(source)
    (folder / "shown.py").write_text(body)
    return subprocess.run(
        [sys.executable, "shown.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(("files", "body"), [s[1:] for s in SCRIPTS], ids=[s[0] for s in SCRIPTS])
def test_a_shown_program_runs(files: dict[str, str], body: str, tmp_path: Path) -> None:
    done = run(tmp_path, files, body)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_shown_program_that_breaks_is_caught(tmp_path: Path) -> None:
    page = '```python\n"""mod.py: a file."""\nx = 1\n```\n\n```python\n# runs\nfrom mod import y\n```\n'
    [(files, body)] = papers.scripts(page)
    assert run(tmp_path, files, body).returncode != 0


def test_the_pages_show_programs_that_run() -> None:
    assert len(SCRIPTS) >= 7


CLAIMS = {
    "durable": lambda c: c.durable.name,
    "reach": lambda c: c.reach.name,
    "a lease never ends early": lambda c: "yes" if c.never_early else "no",
    "observing": lambda c: c.observe.name,
    "a `request_id` is remembered": lambda c: f"{c.dedupe_window_s:g} s",
    "linearizable": lambda c: "yes" if c.linearizable else "no",
    "forgets at failover": lambda c: "yes" if c.forgets_at_failover else "no",
    "operations in a transaction": lambda c: str(c.operations_max),
}


def unlike(row: list[str], answers: list[str]) -> list[str]:
    return [answer for cell, answer in zip(row, answers, strict=True) if not cell.startswith(answer)]


async def test_the_table_of_claims_is_what_the_engines_answer(tmp_path: Path, shared: Any) -> None:
    table = papers.section((papers.DOCS / "guarantees.md").read_text(), "What an engine claims when it opens")
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line
    ]
    said = {row[0]: row[1:] for row in cells}
    async with atoll.store(f"sqlite:///{tmp_path}/x.db") as file, atoll.store("memory://") as memory:
        async with atoll.store(shared("raft", nodes=3).url) as members:
            claims = [await file.open(), await memory.open(), await members.open()]
    wrong = {name: unlike(said[name], [answer(c) for c in claims]) for name, answer in CLAIMS.items()}
    assert {name: answers for name, answers in wrong.items() if answers} == {}
    late = said["a lease's keys stand at most this much longer"]
    assert late[0] == f"{claims[0].expiry_late_max_s:g} s"
    assert late[2].startswith(f"{claims[2].expiry_late_max_s:g} s")


def test_a_claim_said_wrongly_is_caught() -> None:
    assert unlike(["QUORUM", "NONE"], ["NODE", "NONE"]) == ["NODE"]


def unreached() -> list[str]:
    """Papers to which no chain of links leads from the README."""
    seen: set[Path] = set()
    ahead = [papers.ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        for pair in papers._LINK.findall(papers.prose(page.read_text())):
            target = (page.parent / (pair[0] or pair[1]).partition("#")[0]).resolve()
            ahead += [target] if target.exists() else []
    return [name for name, page in PAGES.items() if page not in seen and "stubs" not in name]


def test_every_paper_can_be_reached_from_the_readme() -> None:
    assert unreached() == []


def test_there_is_a_page_for_each_of_the_thirty_sections() -> None:
    numbers = [int(path.name[:2]) for path in sorted((papers.DOCS / "sections").glob("*.md"))]
    assert numbers == list(range(1, 31))
