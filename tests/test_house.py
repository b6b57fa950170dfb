"""A10: the laws of the house: who may import whom, how big a thing may be, what is never written.

Each law has its negative control: a small broken room that the law must catch.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOUSE = ROOT / "src" / "atoll"

LAW: dict[str, set[str]] = {
    "errors": set(),
    "clock": {"errors"},
    "algorithms": {"errors"},
    "ports": {"errors"},
    "engines": {"ports", "errors", "clock", "algorithms"},
    "urls": {"ports", "errors"},
    "blocks": {"ports", "algorithms", "errors", "clock"},
    "integrations": {"blocks", "ports", "errors", "urls"},
    "sync": {"blocks", "ports", "errors", "urls", "clock"},
    "up": {"blocks", "ports", "algorithms", "errors", "clock", "urls", "integrations"},
    "cli": {"up", "verify", "blocks", "urls", "errors", "ports", "clock"},
}
FREE = {"verify", "testing", "__init__", "__main__"}
LINES_MAX, FUNCTION_MAX, WIDTH_MAX, PARAMETERS_MAX = 400, 60, 110, 5
BANNED_NAMES = {"utils", "util", "common", "helpers", "base", "manager", "misc", "shared", "core", "part2"}
BANNED_CALLS = {"eval", "exec"}
PURE_BANS = {"time", "asyncio", "random", "os", "socket", "threading", "datetime"}
# An engine may stand on another engine's public class, where it says so here, and on `parts`.
ENGINE_ON_ENGINE = {("sqlalchemy", "sqlite"), ("sqlalchemy", "postgresql"), ("raft", "sqlite")}


def files() -> list[Path]:
    return sorted(HOUSE.rglob("*.py"))


def room(path: Path, house: Path = HOUSE) -> str:
    return path.relative_to(house).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module in ("atoll", "atoll.ports", "atoll.blocks", "atoll.algorithms", "atoll.engines"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def broken_imports(path: Path, source: str, house: Path = HOUSE) -> list[str]:
    mine = room(path, house)
    if mine in FREE:
        return []
    found = []
    for name in imports(ast.parse(source)):
        parts = name.split(".")
        if parts[0] != "atoll" or len(parts) == 1:
            if mine == "algorithms" and parts[0] in PURE_BANS:
                found.append(f"{path}: algorithms are pure, but it imports {name}")
            continue
        theirs = parts[1]
        if theirs == mine:
            found += engine_on_engine(path, parts, house) if mine == "engines" else []
        elif theirs not in LAW.get(mine, set()) and not theirs.startswith("__"):
            found.append(f"{path}: {mine} may not import {name}")
    return found


def engine_on_engine(path: Path, parts: list[str], house: Path) -> list[str]:
    product = path.relative_to(house).parts[1].removesuffix(".py")
    other = parts[2] if len(parts) > 2 else product
    if product in (other, "__init__") or other == "parts" or (product, other) in ENGINE_ON_ENGINE:
        return []
    return [f"{path}: the engine {product} may not import {other}"]


def too_big(path: Path, source: str) -> list[str]:
    found = []
    lines = source.splitlines()
    if len(lines) > LINES_MAX:
        found.append(f"{path}: {len(lines)} lines, at most {LINES_MAX}")
    found += [f"{path}:{n}: {len(line)} wide" for n, line in enumerate(lines, 1) if len(line) > WIDTH_MAX]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (node.end_lineno or 0) - (body[0].lineno if body else node.lineno) + 1
            if length > FUNCTION_MAX:
                found.append(f"{path}: {node.name} has {length} lines, at most {FUNCTION_MAX}")
            positional = [
                a for a in [*node.args.posonlyargs, *node.args.args] if a.arg not in ("self", "cls")
            ]
            if len(positional) > PARAMETERS_MAX:
                found.append(
                    f"{path}: {node.name} takes {len(positional)} parameters, at most {PARAMETERS_MAX}"
                )
    return found


def forbidden(path: Path, source: str) -> list[str]:
    found = []
    tree = ast.parse(source)
    if not ast.get_docstring(tree):
        found.append(f"{path}: no docstring that says what the file is")
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in BANNED_CALLS:
                found.append(f"{path}:{node.lineno}: calls {name}")
            case ast.keyword(arg="shell", value=ast.Constant(value=True)):
                found.append(f"{path}: a shell string")
            case ast.Raise(
                exc=ast.Name(id="NotImplementedError") | ast.Call(func=ast.Name(id="NotImplementedError"))
            ):
                found.append(
                    f"{path}:{node.lineno}: an ability that raises; make it an attribute that is None"
                )
            case ast.Import(names=names) if any(a.name in ("pickle", "marshal", "shelve") for a in names):
                found.append(f"{path}: pickle")
            case ast.FunctionDef(name="__getattr__") if path.name != "__init__.py":
                found.append(f"{path}:{node.lineno}: __getattr__ hides which abilities a wrapper has")
    return found


def clocks_elsewhere(path: Path, source: str) -> list[str]:
    """Outside clock.py, verify, up and cli nobody reads time or chance but through the door."""
    if room(path) in {"clock", "verify", "up", "cli", "testing"}:
        return []
    return [
        f"{path}: reads {m.group()} itself; go through atoll.clock"
        for m in re.finditer(
            r"\b(time\.(time|monotonic|clock_gettime)\(|random\.(random|choice|randint)\(|uuid4\()", source
        )
    ]


def check(rule: object) -> list[str]:
    assert callable(rule)
    return [problem for path in files() for problem in rule(path, path.read_text())]


@pytest.mark.parametrize("rule", [broken_imports, too_big, forbidden, clocks_elsewhere])
def test_the_house_keeps_its_law(rule: object) -> None:
    assert check(rule) == []


def test_no_drawer_for_everything() -> None:
    assert [str(p) for p in HOUSE.rglob("*") if p.stem in BANNED_NAMES] == []


def test_no_two_test_files_share_a_name() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_a_block_opens_with_its_promise() -> None:
    missing = []
    for path in (HOUSE / "blocks").glob("[a-z]*.py"):
        head = ast.get_docstring(ast.parse(path.read_text())) or ""
        if not all(word in head for word in ("Promise:", "What can break it:", "Proved by:")):
            missing.append(path.name)
    assert missing == []


def unproved(head: str) -> list[str]:
    """What a block's "Proved by" names and is not there: a workload of verify, a test file."""
    from atoll.verify.run import NAMES

    proof = head.partition("Proved by:")[2]
    workloads = [w for w in re.findall(r"--workload (\w+)", proof) if w not in NAMES]
    tests = [t for t in re.findall(r"tests/[\w/]+\.py", proof) if not (ROOT / t).is_file()]
    named = re.search(r"--workload \w+|tests/[\w/]+\.py", proof)
    return [*workloads, *tests] if named else ["nothing is named"]


