"""Watching: what a bucket says below a prefix, by an ordered consumer that starts over when it breaks.

A reader of the board who first copies every notice and then writes down what is pinned up. When the ladder
shakes they copy everything again; nobody below is told less than is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from nats import errors as client_errors
from nats.js import api
from nats.js.errors import APIError

from atoll import clock
from atoll.engines.nats import names
from atoll.errors import WatchLost
from atoll.ports.register import Entry, Observation

if TYPE_CHECKING:
    from atoll.engines.nats.register import Bucket, NatsRegister

HEARTBEAT_S = 1.0
RETRY_S = 0.1


async def observe(register: NatsRegister, bucket: Bucket, prefix: str) -> AsyncIterator[Observation]:
    """A reset with the whole state, then each change; a reset again after every break."""
    life, heard = register.life, clock.loop_now()
    while True:
        try:
            async for observation in _once(register, bucket, prefix, life):
                heard = clock.loop_now()
                if observation is not None:
                    yield observation
        except (client_errors.Error, APIError, OSError, TimeoutError) as error:
            if clock.loop_now() - heard > register.options.liveness_s:
                raise WatchLost(
                    f"{register.url} has not answered a watch of {prefix!r} for "
                    f"{register.options.liveness_s:g} s ({error}). Watch it again."
                ) from error
            await asyncio.sleep(RETRY_S)
        _still(register, life, prefix)


async def _once(
    register: NatsRegister, bucket: Bucket, prefix: str, life: int
) -> AsyncIterator[Observation | None]:
    """One consumer's life. None: it is alive and there is no news. Ends only with an error."""
    newest = await register.newest(bucket)
    subject = f"$KV.{register.bucket}.{names.wildcard(prefix)}"
    reader = await bucket.stream.subscribe(
        subject,
        stream=register.stream,
        ordered_consumer=True,
        idle_heartbeat=HEARTBEAT_S,
        deliver_policy=api.DeliverPolicy.LAST_PER_SUBJECT,
    )
    try:
        info = await reader.consumer_info()
        sent = info.delivered.consumer_seq if info.delivered else 0
        waiting = (info.num_pending or 0) + sent
        state: dict[str, Entry] = {}
        seen = newest
        for _ in range(waiting):
            message = await reader.next_msg(timeout=register.options.ceiling_s)
            key, entry, number = _read(register, message)
            seen = max(seen, number)
            if entry is not None and key.startswith(prefix):
                state[key] = entry
        yield Observation(True, tuple(sorted(state.values(), key=lambda e: e.key.encode())), (), seen)
        while True:
            _still(register, life, prefix)
            try:
                message = await reader.next_msg(timeout=HEARTBEAT_S)
            except client_errors.TimeoutError:
                await register.newest(bucket)  # nothing new, or nobody there: this tells
                yield None
                continue
            key, entry, number = _read(register, message)
            if key.startswith(prefix):
                changed, removed = ((entry,), ()) if entry is not None else ((), (key,))
                yield Observation(False, changed, removed, number)
    finally:
        await _leave(reader)


def _read(register: NatsRegister, message: Any) -> tuple[str, Entry | None, int]:
    number = int(message.metadata.sequence.stream)
    key = names.key(message.subject.removeprefix(f"$KV.{register.bucket}."))
    if (message.headers or {}).get("KV-Operation"):
        return key, None, number
    return key, register.entry(key, message.data, number), number


async def _leave(reader: Any) -> None:
    try:
        async with asyncio.timeout(1):
            await reader.unsubscribe()
    except (client_errors.Error, APIError, OSError, TimeoutError):
        return


def _still(register: NatsRegister, life: int, prefix: str) -> None:
    if register.life != life:
        raise WatchLost(f"{register.url} was closed while {prefix!r} was watched. Watch it again.")
