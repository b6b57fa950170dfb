"""The picture of the page on SWIM: three small charts, drawn from the figures alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from atoll.verify.swim.figures import Figures, Row

WIDTH, HEIGHT = 900, 330
INK, FAINT, BLUE, ORANGE, GREEN = "#333333", "#d8d8d8", "#2166ac", "#d6604d", "#1b7837"
_TOP, _BOTTOM, _PANEL, _GAP, _LEFT = 54.0, 270.0, 230.0, 66.0, 50.0


def draw(figures: Figures) -> str:
    """An SVG file. Equal figures give equal bytes."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="sans-serif" font-size="11">',
        "<title>SWIM: detection time and load by size of the group, and false verdicts by pause</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *_detection(figures["sizes"]),
        *_load(figures["sizes"]),
        *_pauses(figures["pauses"]),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _detection(rows: Sequence[Row]) -> list[str]:
    top = 5 * math.ceil(max(row["all_s"] for row in rows) / 5)
    y = _linear(top)
    return [
        *_frame(0, "Seconds from a crash until", "members"),
        *_ruler(0, [(y(value), f"{value}") for value in range(0, top + 1, 5)]),
        *_sizes(0, rows),
        *_line(0, rows, "suspected_s", y, GREEN),
        *_line(0, rows, "all_s", y, ORANGE),
        *_line(0, rows, "first_s", y, BLUE),
        *_legend(0, [("one suspects", GREEN), ("one knows", BLUE), ("all know", ORANGE)]),
    ]


def _load(rows: Sequence[Row]) -> list[str]:
    y = _linear(4)
    return [
        *_frame(1, "Packets a member sends in a second", "members"),
        *_ruler(1, [(y(value), f"{value}") for value in range(5)]),
        *_sizes(1, rows),
        *_line(1, rows, "packets", y, BLUE),
        *_legend(1, [("in quiet, whatever the size", BLUE)]),
    ]


def _pauses(rows: Sequence[Row]) -> list[str]:
    def y(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * math.log10(1 + value) / 4.2

    found = [
        *_frame(2, "False verdicts, 4 of 64 members slow", "pauses of so many seconds"),
        *_ruler(2, [(y(value), f"{value:,}") for value in (0, 10, 100, 1000, 10000)]),
    ]
    step = _PANEL / max(1, len(rows))
    for place, row in enumerate(rows):
        left = _x(2) + place * step
        found.append(_text(left + step / 2, _BOTTOM + 15, f"{row['pause_s']:g}", "middle"))
        for shift, key, colour in ((0.14, "swim", ORANGE), (0.52, "lifeguard", BLUE)):
            value = row[key]
            high = _BOTTOM - y(value)
            found.append(
                f'<rect x="{left + shift * step:.1f}" y="{y(value):.1f}" width="{step * 0.34:.1f}" '
                f'height="{high:.1f}" fill="{colour}"><title>{row["pause_s"]:g} s: {value:,}</title></rect>'
            )
    return found + _legend(2, [("SWIM alone", ORANGE), ("with Lifeguard", BLUE)])


def _legend(panel: int, words: Sequence[tuple[str, str]]) -> list[str]:
    return [
        _text(_x(panel) + 80 * place, 40, word, colour=colour) for place, (word, colour) in enumerate(words)
    ]


def _x(panel: int) -> float:
    return _LEFT + panel * (_PANEL + _GAP)


def _linear(top: float) -> Callable[[float], float]:
    return lambda value: _BOTTOM - (_BOTTOM - _TOP) * value / top


def _across(panel: int, rows: Sequence[Row], members: int) -> float:
    low, high = math.log10(rows[0]["members"]), math.log10(rows[-1]["members"])
    share = (math.log10(members) - low) / (high - low) if high > low else 0.5
    return _x(panel) + 10 + (_PANEL - 20) * share


def _frame(panel: int, title: str, below: str) -> list[str]:
    x = _x(panel)
    return [
        _text(x, 22, title, weight="bold"),
        _text(x + _PANEL / 2, _BOTTOM + 34, below, "middle"),
        f'<line x1="{x:.1f}" y1="{_BOTTOM}" x2="{x + _PANEL:.1f}" y2="{_BOTTOM}" stroke="{INK}"/>',
    ]


def _ruler(panel: int, marks: Sequence[tuple[float, str]]) -> list[str]:
    x = _x(panel)
    return [
        part
        for y, label in marks
        for part in (
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x + _PANEL:.1f}" y2="{y:.1f}" stroke="{FAINT}"/>',
            _text(x - 6, y + 4, label, "end"),
        )
    ]


def _sizes(panel: int, rows: Sequence[Row]) -> list[str]:
    return [
        _text(_across(panel, rows, row["members"]), _BOTTOM + 15, f"{row['members']:,}", "middle")
        for row in rows
    ]


def _line(panel: int, rows: Sequence[Row], key: str, y: Callable[[float], float], colour: str) -> list[str]:
    points = [(_across(panel, rows, row["members"]), y(row[key])) for row in rows]
    path = " ".join(f"{across:.1f},{up:.1f}" for across, up in points)
    found = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    found += [
        f'<circle cx="{across:.1f}" cy="{up:.1f}" r="3" fill="{colour}">'
        f"<title>{row['members']:,} members: {row[key]:g}</title></circle>"
        for (across, up), row in zip(points, rows, strict=True)
    ]
    return found


def _text(
    x: float, y: float, words: str, anchor: str = "start", *, colour: str = INK, weight: str = ""
) -> str:
    bold = f' font-weight="{weight}"' if weight else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{bold}>{words}</text>'
