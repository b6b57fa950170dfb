"""Proposals: who waits for which place in the log, and what can honestly be said to each.

Coat checks. The number is a place in the log and the term that gave it. If another term's coat hangs on that
hook, yours was certainly not hung; if the attendant lost sight of the hook, he says that he does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from atoll.algorithms.raft.events import Command
from atoll.algorithms.raft.messages import Entry, Index, Term
from atoll.errors import AtollError

Answer = asyncio.Future[bytes]


class Proposals:
    """Commands that wait: first for the next turn of the loop, then for their place to be applied.

    `flush` gets all of one turn; `replaced` and `unknown` make the two errors.
    """

    def __init__(
        self,
        flush: Callable[[list[Command], list[Answer]], None],
        replaced: Callable[[], AtollError],
        unknown: Callable[[Term], AtollError],
    ) -> None:
        self._flush_all = flush
        self._replaced = replaced
        self._unknown = unknown
        self._loop = asyncio.get_running_loop()
        self._commands: list[Command] = []
        self._answers: list[Answer] = []
        self._places: dict[Index, list[tuple[Term, Answer]]] = {}

    def __len__(self) -> int:
        return len(self._places) + len(self._answers)

    def add(self, command: Command) -> Answer:
        """All that are added in one turn of the loop go together."""
        answer: Answer = self._loop.create_future()
        if not self._answers:
            self._loop.call_soon(self._flush)
        self._commands.append(command)
        self._answers.append(answer)
        return answer

    def _flush(self) -> None:
        commands, answers = self._commands, self._answers
        self._commands, self._answers = [], []
        if any(answer.done() for answer in answers):  # given up before they were said to anybody
            both = [(c, a) for c, a in zip(commands, answers, strict=True) if not a.done()]
            commands, answers = [c for c, _ in both], [a for _, a in both]
        if answers:
            self._flush_all(commands, answers)

    def placed(self, answers: Iterable[Answer], term: Term, index: Index) -> None:
        """They stand in the log from `index` on, in `term`."""
        places = self._places
        for at, answer in enumerate(answers, index):
            places.setdefault(at, []).append((term, answer))

    def applied(self, entries: Sequence[Entry], results: Sequence[bytes]) -> None:
        """These were applied; whoever waits for one of their places hears what that means."""
        places = self._places
        if not places:
            return
        for entry, result in zip(entries, results, strict=True):
            for term, answer in places.pop(entry.index, ()):
                if answer.done():
                    continue
                if term == entry.term:
                    answer.set_result(result)
                else:
                    answer.set_exception(self._replaced())

    def indexes(self) -> set[Index]:
        """The places for which somebody waits."""
        return set(self._places)

    def lost(self, indexes: Iterable[Index]) -> None:
        """What became of these places cannot be known here."""
        for index in indexes:
            for term, answer in self._places.pop(index, ()):
                if not answer.done():
                    answer.set_exception(self._unknown(term))

    def ended(self, error: Callable[[], AtollError]) -> None:
        """Nobody is answered any more: `error` for what was never said to anybody."""
        answers, self._answers, self._commands = self._answers, [], []
        for answer in answers:
            if not answer.done():
                answer.set_exception(error())
        self.lost(self.indexes())
