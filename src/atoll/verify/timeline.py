"""Timeline: the few calls that show a violation, drawn as bars in the order they happened.

A musical score: a line for each process, a bar from asking to answer. The places are in the order of
events, not to scale, because the interesting microseconds would vanish; the times are written beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from atoll.verify.history import Call, History, Transaction
from atoll.verify.judgement import Violation

AROUND = 14
ROW, TOP, LEFT, WIDTH = 46, 34, 96, 1040


def neighbours(history: History | None, violation: Violation, most: int = AROUND) -> list[Call]:
    """The calls of a violation and some that ran at the same time, in order."""
    chosen = list(violation.calls)
    if history is None or not chosen:
        return chosen
    low, high = min(c.began for c in chosen), max(c.ended or c.began for c in chosen)
    mine = {id(c) for c in chosen}
    near = [c for c in history.calls if id(c) not in mine and c.began <= high and (c.ended or high) >= low]
    last = chosen[-1].began
    near.sort(key=lambda call: abs(call.began - last))
    return sorted(chosen + near[:most], key=lambda call: call.began)


def short(call: Call) -> str:
    """A call in a few words, as it stands on its bar."""
    if isinstance(call.asked, Transaction):
        asked = (
            " ".join(f"{type(op).__name__.lower()} {_tail(op.key)}" for op in call.asked.then[:2])
            or "compare"
        )
    elif isinstance(call.asked, str):
        asked = f"{call.f} {_tail(call.asked)}"
    else:
        asked = call.f
    if call.error:
        return f"{asked}: {call.error}"
    return asked if call.revision is None else f"{asked} @{call.revision}"


def _tail(key: str) -> str:
    return "/".join(key.split("/")[-2:])[-24:]


def draw(calls: Sequence[Call], guilty: Sequence[Call]) -> str:
    """An inline SVG; the guilty calls are red and numbered."""
    if not calls:
        return ""
    rows = {name: number for number, name in enumerate(dict.fromkeys(sorted(c.process for c in calls)))}
    places = sorted({c.began for c in calls} | {c.ended for c in calls if c.ended is not None})
    step = (WIDTH - LEFT - 24) / max(1, len(places))
    x = {place: LEFT + step * (number + 0.5) for number, place in enumerate(places)}
    height = TOP + ROW * len(rows) + 26
    numbers = {id(call): number for number, call in enumerate(guilty, 1)}
    start = min(c.began_at for c in calls)
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="timeline of {len(calls)} calls">']
    for name, row in rows.items():
        y = TOP + ROW * row
        parts.append(f'<line class="rail" x1="{LEFT}" x2="{WIDTH - 12}" y1="{y + 24}" y2="{y + 24}"/>')
        parts.append(f'<text class="who" x="8" y="{y + 28}">{escape(name[-12:])}</text>')
    for call in sorted(calls, key=lambda c: id(c) in numbers):
        end = x[call.ended] if call.ended is not None else WIDTH - 12
        parts.append(
            _bar(call, (x[call.began], max(end, x[call.began] + 5)), TOP + ROW * rows[call.process], numbers)
        )
    for call in guilty:
        if call.began in x:
            parts.append(
                f'<text class="when" x="{x[call.began]:.1f}" y="{height - 8}">'
                f"{(call.began_at - start) * 1000:.1f} ms</text>"
            )
    return "".join(parts) + "</svg>"


def _bar(call: Call, span: tuple[float, float], y: int, numbers: dict[int, int]) -> str:
    number = numbers.get(id(call))
    kind = "bad" if number else ("open" if call.ended is None else call.type.value)
    (x1, x2), label = span, escape(short(call))
    text = ""
    if number:
        near_end = x1 > WIDTH * 0.7
        at, anchor = (x2, "end") if near_end else (x1, "start")
        text = f'<text class="what" x="{at:.1f}" y="{y + 10}" text-anchor="{anchor}">{number}. {label}</text>'
    return (
        f'<g><title>{escape(str(call)[:400])}</title><rect class="{kind}" x="{x1:.1f}" y="{y + 16}" rx="3" '
        f'width="{x2 - x1:.1f}" height="16"/>{text}</g>'
    )
