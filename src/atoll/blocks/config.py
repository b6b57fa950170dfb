"""Config: one typed setting that many read, with its history.

The notice board in the hall with a glass door. The caretaker puts a new sheet over the old one and writes its
number on it; who reads the sheet knows which one he saw, and any old one can be put up again.

Promise: readers see whole versions, in the order of their numbers; two who write with the same `expected` do
not both succeed; a version that was answered is kept until `versions_max` newer ones are.
What can break it: a store that loses acknowledged writes; a type that cannot read what a newer program wrote:
then `get` says FormatRefused and `watch` stays with what it had.
Proved by: tests/blocks/test_config.py, tests/blocks/test_recipes_weather.py
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote

import msgspec

from atoll import clock
from atoll.algorithms.backoff import full_jitter
from atoll.blocks.codec import Codec, Undecodable
from atoll.blocks.lock import checked_name
from atoll.blocks.ownership import below
from atoll.blocks.session import again
from atoll.blocks.taking import described
from atoll.blocks.watching import states
from atoll.errors import ConfigurationError, Conflict, FormatRefused, NotApplied, NotReady, OutcomeUnknown
from atoll.ports.register import Applied, Entry
from atoll.ports.store import Operation, Store, absent, delete, put, unchanged

log = logging.getLogger("atoll.config")

T = TypeVar("T")

ATTEMPTS = 50
"""How often a change without `expected` is tried anew when others were quicker."""


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in `current` and in each `version/<number>`. `at`: wall clock. `nonce`: of one writing."""

    number: int
    at: float
    by: str
    nonce: str
    body: msgspec.Raw
    format: int = 1


@dataclass(frozen=True, slots=True)
class Version(Generic[T]):
    """One version. `value` None: this program's type cannot read it. `at`: wall clock, Unix seconds."""

    number: int
    value: T | None
    at: float
    by: str


class Config(Generic[T]):
    """A setting by name, of one type: msgspec, dataclass, pydantic or builtins.

    `default`: what is read while nothing was ever set. `versions_max`: how many versions are kept.
    """

    def __init__(
        self, store: Store, name: str, kind: type[T], *, default: T | None = None, versions_max: int = 20
    ) -> None:
        checked_name("config", name)
        if versions_max < 1:
            raise ConfigurationError(f"found versions_max={versions_max}; expected 1 or more.")
        self.store, self.name, self.default, self.versions_max = store, name, default, versions_max
        self._kind, self._codec = kind, Codec(kind)
        self._prefix = f"config/{quote(name, safe='')}/"
        self._current = f"{self._prefix}current"

    def __repr__(self) -> str:
        return f"<Config {self.name!r} on {self.store!r}>"

    async def get(self) -> T:
        """The value in force. NotReady if nothing was ever set and there is no default."""
        version = await self.version()
        if version is not None:
            return self._readable(version)
        if self.default is None:
            raise NotReady(f"{self.name} was never set. Set it, or give Config a default.")
        return self.default

    async def version(self) -> Version[T] | None:
        """The version in force; None if nothing was ever set."""
        entry = (await again(lambda: self.store.get(self._current))).entry
        return self._version(entry) if entry is not None else None

    async def history(self) -> list[Version[T]]:
        """The versions that are kept, the oldest first."""
        entries = await again(lambda: below(self.store, f"{self._prefix}version/"))
        return [self._version(entry) for entry in entries]

    async def set(self, value: T, *, expected: int | None = None, by: str | None = None) -> int:
        """Put it in force everywhere; answers the new version's number.

        `expected`: only if this version is still in force (0: if nothing was ever set), else Conflict.
        Without it the last one wins. `by`: who did it, for the history. OutcomeUnknown only if the history
        cannot tell any more.
        """
        body = self._encoded(value)
        return await _Writing(self, body, expected, by or described()).made()

    async def roll_back(self, version: int, *, expected: int | None = None, by: str | None = None) -> int:
        """Put the value of an old version in force, as a new version; answers its number."""
        entry = (await again(lambda: self.store.get(self._key(version)))).entry
        if entry is None:
            raise NotReady(
                f"version {version} of {self.name} is not kept (versions_max={self.versions_max}). history() "
                "tells those that are."
            )
        self._readable(self._version(entry))
        return await _Writing(self, bytes(_sheet(entry).body), expected, by or described()).made()

    async def watch(self) -> AsyncGenerator[T]:
        """The value in force, now and at each change; begins with the default while nothing was set.

        Versions that come and go between two looks are not told. A version that cannot be read is logged,
        and what was in force before stays.
        """
        told = -1
        async with aclosing(states(self.store, self._current)) as news:
            async for state in news:
                entry = state.get(self._current)
                if entry is None:
                    if told < 0 and self.default is not None:
                        told = 0
                        yield self.default
                    continue
                version = self._version(entry)
                if version.number == told:
                    continue
                told = version.number
                if version.value is None:
                    log.error("%s: version %d is unreadable; the one before stays", self.name, told)
                else:
                    yield version.value

    def _key(self, number: int) -> str:
        return f"{self._prefix}version/{number:012d}"

    def _encoded(self, value: T) -> bytes:
        if isinstance(self._kind, type) and not isinstance(value, self._kind):
            raise ConfigurationError(
                f"found a {type(value).__qualname__}; {self.name} is a {self._kind.__qualname__}."
            )
        body = self._codec.encode(value)
        try:
            self._codec.decode(body, {})
        except Undecodable as error:
            raise ConfigurationError(f"{self.name} could not be read again: {error}. Not set.") from None
        return body

    def _version(self, entry: Entry) -> Version[T]:
        sheet = _sheet(entry)
        try:
            value = self._codec.decode(bytes(sheet.body), {})
        except Undecodable as error:
            log.debug("%s: version %d: %s", self.name, sheet.number, error)
            return Version(sheet.number, None, sheet.at, sheet.by)
        return Version(sheet.number, value, sheet.at, sheet.by)

    def _readable(self, version: Version[T]) -> T:
        if version.value is None:
            raise FormatRefused(
                f"version {version.number} of {self.name}, set by {version.by}, is not a "
                f"{getattr(self._kind, '__name__', self._kind)}. Upgrade this program, or roll_back()."
            )
        return version.value


