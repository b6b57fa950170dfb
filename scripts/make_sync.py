"""Writes the shells of src/atoll/sync: the names without an event loop, from the async signatures.

python scripts/make_sync.py            writes it
python scripts/make_sync.py --check    exit 1 if what is there is not what would be written
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "src" / "atoll" / "sync"


@dataclass(frozen=True)
class Shell:
    """A class to write: of which async class, whether users construct it, which members it leaves out."""

    name: str
    module: str
    built: bool = False
    generic: str = ""
    skip: frozenset[str] = frozenset()
    in_loop: frozenset[str] = frozenset()
    """Plain members that are called in the event loop's thread, because they read what it changes."""
    here: frozenset[str] = frozenset()
    """Members that run in the calling thread, because they work on its own transaction."""
    by_hand: dict[str, str] = field(default_factory=dict)


ABILITIES = frozenset({"leasing", "history", "moving", "examining", "shadow"})
DATABASE = frozenset({"joined", "relaying", "participant", "schema", "begin", "read"})
HOLDING = frozenset({"lease_ended", "close", "broken", "take_also"})
LEAD = '''
    def lead(
        self, function: Callable[[Term, *Arguments], AnswerT], *arguments: *Arguments
    ) -> AnswerT:
        """Campaign for ever; while leading run `function(term, *arguments)` in a thread; answer its answer.

        A thread cannot be stopped: the function asks `term.check()`, and a next term waits for its end.
        """
        return portal.run(self._inner.lead(portal.in_thread(function, Term), *arguments))
'''

SHELLS = [
    Shell("Store", "atoll.ports.store", skip=ABILITIES),
    Shell("Broker", "atoll.ports.broker", skip=frozenset({"leased", "inspecting"})),
    Shell("Database", "atoll.ports.joined", skip=DATABASE),
    Shell("Held", "atoll.blocks.lock", skip=HOLDING, here=frozenset({"fence"})),
    Shell("Term", "atoll.blocks.election", skip=HOLDING, here=frozenset({"fence"})),
    Shell("Lock", "atoll.blocks.lock", built=True),
    Shell("Election", "atoll.blocks.election", built=True, by_hand={"lead": LEAD}),
    Shell("Semaphore", "atoll.blocks.semaphore", built=True),
    Shell("Permit", "atoll.blocks.semaphore", skip=HOLDING),
    Shell("ReadWriteLock", "atoll.blocks.read_write_lock", built=True),
    Shell("Reading", "atoll.blocks.read_write_lock"),
    Shell("Writing", "atoll.blocks.read_write_lock"),
    Shell("ReadHeld", "atoll.blocks.read_write_lock", skip=HOLDING),
    Shell("WriteHeld", "atoll.blocks.read_write_lock", skip=HOLDING, here=frozenset({"fence"})),
    Shell("Barrier", "atoll.blocks.barrier", built=True),
    Shell("DoubleBarrier", "atoll.blocks.barrier", built=True),
    Shell("Latch", "atoll.blocks.latch", built=True),
    Shell("Counter", "atoll.blocks.counter", built=True),
    Shell("Group", "atoll.blocks.membership", built=True),
    Shell("Membership", "atoll.blocks.membership"),
    Shell("Config", "atoll.blocks.config", built=True, generic="T"),
    Shell(
        "Members", "atoll.blocks.members", built=True, skip=frozenset({"traffic"}),
        in_loop=frozenset({"alive", "peer", "status", "describe", "rotate"}),
    ),
    Shell(
        "Queue", "atoll.blocks.queue", built=True, generic="T",
        skip=frozenset({"worker", "register", "work", "message"}),
    ),
    Shell(
        "Outbox", "atoll.blocks.outbox", built=True,
        skip=frozenset({"relay", "relay_once"}), here=frozenset({"put"}),
    ),
]  # fmt: skip
NAMES = {shell.name for shell in SHELLS}
SHARED = ("semaphore", "read_write_lock")
GATHERED = ("barrier", "latch", "counter", "membership", "config")
SEEN = ("members",)
FILES = {
    "handles.py": [shell for shell in SHELLS if shell.module.startswith("atoll.ports")],
    "sharing.py": [shell for shell in SHELLS if shell.module.removeprefix("atoll.blocks.") in SHARED],
    "seeing.py": [shell for shell in SHELLS if shell.module.removeprefix("atoll.blocks.") in SEEN],
    "gathering.py": [shell for shell in SHELLS if shell.module.removeprefix("atoll.blocks.") in GATHERED],
}
FILES["shells.py"] = [shell for shell in SHELLS if all(shell not in one for one in FILES.values())]

