"""The same service without Atoll, as a careful reviewer would accept it.

Idempotent by flight id, every commit forced to disk, arrival before departure so that no plane can vanish,
the message published after the commit, the caller retries. It has one weakness: it can be killed between
two of its commits.
"""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Any

from airline.plain.tables import QUEUE, SHARDS, connect, shard_of
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def land(flight: dict[str, Any]) -> dict[str, Any]:
    """One flight: refuse it, or move its plane and tell statistics."""
    home = connect(SHARDS[shard_of(flight["dest"])])
    if seen := home.execute("SELECT answer FROM flight WHERE id = ?", (flight["id"],)).fetchone():
        return dict(json.loads(seen[0]))
    if reason := refusal(flight):
        answer = {"id": flight["id"], "refused": reason}
        with home:
            home.execute("INSERT INTO flight VALUES (?, ?)", (flight["id"], json.dumps(answer)))
        return answer
    return move(flight, home)


def refusal(flight: dict[str, Any]) -> str | None:
    if flight["cancelled"]:
        return "cancelled"
    return None if flight["tail"] else "no tail number"


def move(flight: dict[str, Any], home: sqlite3.Connection) -> dict[str, Any]:
    """Three steps, each durable: arrive and note the flight, leave where it was, publish."""
    at, odometer, flights = where(flight["tail"])
    answer = {"id": flight["id"], "tail": flight["tail"], "from": at, "to": flight["dest"]}
    with home:
        home.execute("INSERT INTO flight VALUES (?, ?)", (flight["id"], json.dumps(answer)))
        home.execute(
            "INSERT INTO plane (tail, airport, odometer, flights) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (tail) DO UPDATE SET airport = excluded.airport, odometer = excluded.odometer, "
            "flights = excluded.flights, version = version + 1",
            (flight["tail"], flight["dest"], odometer + flight["distance"], flights + 1),
        )
    if shard_of(at) != shard_of(flight["dest"]):
        leaving = connect(SHARDS[shard_of(at)])
        with leaving:
            leaving.execute("DELETE FROM plane WHERE tail = ?", (flight["tail"],))
    queue = connect(QUEUE)
    with queue:
        queue.execute(
            "INSERT OR IGNORE INTO message (id, body) VALUES (?, ?)", (flight["id"], json.dumps(flight))
        )
    return answer


def where(tail: str) -> tuple[str, int, int]:
    """Airport, odometer and flights of a plane. It is always somewhere: arrival comes before departure."""
    for path in SHARDS:
        if (
            row := connect(path)
            .execute("SELECT airport, odometer, flights FROM plane WHERE tail = ?", (tail,))
            .fetchone()
        ):
            return row[0], row[1], row[2]
    raise LookupError(f"plane {tail} is nowhere")


def post(request: Request) -> JSONResponse:
    """Runs in a worker thread, as sync endpoints do."""
    for attempt in range(5):
        try:
            return JSONResponse(land(request.state.flight))
        except sqlite3.OperationalError:
            time.sleep(0.05 * 2**attempt)
    return JSONResponse({"error": "busy"}, 503)


async def flights(request: Request) -> JSONResponse:
    from starlette.concurrency import run_in_threadpool

    request.state.flight = json.loads(await request.body())
    return await run_in_threadpool(post, request)


async def ready(_: Request) -> JSONResponse:
    return JSONResponse({"ready": True})


app = Starlette(routes=[Route("/flights", flights, methods=["POST"]), Route("/ready", ready)])
