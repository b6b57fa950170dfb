"""The command `atoll`: finds the verb, lets its file read the rest, turns errors into sentences.

Exit codes: 0 yes, 1 no, 2 wrong words, 3 could not ask, 4 not known.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence

from atoll.errors import AtollError, ConfigurationError, OutcomeUnknown

YES, NO, WRONG_WORDS, COULD_NOT_ASK, NOT_KNOWN = range(5)

# verb -> (module, one line). A verb's module has `arguments(parser)` and `run(options) -> int`.
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("atoll.cli.demo", "the first minute: a lock, a queue, beside the naive way"),
    "up": ("atoll.cli.up", "run an app of several services on this machine"),
    "status": ("atoll.cli.status", "the services of a running app, and what needs a look"),
    "logs": ("atoll.cli.logs", "what a service printed"),
    "restart": ("atoll.cli.restart", "restart a service of a running app, one instance at a time"),
    "work": ("atoll.cli.work", "run the queue workers, relays and elections of a module"),
    "locks": ("atoll.cli.locks", "who holds and who waits, since when"),
    "queue": ("atoll.cli.queue", "what waits in the queues, what died and why"),
    "transactions": ("atoll.cli.transactions", "transactions in doubt, and how others ended"),
    "verify": ("atoll.cli.verify", "test a server's guarantees, with faults on"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point: answers the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return YES if words else WRONG_WORDS
    if words[0] in ("--version", "-V"):
        from atoll import __version__

        print(f"atoll {__version__}")
        return YES
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        print(f"atoll: there is no verb {verb!r}.\n\n{overview()}", file=sys.stderr)
        return WRONG_WORDS
    return run_verb(verb, rest)


def overview() -> str:
    """All verbs, a line each."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {line}" for verb, (_, line) in VERBS.items()]
    return "\n".join(["usage: atoll VERB [...]", "", *lines, "", "atoll VERB --help tells a verb's words."])


def run_verb(verb: str, rest: Sequence[str]) -> int:
    """One verb, with its errors said as one sentence on standard error."""
    module = importlib.import_module(VERBS[verb][0])
    parser = argparse.ArgumentParser(prog=f"atoll {verb}", description=VERBS[verb][1])
    module.arguments(parser)
    if not any("--json" in action.option_strings for action in parser._actions):
        parser.add_argument("--json", action="store_true", help="answer as JSON")
    options = parser.parse_args(rest)
    try:
        return int(module.run(options))
    except ConfigurationError as error:
        return complain(options.json, error, WRONG_WORDS)
    except OutcomeUnknown as error:
        return complain(options.json, error, NOT_KNOWN)
    except (AtollError, OSError) as error:
        return complain(options.json, error, COULD_NOT_ASK)
    except KeyboardInterrupt:
        return 130


def complain(as_json: bool, error: BaseException, code: int) -> int:
    """Say what is wrong, where a person or a program expects it."""
    if as_json:
        print(json.dumps({"error": type(error).__name__, "message": str(error), "exit": code}))
    else:
        print(f"atoll: {error}", file=sys.stderr)
    return code
