"""ConsulRegister: the Register port on Consul's key-value store.

A ledger kept by a committee. Each change has the committee's own number, and you may change a line if you can
say the number it had. A second line is written with every removal, so that the removal has a number too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Self, TypeVar

from atoll import clock
from atoll.engines.consul.client import Client, entry, written
from atoll.engines.parts.call import answered
from atoll.engines.parts.opening import Opening
from atoll.errors import ConfigurationError, NotSent, OutcomeUnknown, Overloaded, WatchLost
from atoll.ports import refusal
from atoll.ports.address import Address
from atoll.ports.register import ABSENT, Applied, Entry, Got, Observation, Unmet
from atoll.ports.store import Durable, Observing, Put, Reach, StoreClaims

T = TypeVar("T")
REMOVALS = ".atoll-removals"
WAIT_S = 2.0
RETRY_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulOptions:
    """What a `consul://` URL may say. Times in seconds, sizes in bytes."""

    ceiling_s: float = 10.0
    key_bytes_max: int = 512
    value_bytes_max: int = 512 * 1024
    liveness_s: float = 15.0
    datacenter: str = ""
    tls: bool = False

    def __post_init__(self) -> None:
        for name in ("ceiling_s", "key_bytes_max", "value_bytes_max", "liveness_s"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"found {name}={getattr(self, name)}; expected more than 0.")

    @property
    def operations_max(self) -> int:
        """One key at a time."""
        return 1


class ConsulRegister:
    """A register below the folder that the URL's path names. Durable: QUORUM. Inert until first use."""

    def __init__(self, address: Address, *, options: ConsulOptions | None = None) -> None:
        self.options = options or ConsulOptions()
        self._address = address
        self._folder = f"{address.path.strip('/') or 'atoll'}/"
        self._opening: Opening[Client] = Opening(self._make, lambda client: client.close())

    @classmethod
    def from_address(cls, address: Address) -> Self:
        """The register that `consul://:token@host:8500/folder?option=value` names."""
        return cls(address, options=address.parse_options(ConsulOptions))

    def __repr__(self) -> str:
        return f"<Register {self.url}>"

    @property
    def url(self) -> str:
        return str(self._address)

    async def open(self) -> StoreClaims:
        """Ask the leader once. Cheap when open."""
        await self._opening.get()
        return StoreClaims(
            durable=Durable.QUORUM,
            reach=Reach.NETWORK,
            expiry_late_max_s=0.0,
            key_bytes_max=self.options.key_bytes_max - len(self._folder.encode()),
            value_bytes_max=self.options.value_bytes_max,
            operations_max=1,
            epoch_source="none: the index may go back when a snapshot is restored, and it does not say so",
            observe=Observing.COALESCED,
            liveness_s=self.options.liveness_s,
        )

    async def close(self) -> None:
        await self._opening.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def get(self, key: str) -> Got:
        """What the leader has, after it has asked a majority whether it still leads."""
        refusal.check_key(key, self.options)

        async def send(client: Client, left_s: float) -> Got:
            found, index = await client.read(self._folder + key, left_s)
            return Got(self._mine(found), max(index, found.revision if found else 0))

        return await self._ask(f"get {key!r}", send)

    async def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
        refusal.check_transaction([Put(key, value)], (), None, self.options)
        self._check_whole(key)
        put = written("cas", self._folder + key, value=value, index=revision)

        async def send(client: Client, left_s: float) -> Applied | Unmet:
            rows = await client.transact([put], left_s)
            if rows is None:
                return await self._unmet(client, key, left_s)
            made = entry({**rows[0], "Value": put["Value"]})
            return Applied(made.revision, (self._mine(made),))

        return await self._ask(f"put {key!r}", send)

    async def delete_if(self, key: str, revision: int) -> Applied | Unmet:
        refusal.check_key(key, self.options)
        mark = written("set", self._folder + REMOVALS)

        async def send(client: Client, left_s: float) -> Applied | Unmet:
            found, index = await client.read(self._folder + key, left_s)
            if found is None or found.revision != revision or revision == ABSENT:
                return Unmet({key: self._mine(found)}, index)
            gone = written("delete-cas", self._folder + key, index=revision)
            rows = await client.transact([gone, mark], left_s)
            if rows is None:
                return await self._unmet(client, key, left_s)
            return Applied(int(rows[-1]["ModifyIndex"]), (self._mine(found),))

        return await self._ask(f"delete {key!r}", send)

    async def observe(self, prefix: str) -> AsyncIterator[Observation]:
        """See the port. Coalesces; wake-ups without news are kept back; an index gone back is a reset."""
        client, life = await self._opening.get(), self._opening.life
        known: dict[str, Entry] | None = None
        index, heard = 0, clock.loop_now()
        while True:
            self._still(life, prefix)
            try:
                rows, newest = await self._look(client, prefix, index)
            except (NotSent, OutcomeUnknown, Overloaded) as error:
                self._still(life, prefix)
                if clock.loop_now() - heard > self.options.liveness_s:
                    raise WatchLost(
                        f"{self.url} has not answered a watch of {prefix!r} for "
                        f"{self.options.liveness_s:g} s: {error} Watch it again."
                    ) from error
                await asyncio.sleep(RETRY_S)
                continue
            self._still(life, prefix)
            heard = clock.loop_now()
            if newest < index:  # restored, or another cluster: what was known says nothing any more
                known, index = None, 0
                continue
            index, now = newest, {one.key: one for one in rows}
            if known is None:
                yield Observation(True, tuple(now.values()), (), newest)
            else:
                changed = tuple(one for key, one in now.items() if known.get(key) != one)
                removed = tuple(key for key in known if key not in now)
                if changed or removed:
                    yield Observation(False, changed, removed, newest)
            known = now

    async def _look(self, client: Client, prefix: str, index: int) -> tuple[list[Entry], int]:
        wait_s = min(WAIT_S, self.options.liveness_s / 2) if index else 0.0
        rows, newest = await client.below(
            self._folder + prefix,
            min(self.options.ceiling_s, self.options.liveness_s / 2),
            after=index,
            wait_s=wait_s,
        )
        mine = [self._mine(one) for one in rows if one.key != self._folder + REMOVALS]
        return [one for one in mine if one is not None], newest

    async def _unmet(self, client: Client, key: str, left_s: float) -> Unmet:
        found, index = await client.read(self._folder + key, left_s)
        return Unmet({key: self._mine(found)}, index)

    def _mine(self, found: Entry | None) -> Entry | None:
        if found is None:
            return None
        return Entry(found.key.removeprefix(self._folder), found.value, found.revision, found.create_revision)

    def _check_whole(self, key: str) -> None:
        """Consul's own limit counts the folder too."""
        size = len((self._folder + key).encode())
        if size > self.options.key_bytes_max:
            refusal.check_key(self._folder + key, self.options)

    def _still(self, life: int, prefix: str) -> None:
        if self._opening.life != life:
            raise WatchLost(f"{self.url} was closed while {prefix!r} was watched. Watch it again.")

    async def _ask(self, what: str, send: Callable[[Client, float], Awaitable[T]]) -> T:
        client = await self._opening.get()
        return await answered(what, self.url, self.options.ceiling_s, lambda left_s: send(client, left_s))

    async def _make(self) -> Client:
        client = Client(self._address, tls=self.options.tls, datacenter=self.options.datacenter)
        try:
            await answered(
                "opening", self.url, self.options.ceiling_s, lambda s: client.read(self._folder + REMOVALS, s)
            )
        except BaseException:
            await client.close()
            raise
        return client
