"""Ledger: one transaction on the server, and what this handle remembers of it.

A customer who keeps their receipts. With each request they show the newest one; when the office has no such
entry in its book, the book is not the one it was, and nothing more is asked of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from atoll import clock
from atoll.engines.parts.opening import Opening
from atoll.engines.redis import scripts
from atoll.engines.redis.options import RedisOptions
from atoll.engines.redis.place import Kind, Place
from atoll.engines.redis.road import Letter, Road
from atoll.engines.redis.scripts import Head
from atoll.errors import ConfigurationError, EpochUncertain, FormatRefused
from atoll.ports import refusal

_REPEATABLE = {"get", "range", "look", "state", "remaining"}


class Receipt(NamedTuple):
    """The newest answer this handle had: of which store, and what it proves."""

    id: str = ""
    epoch: int = 0
    revision: int = 0


class Ledger:
    """Runs the scripts, over one road for each event loop."""

    def __init__(self, place: Place, url: str, options: RedisOptions) -> None:
        self.place, self.url, self.options = place, url, options
        self.roads: Opening[Road] = Opening(self._road, Road.close)
        self.keys = scripts.keys(options.prefix)
        self._keys = scripts.packed((len(self.keys), *self.keys))
        self._fails_over = 0 if place.kind is Kind.ALONE else 1
        self.receipt = Receipt()
        self.last: Head | None = None

    async def _road(self) -> Road:
        road = Road(self.place, self.url, self.options)
        try:
            await self._check_rights(road)
        except BaseException:
            await road.close()
            raise
        return road

    async def _check_rights(self, road: Road) -> None:
        """A script that is stopped half-way leaves half a transaction: so this comes before the first."""
        probe = f"{{{self.options.prefix}}}:probe"
        letter = Letter(
            "checking the rights of the user", scripts.command("EVAL", scripts.rights(), 1, probe)
        )
        denied = await road.ask(letter, ceiling_s=self.options.ceiling_s, repeatable=True)
        if denied:
            raise ConfigurationError(
                f"the user of {self.url} may not {', '.join(one.decode() for one in denied)}. Give it what "
                f"the scripts need: ACL SETUSER <user> ~{{{self.options.prefix}}}:* "
                "+@read +@write +@scripting +time +info +config|get"
            )

    async def run(
        self, name: str, verb: str, *words: Any, id: str | None = None
    ) -> tuple[Head, Sequence[Any]]:
        """One script: its head, and what follows. Raises what the head tells of the whole store."""
        made, receipt = scripts.script(name), self.receipt
        mine = f"{receipt.id} {receipt.epoch} {receipt.revision}"
        head = f"{mine} {self.options.history_max} {clock.unique_id()} {self._fails_over} {verb}"
        count, rest = len(self.keys) + len(words) + 4, self._keys + scripts.packed((head, *words))
        letter = Letter(
            verb,
            b"*%d\r\n%b%b" % (count, scripts.packed(("EVALSHA", made.digest)), rest),
            lambda: b"*%d\r\n%b%b" % (count, scripts.packed(("EVAL", made.text)), rest),
            id,
        )
        road = await self.roads.get()
        answer = await road.ask(letter, ceiling_s=self.options.ceiling_s, repeatable=verb in _REPEATABLE)
        return self._read(answer)

    async def command(self, *words: Any) -> Any:
        """A plain command that only reads."""
        road = await self.roads.get()
        letter = Letter(" ".join(map(str, words[:2])), scripts.command(*words))
        return await road.ask(letter, ceiling_s=self.options.ceiling_s, repeatable=True)

    def _read(self, answer: Sequence[Any]) -> tuple[Head, Sequence[Any]]:
        if answer[0].startswith(b"format "):
            raise FormatRefused(
                f"{self.url} was written by a newer Atoll, in {answer[0].decode()}; this one reads "
                "format 1. Use that version, or another place."
            )
        head, rest = scripts.parse(answer)
        match head.status:
            case "damaged":
                raise EpochUncertain(self._damage(rest[0].decode(errors="replace")))
            case "lost":
                raise EpochUncertain(
                    f"{self.url} went back in time: {head.why}. A lock may be free that somebody holds. "
                    f"Let the holders end, then accept it as it is: atoll store bump {self.url}"
                )
            case "uncertain":
                self.uncertain(head)
        self._remember(head)
        return head, rest

    def _damage(self, found: str) -> str:
        """The sentence for a store whose keys do not belong together."""
        if "in part" in found:
            cause = (
                "A crash tore the server's append-only file in the midst of it, and Redis brought the first "
                "half back. Stop the writers, CONFIG SET aof-load-truncated no to see the next tear, "
                "find out what is missing"
            )
        else:
            cause = (
                f"Something evicted or removed keys of {{{self.options.prefix}}}. Set maxmemory-policy to "
                "noeviction, find out who it was"
            )
        return f"{self.url}: {found}. {cause}, then accept what is left: atoll store bump {self.url}"

    def uncertain(self, head: Head) -> NoReturn:
        """Raise EpochUncertain with what the store noted."""
        raise EpochUncertain(
            f"{self.url} may have gone back in time: {head.why or 'its replication id changed'}, now "
            f"{head.life[:12]}. What it had acknowledged last may be missing, a lock too. Let the holders "
            f"end, then accept it as it is: atoll store bump {self.url}"
        )

    def _remember(self, head: Head) -> None:
        mine = Receipt(head.id, head.epoch, head.revision)
        self.last = head
        if mine.id != self.receipt.id or mine[1:] > self.receipt[1:]:
            self.receipt = mine

    def has_seen(self, revision: int) -> None:
        """A transaction was told by the stream: a server that does not know it any more went back in time."""
        if self.receipt.id and revision > self.receipt.revision:
            self.receipt = self.receipt._replace(revision=revision)

    def refuse_lease(self, rest: Sequence[Any]) -> NoReturn:
        """Raise LeaseOver for the lease that the answer names."""
        raise refusal.lease_over(rest[0].decode())
