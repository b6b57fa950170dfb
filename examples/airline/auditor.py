"""auditor: two run, one is elected; every second it looks for planes that are not in exactly one place.

A plane on its way between two shards is in a named in-doubt transaction, which explains it. It reads the
shards one after another, so a plane that moves meanwhile may be seen twice or never: a violation is one
only if the plane's rows had the same versions in two scans.
"""

from __future__ import annotations

import asyncio
import json
import logging

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


async def audit(term: Term) -> None:
    """As long as this process leads: scan, compare, write the finding under the term's token."""
    tails = await known_tails()
    before: Places = {}
    violations = in_doubt_most = 0
    log.info("elected, token %s", term.token)
    while True:
        await asyncio.sleep(1)
        in_doubt = await moves.in_doubt()
        now = await scan()
        in_doubt += await moves.in_doubt()
        odd = [t for t in tails if len(now.get(t, [])) != 1]
        wrong = [t for t in odd if t in before and now.get(t, []) == before[t]] if not in_doubt else []
        violations += len(wrong)
        in_doubt_most = max(in_doubt_most, len(in_doubt))
        for tail in wrong:
            log.error("plane %s is in %d places: %s", tail, len(now.get(tail, [])), now.get(tail))
        finding = {"planes": len(now), "violations": violations, "in_doubt_most": in_doubt_most}
        await state.transact(put("audit/last", json.dumps(finding).encode()), guard=term)
        before = {t: now.get(t, []) for t in tails}


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
