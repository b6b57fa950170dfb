"""`atoll doctor URL`: what a server's own settings mean for what is kept on it, the heaviest first."""

from __future__ import annotations

import argparse
import asyncio
import json
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from atoll import clock, urls
from atoll.cli import named
from atoll.errors import EpochUncertain
from atoll.ports.broker import BrokerClaims
from atoll.ports.examining import Examining, Finding, Weight
from atoll.ports.store import Durable, Reach, Store, StoreClaims

CALLS = 10
CALLS_S = 5.0
WIDTH = 100
DOORS = ("store", "register", "broker", "tier")
HEADS = {
    Weight.BREAKS: "BREAKS: a promise that people rely on does not hold",
    Weight.COSTS: "COSTS: weaker than it could be",
    Weight.NOTE: "NOTE: worth knowing",
    Weight.FINE: "FINE",
}
SURVIVES = {
    Durable.NONE: "nothing: it is gone with the process or the server's memory",
    Durable.NODE: "a power cut on its node",
    Durable.QUORUM: "the loss of a minority of its nodes",
}
SHARED = {
    Reach.PROCESS: "this process only",
    Reach.HOST: "the processes of one machine",
    Reach.NETWORK: "everybody who reaches it by the network",
}


@dataclass(slots=True)
class Report:
    """What was looked at and found. `claims`: pairs for people; `trips_ms`: round trips, sorted."""

    url: str
    kind: str
    claims: list[tuple[str, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    trips_ms: list[float] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        return any(finding.weight is Weight.BREAKS for finding in self.findings)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the verb."""
    parser.add_argument(
        "place",
        nargs="?",
        default="@state",
        metavar="URL|@NAME",
        help="a store, a broker or a tier (default: @state)",
    )
    parser.add_argument(
        "--as", dest="door", choices=DOORS, help="what it is to be; the first that its scheme can be"
    )
    parser.add_argument(
        "--all", action="store_true", help="tell what is fine as well, each with its sentence"
    )


def run(options: argparse.Namespace) -> int:
    """0; 1 when something breaks."""
    report = asyncio.run(_look(named.asking(options.place), options.door))
    print(json.dumps(_plain(report)) if options.json else text(report, everything=options.all))
    return 1 if report.broken else 0


async def _look(url: str, door: str | None) -> Report:
    scheme = urls.parse(url.removeprefix(urls.FAULTY)).scheme
    doors = urls.ENGINES.get(scheme) or urls.strangers(scheme)
    match door or next((one for one in DOORS if one in doors), "store"):
        case "store":
            async with urls.store(url) as store:
                return await of_store(store)
        case "broker":
            async with urls.broker(url) as broker:
                report = Report(broker.url, "broker", _of_broker(await broker.open()))
                return await _examined(report, getattr(broker, "examining", None))
        case "register":
            async with urls.register(url) as register:
                report = Report(register.url, "register", _of_store(await register.open()))
                return await _examined(report, getattr(register, "examining", None))
        case _:
            async with urls.tier(url) as tier:
                report = Report(
                    tier.url, "tier", [("a copy may vanish", "at any moment; that is its nature")]
                )
                return await _examined(report, getattr(tier, "examining", None))


async def of_store(store: Store) -> Report:
    """Claims, round trips, what the engine says of its server, and what stands in the way of writing."""
    claims = await store.open()
    report = Report(store.url, "store", _of_store(claims))
    report.trips_ms = await _trips(store)
    await _examined(report, store.examining)
    report.findings += _of_claims(claims)
    if store.moving is not None and (note := await store.moving.frozen()) is not None:
        report.findings.append(
            Finding(
                setting="frozen",
                value=note,
                weight=Weight.BREAKS,
                cost="It takes no writes: every lock, leader and decision is refused with ReadOnly.",
                fix="Use the place that the note names; or: atoll store thaw URL",
            )
        )
    try:
        await store.epoch()
    except EpochUncertain as error:
        report.findings.append(
            Finding(
                setting="epoch",
                value="uncertain",
                weight=Weight.BREAKS,
                cost=str(error),
                fix="If nothing newer is lost with it: atoll store bump URL",
            )
        )
    return report


async def _examined(report: Report, examining: Examining | None) -> Report:
    if examining is not None:
        report.findings += await examining.examine()
    else:
        report.findings.append(
            Finding(
                setting="examination",
                value="none",
                weight=Weight.NOTE,
                cost="This engine does not look at its server's settings.",
            )
        )
    return report


async def _trips(store: Store) -> list[float]:
    """At most CALLS reads of one small key, within CALLS_S; in milliseconds."""
    took: list[float] = []
    until = time.monotonic() + CALLS_S
    for _ in range(CALLS + 1):
        began = time.perf_counter()
        await store.get("atoll/doctor")
        took.append((time.perf_counter() - began) * 1000)
        if time.monotonic() > until:
            break
    return sorted(took[1:] or took)  # the first one also connects


def _of_store(claims: StoreClaims) -> list[tuple[str, str]]:
    return [
        ("an answered write survives", SURVIVES[claims.durable]),
        ("shared by", SHARED[claims.reach]),
        (
            "a dead holder is gone after",
            f"its lease and at most {claims.expiry_late_max_s:g} s"
            + (f"; no lease is shorter than {claims.ttl_min_s:g} s" if claims.ttl_min_s else ""),
        ),
        ("a retry with a request_id is known for", f"{claims.dedupe_window_s:g} s"),
        (
            "largest key, value, transaction",
            f"{claims.key_bytes_max:,} bytes, {claims.value_bytes_max:,} bytes, "
            f"{claims.operations_max:,} operations",
        ),
        ("the epoch", claims.epoch_source),
    ]


def _of_claims(claims: StoreClaims) -> list[Finding]:
    """What the claims themselves mean for a lock."""
    found = []
    if claims.forgets_at_failover:
        found.append(
            Finding(
                setting="failover",
                value="may forget answered writes",
                weight=Weight.BREAKS,
                cost="After a failover two may hold one lock, so Lock and Election refuse this store.",
                fix="Mend what the engine names above, or keep locks elsewhere; best_effort=True accepts it.",
            )
        )
    if not claims.linearizable:
        found.append(
            Finding(
                setting="reads",
                value="may be stale",
                weight=Weight.BREAKS,
                cost="An old state may be answered, so two could hold one lock; Lock and Election refuse it.",
                fix="Read from the primary only.",
            )
        )
    if not claims.never_early:
        found.append(
            Finding(
                setting="leases",
                value="may end early",
                weight=Weight.COSTS,
                cost="A lease may end before its time by your clock: show the token wherever it matters.",
                fix="await held.fence(db), or guard=held",
            )
        )
    return found


def _of_broker(claims: BrokerClaims) -> list[tuple[str, str]]:
    return [
        ("an answered put survives", SURVIVES[claims.durable]),
        ("shared by", SHARED[claims.reach]),
        ("a put with the same id is known for", f"{claims.dedupe_window_s:g} s"),
        ("largest body, put", f"{claims.body_bytes_max:,} bytes, {claims.messages_max:,} messages"),
    ]


def text(report: Report, *, everything: bool = False) -> str:
    """The report as people read it."""
    lines = [f"{report.url.replace('?create=false', '').replace('&create=false', '')}  ({report.kind})", ""]
    wide = max((len(name) for name, _ in report.claims), default=0)
    for name, value in report.claims:
        first, *more = textwrap.wrap(value, WIDTH - wide - 5) or [""]
        lines += [f"  {name:<{wide}}   {first}", *(" " * (wide + 5) + line for line in more)]
    if report.trips_ms:
        middle, last = report.trips_ms[len(report.trips_ms) // 2], report.trips_ms[-1]
        took = f"{middle:.2f} ms; the slowest of {len(report.trips_ms)}: {last:.2f} ms"
        lines.append(f"  {'a read takes':<{wide}}   {took}")
    for weight, head in HEADS.items():
        found = [finding for finding in report.findings if finding.weight is weight]
        if not found:
            continue
        lines += ["", head]
        if weight is Weight.FINE and not everything:
            lines += _wrapped("; ".join(f"{finding.setting}: {finding.value}" for finding in found), "  ")
            continue
        for finding in found:
            lines.append(f"  {finding.setting}: {finding.value}")
            lines += _wrapped(finding.cost, "      ")
            lines += _wrapped(f"-> {finding.fix}", "      ") if finding.fix else []
    return "\n".join([*lines, "", verdict(report.findings)])


def verdict(findings: Sequence[Finding]) -> str:
    """One line at the end."""
    count = {weight: sum(finding.weight is weight for finding in findings) for weight in Weight}
    if count[Weight.BREAKS]:
        return f"Promises broken: {count[Weight.BREAKS]}. Weaker than it could be: {count[Weight.COSTS]}."
    if count[Weight.COSTS]:
        return f"No promise is broken. Weaker than it could be: {count[Weight.COSTS]}."
    return "No promise is broken, and none is weaker than it could be."


def _wrapped(sentence: str, indent: str) -> list[str]:
    return textwrap.wrap(
        sentence, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _plain(report: Report) -> dict[str, Any]:
    return {
        "url": report.url,
        "kind": report.kind,
        "claims": dict(report.claims),
        "read_ms": [round(took, 3) for took in report.trips_ms],
        "findings": [
            {
                "setting": finding.setting,
                "value": finding.value,
                "weight": finding.weight.value,
                "cost": finding.cost,
                "fix": finding.fix,
            }
            for finding in report.findings
        ],
        "breaks": report.broken,
        "at": round(clock.wall_now(), 3),
    }
