"""RedisStore: the Store port on Redis and Valkey. One script is one transaction.

The data, the counter, the leases and the stream of what happened lie in one slot, and one script works on all
of them; nobody else's command comes between. Everything but the script's own speed is the server's setting.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

from atoll.engines.parts import pages
from atoll.engines.parts.opening import Opening
from atoll.engines.redis import place, scripts, settings
from atoll.engines.redis.examining import RedisExamining
from atoll.engines.redis.feed import Pages, RedisHistory
from atoll.engines.redis.leases import RedisLeasing
from atoll.engines.redis.ledger import Ledger
from atoll.engines.redis.moving import RedisMoving
from atoll.engines.redis.options import RedisOptions
from atoll.engines.redis.settings import Settings
from atoll.engines.redis.watchman import Watchman
from atoll.errors import ConfigurationError
from atoll.ports import refusal
from atoll.ports.address import Address
from atoll.ports.examining import Examining
from atoll.ports.register import Applied, Entry, Got, Observation, Unmet
from atoll.ports.store import (
    Compare,
    Delete,
    Field,
    Guard,
    History,
    Leasing,
    Moving,
    Operation,
    Ranged,
    StoreClaims,
    delete,
    put,
    unchanged,
)

_FIELDS = {Field.REVISION: "r", Field.CREATE_REVISION: "c", Field.VALUE: "v"}


class RedisStore:
    """A store on a Redis or Valkey server. Inert until first use; reopens in a forked child.

    `RedisStore(client=r)` takes the address, login and TLS settings of a redis-py client (Redis,
    RedisCluster, a Sentinel's master) and opens connections of its own: a client repeats what was sent.
    """

    def __init__(self, client: Any = None, *, options: RedisOptions | None = None) -> None:
        if client is None:
            raise ConfigurationError(
                "found no client; expected RedisStore(client=redis.asyncio.Redis(...)), or a URL: "
                'atoll.store("redis://...").'
            )
        named = place.of_client(client)
        self._begin(named, place.describe(named), options or RedisOptions())

    @classmethod
    def from_address(cls, address: Address) -> Self:
        """The store that `redis://host:6379/0?option=value` names."""
        options = address.parse_options(RedisOptions)
        store = cls.__new__(cls)
        store._begin(place.of_address(address, options), str(address), options)
        return store

    def _begin(self, named: place.Place, url: str, options: RedisOptions) -> None:
        self.options, self._url = options, url
        self.ledger = Ledger(named, url, options)
        self.watchmen: Opening[Watchman] = Opening(self._watchman, Watchman.close)
        self._opened: Opening[Settings] = Opening(self._read_settings, _nothing)
        self._leasing, self._history = RedisLeasing(self.ledger), RedisHistory(self)
        self._moving, self._examining = RedisMoving(self.ledger), RedisExamining(self)

    def __repr__(self) -> str:
        return f"<Store {self._url}>"

    @property
    def url(self) -> str:
        return self._url

    @property
    def leasing(self) -> Leasing | None:
        return self._leasing

    @property
    def history(self) -> History | None:
        return self._history

    @property
    def moving(self) -> Moving | None:
        return self._moving

    @property
    def examining(self) -> Examining | None:
        return self._examining

    @property
    def shadow(self) -> None:
        return None

    async def open(self) -> StoreClaims:
        """Connect, read the server's settings, check the format. Cheap when open."""
        found = await self._opened.get()
        head = self.ledger.last
        if head is None:
            head, _ = await self.ledger.run("read", "state")
        return settings.claims(self.ledger, found, head)

    async def close(self) -> None:
        """End this loop's watches with WatchLost and close its connections. A verb opens it again."""
        await self._opened.close()
        await self.ledger.roads.close()
        await self.watchmen.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def epoch(self) -> int:
        head, _ = await self.ledger.run("read", "state")
        if not head.certain:
            self.ledger.uncertain(head)
        return head.epoch

    async def get(self, key: str) -> Got:
        refusal.check_key(key, self.options)
        head, rest = await self.ledger.run("read", "get", key)
        return Got(scripts.entry(key, rest[0]), head.revision)

    async def range(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int = 1000
    ) -> Ranged:
        """Entries below `prefix`, or of start <= key < end, or of both, as of one revision."""
        refusal.check_limit(limit)
        low, high = refusal.bounds(prefix, start, end)
        if high is not None and high <= low:
            high = low = "\0"
        head, rest = await self.ledger.run("read", "range", low, high or "", limit + 1)
        found = scripts.entries(rest[0], rest[1])
        return Ranged(found[:limit], head.revision, len(found) > limit)

    async def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
        return await self.transact(put(key, value), compare=[unchanged(key, revision)])

    async def delete_if(self, key: str, revision: int) -> Applied | Unmet:
        return await self.transact(delete(key), compare=[unchanged(key, revision)])

    async def transact(
        self,
        *then: Operation,
        compare: Sequence[Compare] = (),
        guard: Guard | None = None,
        request_id: str | None = None,
    ) -> Applied | Unmet:
        refusal.check_transaction(then, compare, guard, self.options)
        if guard is not None:
            guard.check()
        guarded = ("", "", "") if guard is None else (guard.owner_key, *guard.token)
        window = round(self.options.dedupe_window_s * 1e6)
        words: list[Any] = [request_id or "", window, *guarded, len(compare)]
        for comparison in compare:
            words += [comparison.key, _FIELDS[comparison.field], comparison.expected]
        words.append(len(then))
        for operation in then:
            if isinstance(operation, Delete):
                words += ["d", operation.key, b"", ""]
            else:
                words += ["p", operation.key, operation.value, operation.lease or ""]
        head, rest = await self.ledger.run("transact", "transact", *words, id=request_id)
        match head.status:
            case "replayed":
                return Applied(int(rest[0]), replayed=True)
            case "frozen":
                raise refusal.frozen(self._url, rest[0].decode()[1:])
            case "over":
                self.ledger.refuse_lease(rest)
            case "refused":
                assert guard is not None
                owner = scripts.entry(guard.owner_key, rest[0])
                refusal.check_guard(guard, owner, head.epoch, head.revision)
            case "unmet":
                keys = [comparison.key for comparison in compare]
                seen = {key: scripts.entry(key, one) for key, one in zip(keys, rest[0], strict=True)}
                return Unmet(seen, head.revision)
        return Applied(head.revision, _results(then, rest[0], head.revision))

    async def observe(self, prefix: str) -> AsyncIterator[Observation]:
        """See the port. One observation for each transaction; a reset when it fell behind the stream."""
        await self.open()
        with Pages(self, await self.watchmen.get()) as source:
            async for observation in pages.observe(source, prefix):
                yield observation

    async def _watchman(self) -> Watchman:
        return Watchman(self.ledger)

    async def _read_settings(self) -> Settings:
        await self.ledger.run("read", "state")
        return await settings.read(self.ledger)


async def _nothing(_: Settings) -> None:
    """Settings need no closing."""


def _results(then: Sequence[Operation], answers: Sequence[bytes], revision: int) -> tuple[Entry | None, ...]:
    """A put's answer is its create_revision, a delete's what it removed."""
    return tuple(
        scripts.entry(operation.key, answer)
        if isinstance(operation, Delete)
        else Entry(operation.key, operation.value, revision, int(answer), operation.lease)
        for operation, answer in zip(then, answers, strict=True)
    )
