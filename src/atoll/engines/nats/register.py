"""NatsRegister: the Register port on a JetStream key-value bucket.

A notice board on which each pin has a number from one roll. You may replace a notice if you can say the
number of the one that hangs there; two at once cannot be replaced, so this is a register and not a store.

Reads ask the stream's leader, never a follower (`allow_direct` is off). A leader that has just lost its place
may still answer from what it knew, and an acknowledged write may not be on a disk yet: the claims say both.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

from nats.js import api
from nats.js.errors import APIError, BadRequestError, NotFoundError

from atoll.engines.nats import names, watching
from atoll.engines.nats.connection import connect, translate
from atoll.engines.parts.call import answered
from atoll.engines.parts.opening import Opening
from atoll.errors import ConfigurationError, FormatRefused
from atoll.ports import refusal
from atoll.ports.address import Address
from atoll.ports.register import ABSENT, Applied, Entry, Got, Observation, Unmet
from atoll.ports.store import Durable, Observing, Put, Reach, StoreClaims

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

T = TypeVar("T")
HEAD = struct.Struct(">BQ")
"""Before each value: the format, and the revision that created the key (0: this very one)."""
FORMAT = 1
_WRONG_SEQUENCE = (10071, 10164)


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsOptions:
    """What a `nats://` URL may say. Times in seconds, sizes in bytes."""

    replicas: int = 1
    """Servers that keep the bucket, when it is made: 1, 3 or 5."""
    ceiling_s: float = 10.0
    key_bytes_max: int = 200
    value_bytes_max: int = 512 * 1024
    liveness_s: float = 10.0
    tls: bool = False

    def __post_init__(self) -> None:
        for name in ("ceiling_s", "key_bytes_max", "value_bytes_max", "liveness_s"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"found {name}={getattr(self, name)}; expected more than 0.")
        if self.replicas not in (1, 3, 5):
            raise ConfigurationError(f"found replicas={self.replicas}; expected 1, 3 or 5.")

    @property
    def operations_max(self) -> int:
        """One key at a time."""
        return 1


@dataclass(slots=True)
class Bucket:
    """An open connection and the bucket on it."""

    client: Client
    stream: JetStreamContext
    claims: StoreClaims


class NatsRegister:
    """A register in the bucket that the URL's path names. Inert until first use."""

    def __init__(
        self,
        address: Address | None = None,
        *,
        client: Any = None,
        bucket: str = "atoll",
        options: Any = None,
    ) -> None:
        self.options: NatsOptions = options or NatsOptions()
        self._address = address or Address(scheme="nats", host="(yours)", path=bucket)
        self._mine = client
        name = self._address.path or bucket
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigurationError(
                f"found the bucket {name!r}; expected letters, digits, - and _, as in nats://host/config."
            )
        self.bucket = name
        self._opening: Opening[Bucket] = Opening(self._make, self._shut)

    @classmethod
    def from_address(cls, address: Address) -> Self:
        """The register that `nats://user:password@host:4222/bucket?option=value` names."""
        return cls(address, options=address.parse_options(NatsOptions))

    def __repr__(self) -> str:
        return f"<Register {self.url}>"

    @property
    def url(self) -> str:
        return str(self._address)

    @property
    def stream(self) -> str:
        """The JetStream stream behind the bucket."""
        return f"KV_{self.bucket}"

    @property
    def life(self) -> int:
        """Rises when the handle is closed; a watch begun before it ends."""
        return self._opening.life

    async def open(self) -> StoreClaims:
        """Connect, and make the bucket where there is none. Cheap when open."""
        return (await self._bucket()).claims

    async def close(self) -> None:
        """Give the connection back, unless it is the caller's own."""
        await self._opening.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def get(self, key: str) -> Got:
        """What the stream's leader has, as of its newest revision."""
        refusal.check_key(key, self.options)
        bucket = await self._bucket()

        async def send(left_s: float) -> Got:
            revision = await self.newest(bucket)
            found, last = await self._last(bucket, key)
            return Got(found, max(revision, last))

        return await self.ask(f"get {key!r}", send)

    async def put_if(self, key: str, value: bytes, revision: int) -> Applied | Unmet:
        refusal.check_transaction([Put(key, value)], (), None, self.options)
        bucket = await self._bucket()

        async def send(left_s: float) -> Applied | Unmet:
            found, last = await self._last(bucket, key)
            if (found.revision if found else ABSENT) != revision:
                return Unmet({key: found}, max(last, await self.newest(bucket)))
            created = found.create_revision if found else 0
            number = await self._publish(bucket, key, HEAD.pack(FORMAT, created) + value, last)
            if number is None:
                return await self._unmet(bucket, key)
            return Applied(number, (Entry(key, value, number, created or number),))

        return await self.ask(f"put {key!r}", send)

    async def delete_if(self, key: str, revision: int) -> Applied | Unmet:
        refusal.check_key(key, self.options)
        bucket = await self._bucket()

        async def send(left_s: float) -> Applied | Unmet:
            found, last = await self._last(bucket, key)
            if (found.revision if found else ABSENT) != revision:
                return Unmet({key: found}, max(last, await self.newest(bucket)))
            number = await self._publish(bucket, key, b"", last, removed=True)
            return await self._unmet(bucket, key) if number is None else Applied(number, (found,))

        return await self.ask(f"delete {key!r}", send)

    async def observe(self, prefix: str) -> AsyncIterator[Observation]:
        """See the port. Coalesces: the bucket keeps only the last word on each key."""
        bucket = await self._bucket()
        async for observation in watching.observe(self, bucket, prefix):
            yield observation

    async def ask(self, what: str, send: Callable[[float], Awaitable[T]]) -> T:
        """`send`, within the deadline in force, its client's errors translated."""
        async with translate(what, self.url):
            return await answered(what, self.url, self.options.ceiling_s, send)

    async def newest(self, bucket: Bucket) -> int:
        """The stream's last sequence."""
        info = await bucket.stream.stream_info(self.stream)
        return int(info.state.last_seq)

    def entry(self, key: str, data: bytes, revision: int) -> Entry:
        """What a message of the stream says."""
        if len(data) < HEAD.size or data[0] != FORMAT:
            raise FormatRefused(
                f"found in {self.url} a value of {key!r} that this release cannot read (format "
                f"{data[:1].hex() or 'none'}; it reads {FORMAT:02x}). Name a bucket of Atoll's own."
            )
        created = HEAD.unpack_from(data)[1]
        return Entry(key, data[HEAD.size :], revision, created or revision)

    async def _last(self, bucket: Bucket, key: str) -> tuple[Entry | None, int]:
        """The entry, and the sequence of the last word on it: a value or a removal."""
        try:
            subject = f"$KV.{self.bucket}.{names.subject(key)}"
            found = await bucket.stream.get_last_msg(self.stream, subject, direct=False)
        except NotFoundError:
            return None, 0
        number = int(found.seq or 0)
        if (found.headers or {}).get("KV-Operation"):
            return None, number
        return self.entry(key, found.data or b"", number), number

    async def _publish(
        self, bucket: Bucket, key: str, data: bytes, last: int, *, removed: bool = False
    ) -> int | None:
        """Publish after `last`; None when somebody else did so first."""
        headers = {api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(last)}
        if removed:
            headers["KV-Operation"] = "DEL"
        subject = f"$KV.{self.bucket}.{names.subject(key)}"
        try:
            answer = await bucket.stream.publish(
                subject, data, timeout=self.options.ceiling_s, stream=self.stream, headers=headers
            )
        except APIError as error:
            if error.err_code in _WRONG_SEQUENCE:
                return None
            raise
        return int(answer.seq)

    async def _unmet(self, bucket: Bucket, key: str) -> Unmet:
        found, last = await self._last(bucket, key)
        return Unmet({key: found}, max(last, await self.newest(bucket)))

    async def _bucket(self) -> Bucket:
        return await self._opening.get()

    async def _make(self) -> Bucket:
        client = self._mine or await connect(self._address, self.options)
        stream = client.jetstream(timeout=self.options.ceiling_s)

        async def send(left_s: float) -> Bucket:
            try:
                info = await stream.stream_info(self.stream)
            except NotFoundError:
                info = await self._create(stream)
            self._expect_ours(info)
            return Bucket(client, stream, self._claims(info))

        return await self.ask("opening", send)

    async def _create(self, stream: JetStreamContext) -> api.StreamInfo:
        try:
            await stream.create_key_value(
                bucket=self.bucket, history=1, replicas=self.options.replicas, direct=False
            )
        except BadRequestError as error:  # another handle made it just now
            if error.err_code != 10058:
                raise
        return await stream.stream_info(self.stream)

    def _expect_ours(self, info: api.StreamInfo) -> None:
        if info.config.allow_direct:
            raise ConfigurationError(
                f"found that the bucket {self.bucket!r} answers reads from followers (allow_direct), which "
                "may be old; expected it off. Let Atoll make a bucket of its own, or edit the stream: "
                "nats stream edit --no-allow-direct."
            )

    def _claims(self, info: api.StreamInfo) -> StoreClaims:
        return StoreClaims(
            durable=Durable.NONE,
            reach=Reach.NETWORK,
            expiry_late_max_s=0.0,
            key_bytes_max=self.options.key_bytes_max,
            value_bytes_max=self.options.value_bytes_max,
            operations_max=1,
            epoch_source="none: a bucket that was made again cannot be told from the one before",
            incarnation=str(info.created or ""),
            observe=Observing.COALESCED,
            liveness_s=self.options.liveness_s,
            linearizable=False,
            forgets_at_failover=True,
        )

    async def _shut(self, bucket: Bucket) -> None:
        if self._mine is None:
            await bucket.client.close()
