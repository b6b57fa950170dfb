"""dispatch: one flight in, one transaction over the shards that it touches.

The plane leaves where it stands and arrives at its destination, its odometer grows, and `flight-landed`
goes into the outbox: all of it or nothing. The record holds only departures from New York, so when the
plane stands elsewhere the same transaction first brings it to the origin: a positioning move, counted
neither as a flight nor as distance. So one to three shards take part.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
from airline.fleet import Landed, landed, moves, outboxes, shard_of, shards, state
from airline.flights import Flight
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import atoll


async def land(flight: Flight) -> dict[str, Any]:
    """Answer one flight; a flight id seen before is answered with the first result."""
    if seen := await first_answer(flight):
        return seen
    if reason := refusal(flight):
        return await refuse(flight, reason)
    return await moves.run(lambda tx: move(tx, flight), attempts=50)


def refusal(flight: Flight) -> str | None:
    """Why a flight moves no plane."""
    if flight.cancelled:
        return "cancelled"
    return None if flight.tail else "no tail number"


async def first_answer(flight: Flight) -> dict[str, Any] | None:
    """What was answered when this id came first, or None."""
    async with shard_of(flight.dest).read() as db:
        rows = await db.execute("SELECT answer FROM flight WHERE id = ?", (flight.id,))
    return json.loads(rows[0][0]) if rows else None


async def refuse(flight: Flight, reason: str) -> dict[str, Any]:
    """Note the refusal, so that it is counted once."""
    answer = {"id": flight.id, "refused": reason}
    async with shard_of(flight.dest).begin() as db:
        await db.execute("INSERT OR IGNORE INTO flight VALUES (?, ?)", (flight.id, json.dumps(answer)))
    return answer


async def where(tail: str) -> str:
    """The airport a plane stands at, by the shards' last committed word."""
    for shard in shards:
        async with shard.read() as db:
            if rows := await db.execute("SELECT airport FROM plane WHERE tail = ?", (tail,)):
                return str(rows[0][0])
    raise atoll.Conflict(f"plane {tail} is between two shards: a transaction on it is not finished yet")


async def move(tx: atoll.blocks.transaction.Transaction, flight: Flight) -> dict[str, Any]:
    """The transaction: leave, if need be pass through the origin, arrive, and tell."""
    at = await where(flight.tail)
    stops = {airport: shard_of(airport) for airport in (at, flight.origin, flight.dest)}
    joined = {shard.name: await tx.join(shard) for shard in sorted(set(stops.values()), key=lambda s: s.name)}
    db = {airport: joined[shard.name] for airport, shard in stops.items()}
    if rows := await db[flight.dest].execute("SELECT answer FROM flight WHERE id = ?", (flight.id,)):
        return json.loads(rows[0][0])

    left = await db[at].execute(
        "DELETE FROM plane WHERE tail = ? AND airport = ? RETURNING odometer, flights, version",
        (flight.tail, at),
    )
    if not left:
        raise atoll.Conflict(f"plane {flight.tail} has left {at} meanwhile")
    odometer, flights, version = left[0]
    if at != flight.origin:
        await note(db[flight.origin], flight, "positioned", flight.origin)
    await note(db[flight.origin], flight, "departed", flight.origin)
    await note(db[flight.dest], flight, "arrived", flight.dest)
    await db[flight.dest].execute(
        "INSERT INTO plane VALUES (?, ?, ?, ?, ?)",
        (flight.tail, flight.dest, odometer + flight.distance, flights + 1, version + 1),
    )
    answer = {"id": flight.id, "tail": flight.tail, "from": at, "to": flight.dest}
    await db[flight.dest].execute("INSERT INTO flight VALUES (?, ?)", (flight.id, json.dumps(answer)))
    await tell(db[flight.dest], flight)
    return answer


async def note(db: Any, flight: Flight, kind: str, airport: str) -> None:
    await db.execute("INSERT INTO movement VALUES (?, ?, ?, ?)", (flight.id, kind, flight.tail, airport))


async def tell(db: Any, flight: Flight) -> None:
    """Stage `flight-landed` in the destination's shard; it leaves if and only if the transaction commits."""
    message = Landed(
        id=flight.id,
        carrier=flight.carrier,
        hour=flight.hour,
        distance=flight.distance,
        arrival_delay=flight.arrival_delay,
    )
    outbox = outboxes[shards.index(shard_of(flight.dest))]
    await outbox.put(db, landed, message, id=flight.id)


async def post(request: Request) -> JSONResponse:
    """POST /flights: 200 with the answer, 400 what is no flight, 503 try again."""
    try:
        flight = msgspec.json.decode(await request.body(), type=Flight)
    except msgspec.MsgspecError as error:
        return JSONResponse({"error": f"not a flight: {error}"}, 400)
    try:
        return JSONResponse(await land(flight))
    except (atoll.NotApplied, atoll.OutcomeUnknown) as error:
        return JSONResponse({"error": str(error)}, 503, headers={"Retry-After": "1"})


async def ready(_: Request) -> JSONResponse:
    return JSONResponse({"ready": True})


logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
logging.getLogger("httpx").setLevel(logging.WARNING)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncGenerator[None]:
    """Open everything, carry what is staged, finish what a dead instance left."""
    async with AsyncExitStack() as stack:
        for handle in (state, *shards):
            await stack.enter_async_context(handle)
        await stack.enter_async_context(atoll.background(moves.recover(), *(o.relay() for o in outboxes)))
        yield


app = Starlette(routes=[Route("/flights", post, methods=["POST"]), Route("/ready", ready)], lifespan=lifespan)