def test_what_proves_a_block_is_there() -> None:
    for path in (HOUSE / "blocks").glob("[a-z]*.py"):
        assert unproved(ast.get_docstring(ast.parse(path.read_text())) or "") == [], path.name


@pytest.mark.parametrize(
    "proof", ["", "atoll verify --workload nothing", "tests/blocks/test_nothing.py", "trust me"]
)
def test_a_proof_that_is_not_there_is_caught(proof: str) -> None:
    assert unproved(f"Proved by: {proof}")


def test_no_public_name_equals_a_submodule() -> None:
    import atoll

    submodules = {p.stem for p in HOUSE.iterdir() if not p.name.startswith("_")}
    assert submodules & set(atoll.__all__) == set()


def test_the_front_door_has_at_most_13_classes_beside_the_errors() -> None:
    import atoll

    classes = [n for n in atoll.__all__ if n[0].isupper() and atoll._HOMES[n] != "errors"]
    assert len(classes) <= 13


def test_every_name_of_the_front_door_opens() -> None:
    import atoll

    assert [n for n in atoll.__all__ if not getattr(atoll, n, None)] == []


@pytest.mark.parametrize(
    ("line", "banned"),
    [
        ("import atoll", ["asyncio", "msgspec", "apsw", "atoll.urls", "sqlite3"]),
        ("from atoll import Lock", ["apsw", "atoll.engines", "atoll.up", "atoll.verify"]),
    ],
)
def test_imports_are_budgeted(line: str, banned: list[str]) -> None:
    code = f"import sys\n{line}\nprint([m for m in {banned!r} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert answer.stdout.strip() == "[]", answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("where", "source", "rule"),
    [
        ("blocks/lock.py", "from atoll.engines.sqlite import SqliteStore", broken_imports),
        ("blocks/lock.py", "from atoll import urls", broken_imports),
        ("algorithms/raft.py", "import time", broken_imports),
        ("ports/store.py", "from atoll.clock import lease_now", broken_imports),
        ("engines/redis.py", "from atoll.engines.sqlite import SqliteStore", broken_imports),
        ("engines/redis.py", "x = 1\n" * 401, too_big),
        ("engines/redis.py", "def f():\n" + "    x = 1\n" * 61, too_big),
        ("engines/redis.py", "def f(a, b, c, d, e, g): ...", too_big),
        ("engines/redis.py", '"""x"""\nimport pickle', forbidden),
        ("engines/redis.py", '"""x"""\nsubprocess.run(c, shell=True)', forbidden),
        ("engines/redis.py", '"""x"""\ndef f(): raise NotImplementedError', forbidden),
        ("engines/redis.py", "x = 1", forbidden),
        ("blocks/lock.py", "now = time.monotonic()", clocks_elsewhere),
    ],
)
def test_a_broken_room_is_caught(where: str, source: str, rule: object) -> None:
    assert callable(rule)
    assert rule(HOUSE / where, source)
