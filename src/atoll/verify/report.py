"""Report: what a run found, as text, as data and as one page that stands alone.

A page to send to somebody who was not there: it needs no network, no script and no trust. It says first
whether everything held, then what was claimed, what was done to break it, and whether that bit.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from atoll import __version__, urls
from atoll.errors import ConfigurationError
from atoll.ports.examining import Finding, Weight
from atoll.ports.store import Put
from atoll.verify.history import Call, Transaction
from atoll.verify.judgement import Answer, Violation
from atoll.verify.lines import TERMS, TOKENS
from atoll.verify.report_style import STYLE
from atoll.verify.run import Report, Wish
from atoll.verify.scenario import Line
from atoll.verify.timeline import draw, neighbours

SHOWN = 5
ANSWER_MAX = 300
"""Characters of an answer: a page is for people."""


def masked(wish: Wish) -> str:
    """What was verified, a password masked."""
    if wish.start:
        return wish.place
    try:
        return str(urls.parse(wish.url)) if "@" in wish.url else wish.url
    except ConfigurationError:
        return wish.url


def _bites(line: Line) -> str:
    if line.claim in (TOKENS, TERMS):  # of the same history as the line above, and said there
        return ""
    return ", ".join(f"{bite.times:,} {bite.seen_by}" for bite in line.bites if bite.times)


def text(report: Report, page: Path) -> str:
    """What `atoll verify` prints: a line for each claim, then how to see it and to do it again."""
    width = max(len(line.claim.name) for line in report.lines)
    rows: list[str] = []
    if not report.wish.url and (found := preflight(report.preflight)):
        rows.append(found)
    for line in report.lines:
        under = f"{'':<{width}}  {'':<9}"
        bites = f"; {_bites(line)}" if _bites(line) else ""
        rows.append(f"{line.claim.name:<{width}}  {line.verdict:<9} {line.figures}{bites}".rstrip())
        note = line.judgement.note if line.judgement else ""
        if line.answer is Answer.NOT_KNOWN and note and note not in line.figures:
            rows.append(f"{under} because {note}")
        rows += [f"{under} not tested: {reason}" for reason in line.not_tested]
        rows += [f"{under} {v}" for v in (line.judgement.violations if line.judgement else [])[:1]]
    for crash in report.crashes:
        rows += [f"{'':<{width}}  {loss}" for loss in crash.losses[:1]]
    where = str(page) if page.is_absolute() else f"./{page}"
    rows.append(f"A pass is not a proof. Timeline: {where}   Again: {report.again()}")
    return "\n".join(rows)


def as_data(report: Report) -> dict[str, Any]:
    """The same for programs."""
    return {
        "engine": report.wish.engine,
        "when": datetime.datetime.fromtimestamp(report.began, datetime.UTC).strftime("%Y-%m-%d"),
        "atoll": __version__,
        "claims_made": report.facts.get("claims", {}),
        "preflight": [_finding(found) for found in report.preflight],
        "url": masked(report.wish),
        "seed": report.wish.seed,
        "seconds": round(report.seconds, 3),
        "again": report.again(),
        "claims": [
            {
                "claim": line.claim.name,
                "workload": line.workload,
                "verdict": line.verdict,
                "figures": line.figures,
                "counts": line.judgement.counts if line.judgement else {},
                "note": line.judgement.note if line.judgement else "",
                "faults": {bite.hardship.value: bite.times for bite in line.bites},
                "not_tested": line.not_tested,
                "violations": [str(v) for v in line.judgement.violations] if line.judgement else [],
            }
            for line in report.lines
        ],
        "crash_states": [
            {"figures": crash.figures(), "losses": [str(loss) for loss in crash.losses]}
            for crash in report.crashes
        ],
    }


def _finding(found: Finding) -> dict[str, str]:
    return {
        "setting": found.setting,
        "value": found.value,
        "weight": found.weight.value,
        "cost": found.cost,
        "fix": found.fix,
    }


def preflight(findings: Sequence[Finding]) -> str:
    """What `atoll verify` says of a server before it begins: a line for each finding that matters."""
    heavy = [found for found in findings if found.weight in (Weight.BREAKS, Weight.COSTS)]
    lines = [f"{f.weight.value:<7} {f.setting} = {f.value}: {f.cost}" for f in heavy]
    return "\n".join(lines)


def page(report: Report) -> str:
    """The HTML page."""
    broken = [line for line in report.lines if line.answer is Answer.NO and line.promised]
    unclear = [line for line in report.lines if line.answer is not Answer.YES]
    if broken:
        verdict, kind = f"{len(broken)} of {len(report.lines)} claims broken", "no"
    elif report.exit_code():
        verdict, kind = f"{len(unclear)} of {len(report.lines)} claims not known", "unknown"
    else:
        held = sum(line.answer is Answer.YES for line in report.lines)
        verdict, kind = (
            f"{'All' if held == len(report.lines) else held} {len(report.lines)} claims held",
            "yes",
        )
        if held != len(report.lines):
            verdict = f"{held} claims held, {len(unclear)} not run"
    when = datetime.datetime.fromtimestamp(report.began).astimezone().isoformat(" ", "seconds")
    facts = {
        "Seed": str(report.wish.seed),
        "Took": f"{report.seconds:.1f} s",
        "When": when,
        "Atoll": __version__,
    }
    listed = "".join(f"<div><dt>{name}</dt><dd>{escape(fact)}</dd></div>" for name, fact in facts.items())
    return "".join(
        (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(verdict)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{STYLE}</style></head><body><main>",
            f'<header><p class="over">atoll verify</p><h1 class="{kind}">{escape(verdict)}</h1>',
            f'<p class="url"><code>{escape(masked(report.wish))}</code></p><dl>{listed}</dl></header>',
            _table(report),
            _found_before(report),
            *_stories(report),
            f"<footer><p>Again: <code>{escape(report.again())}</code></p>{CAVEAT}</footer>",
            "</main></body></html>",
        )
    )


CAVEAT = (
    "<p>A pass is not a proof: it says that these calls, under these faults, were answered as claimed. "
    "Processes run on a real machine, so the same seed throws the same dice, not the same schedule.</p>"
)
_KINDS = {Answer.YES: "yes", Answer.NO: "no", Answer.NOT_KNOWN: "unknown", None: "idle"}


def _kind(line: Line) -> str:
    return "unknown" if line.verdict == "not promised" else _KINDS[line.answer]


def _table(report: Report) -> str:
    rows = []
    for line in report.lines:
        bites = "".join(f"<li>{b.times:,} {escape(b.seen_by)}</li>" for b in line.bites if b.times)
        missing = "".join(f'<li class="idle">not tested: {escape(why)}</li>' for why in line.not_tested)
        note = line.judgement.note if line.judgement else ""
        why = f'<p class="small">{escape(note)}</p>' if note and note not in line.figures else ""
        rows.append(
            f'<tr><td><b>{escape(line.claim.name)}</b><p class="small">{escape(line.claim.sentence)}</p></td>'
            f'<td><span class="pill {_kind(line)}">{escape(line.verdict)}</span></td>'
            f"<td>{escape(line.figures)}{why}</td><td><ul>{bites}{missing}</ul></td></tr>"
        )
    head = "<tr><th>Claim</th><th>Verdict</th><th>What was seen</th><th>Faults that bit</th></tr>"
    body = f"<thead>{head}</thead><tbody>{''.join(rows)}</tbody>"
    return f'<section class="scroll"><table>{body}</table></section>'


def _found_before(report: Report) -> str:
    """What the server said of its settings before the run."""
    if not report.preflight:
        return ""
    items = "".join(
        f"<li><b>{escape(f.setting)}</b> = {escape(f.value)} ({f.weight.value}). {escape(f.cost)}</li>"
        for f in report.preflight
    )
    return f"<section><h2>The server's own settings</h2><ul>{items}</ul></section>"


def _stories(report: Report) -> Iterator[str]:
    for line in report.lines:
        violations = line.judgement.violations if line.judgement else []
        if not violations:
            continue
        assert line.judgement is not None
        total = max(line.judgement.counts.get("violations", 0), len(violations))
        more = f", the first {SHOWN} of {total}" if total > SHOWN else ""
        yield f"<section><h2>{escape(line.claim.name)}: what broke it{more}</h2>"
        for violation in violations[:SHOWN]:
            yield _story(report, line, violation)
        yield "</section>"
    for crash in report.crashes:
        if crash.losses:
            yield f"<section><h2>After a power cut: {escape(crash.figures())}</h2>"
            for loss in crash.losses[:SHOWN]:
                steps = "".join(f"<li><code>{escape(step)}</code></li>" for step in loss.before)
                yield (
                    f"<article><h3>{escape(loss.problem)}</h3><p>Cut after step {loss.frame}, "
                    f"{escape(loss.how)}. The last steps before:</p><ol>{steps}</ol></article>"
                )
            yield "</section>"


def _story(report: Report, line: Line, violation: Violation) -> str:
    history = report.histories.get(line.workload)
    drawing = draw(neighbours(history, violation), violation.calls)
    calls = "".join(f"<li><code>{escape(sentence(call))}</code></li>" for call in violation.calls)
    return (
        f"<article><h3>{escape(violation.rule)}</h3><dl class='pair'>"
        f"<div><dt>Found</dt><dd>{escape(violation.found)}</dd></div>"
        f"<div><dt>Expected</dt><dd>{escape(violation.expected)}</dd></div></dl>"
        f'<div class="scroll">{drawing}</div><ol>{calls}</ol></article>'
    )


def sentence(call: Call) -> str:
    """A call as a person would say it."""
    asked = call.asked
    if isinstance(asked, Transaction):
        words = [
            f"put {op.key} = {op.value!r}" if isinstance(op, Put) else f"delete {op.key}" for op in asked.then
        ]
        words += [f"if {c.key} {c.field.value} is {c.expected!r}" for c in asked.compare]
        asked = "; ".join(words)
    answer = call.error or ("no answer came" if call.ended is None else f"{call.answer!s:.{ANSWER_MAX}}")
    return f"{call.process}  {call.f}  {asked}  ->  {call.type.value}: {answer}"
