"""auditor: two run, one is elected; every second it looks for planes that are not in exactly one place.

A plane on its way between two shards is in a named in-doubt transaction, which explains it. It reads the
shards one after another, so a plane that moves meanwhile may be seen twice or never: a violation is one
only if the plane's rows had the same versions in two scans.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re

from airline.fleet import moves, shards, state

import atoll
from atoll import Election, Term, put

log = logging.getLogger("airline.auditor")

Places = dict[str, list[tuple[str, str, int]]]


async def scan() -> Places:
    """Plane -> where it stands: shard, airport, row version."""
    places: Places = {}
    for shard in shards:
        async with shard.read() as db:
            for tail, airport, version in await db.execute("SELECT tail, airport, version FROM plane"):
                places.setdefault(tail, []).append((shard.name, airport, version))
    return places


async def known_tails() -> list[str]:
    """Every plane the seed put into the hangar."""
    entry, _ = await state.get("fleet")
    return list(json.loads(entry.value)) if entry else []


async def on_the_way() -> set[str]:
    """The planes whose rows a named in-doubt transaction holds."""
    return {tail for doubt in await moves.in_doubt() for tail in tails_held(doubt.locks)}


def tails_held(locks: str) -> list[str]:
    """The planes among the rows that an in-doubt transaction names."""
    return re.findall(r"plane\(tail='(\w+)'\)", locks)


async def audit(term: Term) -> None:
    """As long as this process leads: scan, compare, write the finding under the term's token."""
    tails = await known_tails()
    before: Places = {}
    violations = 0
    log.info("elected, token %s", term.token)
    while True:
        await asyncio.sleep(1)
        moving = await on_the_way()
        now = await scan()
        moving |= await on_the_way()
        odd = {tail for tail in tails if len(now.get(tail, [])) != 1}
        wrong = sorted(tail for tail in odd - moving if before.get(tail) == now.get(tail, []))
        for tail in wrong:
            log.error("plane %s is in %d places: %s", tail, len(now.get(tail, [])), now.get(tail))
        violations += len(wrong)
        finding = {"planes": len(now), "on the way": len(odd & moving), "violations": violations}
        await state.transact(put("audit/last", json.dumps(finding).encode()), guard=term)
        before = {tail: now.get(tail, []) for tail in tails}


async def main() -> None:
    """Campaign until stopped."""
    async with state:
        await Election(state, "auditor", ttl_s=3).lead(audit)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        asyncio.run(main())
    except (KeyboardInterrupt, atoll.LeaderLost):
        log.info("stopped")