HEAD = '''"""Shells: the same names without an event loop. No logic; every line hands on to the async class.

Written by scripts/make_sync.py from the signatures in blocks and ports. Do not edit.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Generic, Self, TypeVar, TypeVarTuple
{imports}
from atoll.sync import portal

AnswerT = TypeVar("AnswerT")
Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")

'''


def main() -> int:
    wrong = 0
    for name, shells in FILES.items():
        path, text = FOLDER / name, formatted(source(shells))
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != text:
            print(
                f"{path.relative_to(ROOT)} is not what scripts/make_sync.py writes; run it.", file=sys.stderr
            )
            wrong = 1
    return wrong


def formatted(text: str) -> str:
    """As `ruff` would have it: sorted imports, wrapped lines."""
    for words in (["check", "--select", "I,F401", "--fix-only", "-q"], ["format", "-q"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--stdin-filename", str(FOLDER / "shells.py"), "-"],
            input=text, capture_output=True, text=True, cwd=ROOT, check=True, timeout=60,
        )  # fmt: skip
        text = done.stdout
    return text


def source(shells: list[Shell]) -> str:
    """One whole file."""
    needed: dict[str, str] = {"Callable": "collections.abc"}
    bodies = ["".join(written(shell, needed)) for shell in shells]
    text = "".join(bodies)
    lines = [
        *(f"from {home} import {name}" for name, home in sorted(needed.items())),
        *(f"from {shell.module} import {shell.name} as Async{shell.name}" for shell in shells),
        *(imported(file, text) for file, others in FILES.items() if others is not shells),
    ]
    return HEAD.replace("{imports}", "\n".join(lines)) + "\n\n".join(bodies)


def imported(file: str, text: str) -> str:
    """What `text` uses of the shells in another file."""
    used = sorted(shell.name for shell in FILES[file] if re.search(rf"\b{shell.name}\b", text))
    return f"from atoll.sync.{file.removesuffix('.py')} import {', '.join(used)}" if used else ""


def written(shell: Shell, needed: dict[str, str]) -> Iterator[str]:
    """One class."""
    made = getattr(importlib.import_module(shell.module), shell.name)
    of = f"Async{shell.name}" + (f"[{shell.generic}]" if shell.generic else "")
    yield f"class {shell.name}" + (f"(Generic[{shell.generic}])" if shell.generic else "") + ":\n"
    yield f"    {docstring(made, shell.name)}\n"
    if shell.built:
        yield constructor(shell, made, needed)
    else:
        yield f"    def __init__(self, inner: {of}) -> None:\n        self._inner = inner\n\n"
    yield "    def __repr__(self) -> str:\n        return repr(self._inner)\n\n"
    if hasattr(made, "__aenter__"):
        yield managed(shell, made)
    for name, member in members(made):
        if name in shell.by_hand:
            yield shell.by_hand[name] + "\n"
        elif name not in shell.skip:
            yield method(shell, name, member, needed)


def docstring(thing: Any, what: str) -> str:
    text = (inspect.getdoc(thing) or what).split("\n\n")[0].replace("\n", " ")
    return f'"""{text}"""' if len(text) < 96 else '"""' + text.split(". ")[0].rstrip(".") + '."""'


def members(made: Any) -> Iterator[tuple[str, Any]]:
    """Public members, inherited first, each once."""
    seen: dict[str, Any] = {}
    for kind in reversed(made.__mro__):
        if kind.__module__.startswith("atoll"):
            seen.update({n: m for n, m in vars(kind).items() if not n.startswith("_")})
    for name, member in seen.items():
        if isinstance(member, property) or inspect.isfunction(member):
            yield name, member


def constructor(shell: Shell, made: Any, needed: dict[str, str]) -> str:
    parameters, arguments = signature(made.__init__, needed)
    return (
        f"    def __init__({parameters}) -> None:\n        self._inner = Async{shell.name}({arguments})\n\n"
    )


def managed(shell: Shell, made: Any) -> str:
    given = inspect.signature(made.__aenter__).return_annotation
    body = "portal.enter(self._inner)\n        return self"
    if given not in (*NAMES, "Self"):
        body = "return portal.enter(self._inner)"
    if given in NAMES:
        body = f"return {given}(portal.enter(self._inner))"
    return (
        f"    def __enter__(self) -> {given}:\n        {body}\n\n"
        "    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, "
        "trace: TracebackType | None) -> None:\n"
        "        portal.leave(self._inner, kind, error, trace)\n\n"
    )


def method(shell: Shell, name: str, member: Any, needed: dict[str, str]) -> str:
    if isinstance(member, property):
        answer = annotation(inspect.signature(member.fget).return_annotation, member.fget, needed)  # type: ignore[arg-type]
        return (
            f"    @property\n    def {name}(self) -> {answer}:\n"
            f"        {docstring(member, name)}\n        return self._inner.{name}\n\n"
        )
    parameters, arguments = signature(member, needed)
    answer = annotation(inspect.signature(member).return_annotation, member, needed)
    call = f"self._inner.{name}({arguments})"
    if name in shell.here:
        call = f"portal.here({call})"
    elif answer.startswith(("AsyncIterator[", "AsyncGenerator[")):
        needed["Iterator"] = "collections.abc"
        for one in ("AsyncIterator", "AsyncGenerator"):
            needed.pop(one, None)
        answer, call = f"Iterator[{answer.partition('[')[2]}", f"portal.iterate({call})"
    elif name in shell.in_loop:
        call = f"portal.run(portal.called(lambda: {call}))"
    elif inspect.iscoroutinefunction(member):
        call = f"portal.run({call})"
    if answer in NAMES:
        call = f"{answer}({call})"
    doc = docstring(member, f"As `await {name}(...)`.")
    keyword = "" if answer == "None" else "return "
    return f"    def {name}({parameters}) -> {answer}:\n        {doc}\n        {keyword}{call}\n\n"


def signature(function: Any, needed: dict[str, str]) -> tuple[str, str]:
    """The parameters as written, and the arguments that hand them on."""
    parameters, arguments, starred = ["self"], [], False
    for at, parameter in enumerate(inspect.signature(function).parameters.values()):
        if at == 0:
            continue
        hint = annotation(parameter.annotation, function, needed)
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        given = f"portal.inner({parameter.name})" if re.match(r"\w+", hint)[0] in NAMES else parameter.name  # type: ignore[index]
        match parameter.kind:
            case parameter.VAR_POSITIONAL:
                starred = True
                parameters.append(f"*{parameter.name}: {hint}")
                arguments.append(f"*{given}")
            case parameter.KEYWORD_ONLY:
                parameters += [] if starred else ["*"]
                starred = True
                parameters.append(f"{parameter.name}: {hint}{default}")
                arguments.append(f"{parameter.name}={given}")
            case _:
                parameters.append(f"{parameter.name}: {hint}{default}")
                arguments.append(given)
    return ", ".join(parameters), ", ".join(arguments)


def annotation(hint: Any, function: Any, needed: dict[str, str]) -> str:
    """The annotation as text; notes where its names come from."""
    text = "None" if hint is None else str(hint)
    for name in re.findall(r"[A-Za-z_]\w*", text):
        if name in NAMES or hasattr(builtins, name) or name in ("Any", "Self", "T", "AnswerT"):
            continue
        value = function.__globals__.get(name) or for_types_only(function.__module__, name)
        needed[name] = value.__module__ if isinstance(value, type) else function.__module__
        if needed[name].startswith(
            "atoll.algorithms"
        ):  # the sync face may not import them; its block hands them on
            needed[name] = function.__module__
        if needed[name] in ("typing", "abc", "collections.abc") or not needed[name].startswith("atoll"):
            needed[name] = "collections.abc"
    return text


def for_types_only(module: str, name: str) -> Any:
    """What `name` means in a module that imports it for type checkers only."""
    for node in ast.walk(ast.parse(inspect.getsource(sys.modules[module]))):
        if isinstance(node, ast.ImportFrom) and node.module and name in [alias.name for alias in node.names]:
            return getattr(importlib.import_module(node.module), name)
    raise KeyError(f"{module} does not say what {name} is")


if __name__ == "__main__":
    sys.exit(main())