class _Writing:
    """One new version, tried until it is known to be there once."""

    def __init__(self, config: Config[T], body: bytes, expected: int | None, by: str) -> None:
        self._config, self._expected = config, expected
        self._sheet = Sheet(
            number=0, at=round(clock.wall_now(), 3), by=by, nonce=clock.unique_id(), body=msgspec.Raw(body)
        )
        self._unsure: int | None = None  # the number of a version that was sent, and no answer came

    async def made(self) -> int:
        try:
            for attempt in range(1, ATTEMPTS + 1):
                done = await self._once()
                if done is not None:
                    return done
                await asyncio.sleep(
                    full_jitter(attempt, clock.chance().random(), first_s=0.005, ceiling_s=0.2)
                )
        except NotApplied as error:
            if self._unsure is None:
                raise
            raise self._unknown() from error
        if self._unsure is not None:
            raise self._unknown()
        raise Conflict(f"{self._config.name} was set by others {ATTEMPTS} times while we tried. Ask again.")

    async def _once(self) -> int | None:
        config = self._config
        entry = (await again(lambda: config.store.get(config._current))).entry
        now = _sheet(entry).number if entry is not None else 0
        if (done := await self._settled(now)) is not None:
            return done
        if self._expected is not None and now != self._expected:
            raise Conflict(
                f"{config.name} is at version {now}, expected {self._expected}: somebody else set it. "
                "Read it, and decide again."
            )
        number = now + 1
        text = msgspec.json.encode(msgspec.structs.replace(self._sheet, number=number))
        then: list[Operation] = [put(config._current, text), put(config._key(number), text)]
        if number > config.versions_max:
            then.append(delete(config._key(number - config.versions_max)))
        same = unchanged(config._current, entry.revision) if entry else absent(config._current)
        try:
            answer = await config.store.transact(*then, compare=[same, absent(config._key(number))])
        except OutcomeUnknown:
            self._unsure = number
            return None
        if isinstance(answer, Applied):
            return number
        there = answer.entries[config._key(number)]  # ours, if the request had arrived twice
        return number if there is not None and _sheet(there).nonce == self._sheet.nonce else None

    async def _settled(self, now: int) -> int | None:
        """The number that a version of ours got whose answer was lost. None: it is not there."""
        unsure = self._unsure
        if unsure is None or now < unsure:
            return None  # it may come yet; the next try is the same, and only one of them is applied
        entry = (await again(lambda: self._config.store.get(self._config._key(unsure)))).entry
        if entry is None:
            raise self._unknown()
        if _sheet(entry).nonce == self._sheet.nonce:
            return unsure
        self._unsure = None
        return None

    def _unknown(self) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"a version of {self._config.name} was sent, and cannot be found out about. "
            "Read history() and decide.",
            id=self._sheet.nonce,
        )


def _sheet(entry: Entry) -> Sheet:
    try:
        sheet = msgspec.json.decode(entry.value, type=Sheet)
    except msgspec.DecodeError as error:
        raise FormatRefused(f"{entry.key} holds no version of a config: {error}. Use another name.") from None
    if sheet.format > 1:
        raise FormatRefused(f"{entry.key} has format {sheet.format}; this Atoll reads 1. Upgrade it.")
    return sheet
