"""Examining: what the servers say of themselves in four letters, and what that costs.

A look at the nameplate. `srvr` is allowed everywhere, `conf` and `mntr` where the operator allows them; what
is not answered is said not to be known, and then the careful guess is taken.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll import clock
from atoll.engines.zookeeper.bridge import Ensemble
from atoll.ports.examining import Finding, Weight, heaviest_first

if TYPE_CHECKING:
    from atoll.engines.zookeeper.store import ZookeeperStore

_WAIT_S = 1.0
_OLD = (3, 8)


@dataclass(frozen=True, slots=True)
class Survey:
    """What one look told. Times in seconds, 0 where not known."""

    alone: bool = False
    tick_s: float = 0.0
    ttl_min_s: float = 0.0
    ttl_max_s: float = 0.0
    version: str = ""
    members: int = 0
    settings: tuple[tuple[str, str], ...] = ()


async def surveyed(ensemble: Ensemble, due: float) -> Survey:
    """Ask every server named; the first that answers tells of the settings, all must be alone to be alone."""
    hosts = [host for host in ensemble.hosts.split(",") if host]
    answers = await asyncio.gather(*(_one(host, ensemble, due) for host in hosts))
    told = [(srvr, conf) for srvr, conf in answers if "Mode: " in srvr]
    if not told:
        return Survey()
    srvr, conf = max(told, key=lambda pair: "tickTime" in pair[1])
    settings = dict(line.split("=", 1) for line in conf.splitlines() if "=" in line)
    version = srvr.partition("version: ")[2].partition(",")[0].partition("-")[0]
    alone = len(hosts) == 1 and "Mode: standalone" in srvr
    return Survey(
        alone=alone,
        tick_s=_ms(settings, "tickTime"),
        ttl_min_s=_ms(settings, "minSessionTimeout"),
        ttl_max_s=_ms(settings, "maxSessionTimeout"),
        version=version,
        members=1 if alone else sum(name.startswith("server.") for name in settings),
        settings=tuple(settings.items()),
    )


def _ms(settings: dict[str, str], name: str) -> float:
    value = settings.get(name, "")
    return int(value) / 1000 if value.isdigit() else 0.0


async def _one(host: str, ensemble: Ensemble, due: float) -> tuple[str, str]:
    return await _word(host, "srvr", ensemble, due), await _word(host, "conf", ensemble, due)


async def _word(place: str, word: str, ensemble: Ensemble, due: float) -> str:
    """A server's answer to a command; empty where there is none."""
    host, _, port = place.rpartition(":")
    options, context = ensemble.options, None
    try:
        if options.tls:
            context = ssl.create_default_context(cafile=options.tls_ca or None)
            if options.tls_cert:
                context.load_cert_chain(options.tls_cert, options.tls_key)
        async with asyncio.timeout(min(_WAIT_S, max(0.01, due - clock.loop_now()))):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
            try:
                writer.write(word.encode())
                return (await reader.read(100_000)).decode(errors="replace")
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return ""


class ZookeeperExamining:
    """What was found on the servers of a store."""

    def __init__(self, store: ZookeeperStore) -> None:
        self._store = store

    async def damage(self) -> Sequence[str]:
        """ZooKeeper checks its own log when it starts."""
        return ()

    async def examine(self) -> Sequence[Finding]:
        opened = await self._store.opened()
        survey = await surveyed(opened.link.ensemble, self._store.due("examining"))
        findings = [*_place(survey), *_times(survey), *_disk(survey), *_age(survey)]
        if opened.link.ensemble.auth == ():
            findings.append(
                Finding(
                    setting="ACL",
                    value="world:anyone",
                    weight=Weight.COSTS,
                    cost="Whoever reaches the servers may change or remove what is kept here.",
                    fix="zookeeper://user:password@... on a new root; its nodes then belong to that user.",
                )
            )
        return heaviest_first(findings)


def _place(survey: Survey) -> list[Finding]:
    if survey.alone:
        return [
            Finding(
                setting="Mode",
                value="standalone",
                weight=Weight.COSTS,
                cost="One server: while it is down nothing can be taken, and its disk is the only copy.",
                fix="Three servers (server.1= ... server.3= in zoo.cfg), all of them in the URL.",
            )
        ]
    if not survey.settings:
        return [
            Finding(
                setting="4lw.commands.whitelist",
                value="conf is not answered",
                weight=Weight.NOTE,
                cost="The tick and the members are not known, so leases are counted for a tick of 2 s.",
                fix="4lw.commands.whitelist=srvr,conf,mntr in zoo.cfg",
            )
        ]
    even = survey.members % 2 == 0
    return [
        Finding(
            setting="server.N",
            value=str(survey.members),
            weight=Weight.COSTS if survey.members < 3 or even else Weight.FINE,
            cost=f"{survey.members} members; {max(0, (survey.members - 1) // 2)} may be lost.",
            fix="An odd number of members, three or more." if survey.members < 3 or even else "",
        )
    ]


def _times(survey: Survey) -> list[Finding]:
    if not survey.tick_s:
        return []
    short = survey.ttl_max_s < 15
    return [
        Finding(
            setting="minSessionTimeout, maxSessionTimeout",
            value=f"{survey.ttl_min_s:g} s, {survey.ttl_max_s:g} s",
            weight=Weight.COSTS if short else Weight.FINE,
            cost=f"A lease is never shorter or longer than this, with ticks of {survey.tick_s:g} s.",
            fix="maxSessionTimeout=40000 in zoo.cfg" if short else "",
        )
    ]


def _disk(survey: Survey) -> list[Finding]:
    settings = dict(survey.settings)
    if settings and settings.get("dataDir") == settings.get("dataLogDir"):
        return [
            Finding(
                setting="dataLogDir",
                value="beside dataDir",
                weight=Weight.NOTE,
                cost="Snapshots and the log that every write waits for share a disk.",
                fix="dataLogDir= on a disk of its own",
            )
        ]
    return []


def _age(survey: Survey) -> list[Finding]:
    numbers = [int(part) for part in survey.version.split(".") if part.isdigit()]
    if not numbers:
        return []
    old = tuple(numbers[:2]) < _OLD
    return [
        Finding(
            setting="version",
            value=survey.version,
            weight=Weight.BREAKS if tuple(numbers[:2]) < (3, 6) else Weight.COSTS if old else Weight.NOTE,
            cost="Several nodes in one read need 3.6."
            if old
            else "The tests of this release run 3.8.0. A forceSync=no cannot be seen from here.",
            fix="Update the servers, the leader last." if old else "",
        )
    ]
