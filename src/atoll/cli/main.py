"""The command `atoll`: finds the verb, lets its file read the rest, turns errors into sentences.

Exit codes: 0 yes, 1 no, 2 wrong words, 3 could not ask, 4 not known.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from atoll.errors import AtollError, ConfigurationError, OutcomeUnknown

YES, NO, WRONG_WORDS, COULD_NOT_ASK, NOT_KNOWN = range(5)

# verb -> (module, one line). A verb's module has `arguments(parser)` and `run(options) -> int`.
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("atoll.cli.demo", "the first minute: a lock, a queue, beside the naive way"),
    "up": ("atoll.cli.up", "run an app of several services on this machine"),
    "status": ("atoll.cli.status", "the services of a running app, and what needs a look"),
    "logs": ("atoll.cli.logs", "what a service printed"),
    "restart": ("atoll.cli.restart", "restart a service of a running app, one instance at a time"),
    "node": ("atoll.cli.node", "run one member of a Raft cluster"),
    "work": ("atoll.cli.work", "run the queue workers, relays and elections of a module"),
    "locks": ("atoll.cli.locks", "who holds and who waits, since when"),
    "queue": ("atoll.cli.queue", "what waits in the queues, what died and why"),
    "schema": ("atoll.cli.schema", "make the tables that Atoll needs in a database of yours"),
    "store": ("atoll.cli.store", "copy, move, back up, restore, check a store; raise its epoch"),
    "cluster": ("atoll.cli.cluster", "members of a raft store: how they stand, who comes, who goes"),
    "doctor": ("atoll.cli.doctor", "what a server's own settings mean for what is kept on it"),
    "transactions": ("atoll.cli.transactions", "transactions in doubt, and how others ended"),
    "verify": ("atoll.cli.verify", "test a server's guarantees, with faults on"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point: answers the exit code."""
    try:
        try:
            return _answer(list(sys.argv[1:] if argv is None else argv))
        finally:
            print(end="", flush=True)
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE  # nothing more can be said, and that is no error of ours


def _answer(words: list[str]) -> int:
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
    asked = Ended()
    try:
        with asked:
            return int(module.run(options))
    except ConfigurationError as error:
        return complain(options.json, error, WRONG_WORDS)
    except OutcomeUnknown as error:
        return complain(options.json, error, NOT_KNOWN)
    except (AtollError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            raise
        return complain(options.json, error, COULD_NOT_ASK)
    except KeyboardInterrupt:
        return 128 + asked.by


class Stopped(KeyboardInterrupt):
    """A signal ended the verb.

    Of a kind of our own, and raised in the handler: with SIGINT raised in its stead, a process that was
    stopped during its imports was seen to end by SIGINT (-2) in place of 143.
    """


class Ended:
    """Inside, SIGTERM and SIGHUP end a verb as Ctrl-C does, so that what it started is cleared up.

    `by`: the number of the signal. A verb that drains hears them itself instead.
    """

    def __init__(self) -> None:
        self.by: int = signal.SIGINT
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:  # nohup stays nohup
                    self._before[number] = signal.signal(number, self._end)

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _end(self, number: int, frame: object) -> None:
        self.by = number
        handler = signal.getsignal(signal.SIGINT)
        if handler in (signal.SIG_IGN, signal.SIG_DFL, signal.default_int_handler):
            raise Stopped
        signal.raise_signal(signal.SIGINT)  # an event loop hears it, and ends what it runs


def _nobody_reads() -> bool:
    """Whether whoever read our output has closed it, as `head` does."""
    look = select.poll()
    look.register(sys.stdout.fileno(), 0)
    return any(found & (select.POLLERR | select.POLLHUP) for _, found in look.poll(0))


def complain(as_json: bool, error: BaseException, code: int) -> int:
    """Say what is wrong, where a person or a program expects it."""
    if as_json:
        print(json.dumps({"error": type(error).__name__, "message": str(error), "exit": code}))
    else:
        print(f"atoll: {error}", file=sys.stderr)
    return code
