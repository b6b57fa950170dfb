"""Transaction: look, judge, send; and look again where somebody was quicker.

Somebody who signs at a busy counter. Most of the time the slip in the hand is right and one word is enough;
when it is not, nothing was signed, and the refusal itself brings the newest state.
"""

from __future__ import annotations

import asyncio

from atoll import clock
from atoll.engines.zookeeper import wire, writing
from atoll.engines.zookeeper.link import Link
from atoll.engines.zookeeper.opened import Opened, Seen, seen_of
from atoll.engines.zookeeper.wire import Failed, Line, Node
from atoll.engines.zookeeper.writing import Asked, Known, Plan
from atoll.errors import Overloaded
from atoll.ports.register import Applied, Unmet

WHAT = "the transaction"
_TRIM_EVERY = 64
_TRIM_MAX = 500
_TRIM_BYTES = 200_000


async def transact(opened: Opened, link: Link, asked: Asked, due: float) -> Applied | Unmet:
    """See the port. `link`: the session it happens in, a lease's own where keys are put under it."""
    known = writing.guess(opened, asked)
    tries = 0
    while True:
        if known is None:
            known = await look(opened, link, asked, due, newest=not asked.then)
        if not known.fresh and (not asked.then or not holds(opened, asked, known)):
            known = await look(opened, link, asked, due, newest=True)
        if known.before:
            return Applied(known.before, replayed=True)
        unmet = writing.judged(opened, asked, known)
        if unmet is not None:
            return unmet
        if not asked.then:
            return Applied(known.zxid)
        plan = writing.planned(opened, asked, known)
        reply = await opened.write(WHAT, plan.lines, due, link=link, id=asked.request_id)
        if not any(isinstance(result, Failed) for result in reply.results):
            answer = writing.applied(opened, asked, known, plan, reply.results)
            if asked.request_id is not None:
                await _trim(opened, due)
            return answer
        _learn(opened, plan, reply.results)
        tries += 1
        if clock.loop_now() >= due:
            raise Overloaded(
                f"{WHAT} on {opened.url} met others who wrote the same keys {tries} times; its deadline "
                "passed. Nothing was written; ask again."
            )
        if tries > 3:
            await asyncio.sleep(clock.chance().random() * min(0.002 * tries, 0.05))
        # The refusal went through the leader, and this session never sees anything older than that.
        known = await look(opened, link, asked, due, newest=False, fresh=True)


def holds(opened: Opened, asked: Asked, known: Known) -> bool:
    """Whether it would be sent, as far as is known; never raises."""
    if known.meta.frozen is not None:
        return False
    if asked.guard is not None:
        owner, token = known.seen[asked.guard.owner_key].entry, asked.guard.token
        if owner is None or (token.epoch, token.revision) != (known.meta.epoch, owner.revision):
            return False
    return all(c.holds(known.seen[c.key].entry) for c in asked.compare)


async def look(
    opened: Opened, link: Link, asked: Asked, due: float, *, newest: bool, fresh: bool = False
) -> Known:
    """Every key of it, the buckets of lives they belong to and the rules of the house, as of one moment."""
    tree, keys = opened.tree, asked.keys
    lives = list(dict.fromkeys(tree.life(key) for key in keys))
    rooms = list(dict.fromkeys(room for key in keys for room in tree.rooms_above(key)))
    lines: list[Line] = [wire.get(tree.meta)]
    lines += [wire.get(tree.path(key)) for key in keys]
    lines += [wire.get(node) for node in (*lives, *rooms)]
    if asked.request_id is not None:
        lines.append(wire.get(tree.request(asked.request_id)))
    reply = await opened.read(WHAT, lines, due, newest=newest, link=link)
    meta = opened.learn(reply.results[0])
    nodes = reply.results[1 : 1 + len(keys)]
    rest = reply.results[1 + len(keys) : 1 + len(keys) + len(lives) + len(rooms)]
    last = reply.results[-1]
    before = last.stat.czxid if asked.request_id is not None and isinstance(last, Node) else 0
    versions = dict(zip(lives, rest, strict=False))
    for room, node in zip(rooms, rest[len(lives) :], strict=True):
        opened.knows_rooms([room]) if isinstance(node, Node) else opened.rooms.discard(room)
    seen: dict[str, Seen] = {}
    for key, node in zip(keys, nodes, strict=True):
        seen[key] = seen_of(key, node, tree.path(key), versions[tree.life(key)])
        opened.slip(key, seen[key])
    return Known(meta, seen, reply.zxid, newest or fresh, before)


def _learn(opened: Opened, plan: Plan, results: list[object]) -> None:
    """What a refusal tells of the directories; the rest is read again."""
    first, failed = next(
        (n, result)
        for n, result in enumerate(results)
        if isinstance(result, Failed) and result.code not in (wire.ROLLED_BACK, wire.NOT_REACHED)
    )
    if first in plan.rooms and failed.code == wire.NODE_EXISTS:
        opened.knows_rooms([plan.rooms[first]])
    if failed.code == wire.NO_NODE:
        opened.rooms.clear()


async def _trim(opened: Opened, due: float) -> None:
    """Now and then forget requests beyond their window, by the leader's clock; never anything younger."""
    opened.remembered += 1
    if opened.remembered % _TRIM_EVERY:
        return
    tree, window_s = opened.tree, opened.link.ensemble.options.dedupe_window_s
    reply = await opened.read(WHAT, [wire.get(tree.counter), wire.children(tree.requests)], due, newest=False)
    counter, listed = reply.results
    now_ms = counter.stat.mtime
    paths: list[str] = []
    for name in listed[:_TRIM_MAX]:
        if sum(map(len, paths)) < _TRIM_BYTES:
            paths.append(f"{tree.requests}/{name}")
    reply = await opened.read(WHAT, [wire.get(path) for path in paths], due, newest=False)
    old = [
        wire.delete(path)
        for path, node in zip(paths, reply.results, strict=True)
        if isinstance(node, Node) and node.stat.ctime < now_ms - window_s * 1000
    ]
    if old:
        await opened.write(WHAT, old, due)
