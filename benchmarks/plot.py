"""Draw a line chart with two logarithmic axes as SVG. Knows numbers and text, nothing of benchmarks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 76, 150, 44, 54
COLOURS = ("#0b63ce", "#6b7280", "#c2410c", "#15803d", "#7e22ce", "#b91c1c")
DASHES = ("", "6 4", "2 3", "8 3 2 3", "1 4", "10 5")
"""Lines differ in dashes too, for who does not tell the colours apart."""

Line = tuple[str, Sequence[tuple[float, float]]]


class Axis:
    """A logarithmic axis from `low` to `high` in values, `start` to `end` in pixels."""

    def __init__(self, values: Iterable[float], start: float, end: float, *, whole: bool) -> None:
        numbers = list(values)
        low, high = math.log10(min(numbers)), math.log10(max(numbers))
        if whole or high - low < 0.3:
            low, high = math.floor(low), math.ceil(high)
        self._low, self._high = low, max(high, low + 0.1)
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Return round values within the axis: powers of ten, with 2 and 5 when these are few."""
        exponents = range(math.floor(self._low), math.ceil(self._high) + 1)
        for factors in ((1,), (1, 2, 5)):
            found = [factor * 10.0**exponent for exponent in exponents for factor in factors]
            inside = [
                value
                for value in found
                if self._low - 1e-9 <= math.log10(value) <= self._high + 1e-9
            ]
            if len(inside) >= 3:
                break
        return inside


def short(value: float) -> str:
    """Write a number briefly: 1500000 is 1.5 M."""
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def text(x: float, y: float, words: str, anchor: str = "middle", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(words)}</text>'


def grid(x: Axis, y: Axis) -> list[str]:
    parts = []
    for value in y.ticks():
        at = y.at(value)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#d1d5db"/>')
        parts.append(text(LEFT - 8, at + 4, short(value), "end"))
    for value in x.ticks():
        at = x.at(value)
        parts.append(f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eceef1"/>')
        parts.append(text(at, HEIGHT - BOTTOM + 18, short(value)))
    return parts


def curve(number: int, line: Line, x: Axis, y: Axis) -> list[str]:
    name, points = line
    colour = COLOURS[number % len(COLOURS)]
    dash = DASHES[number % len(DASHES)]
    places = [(x.at(a), y.at(b)) for a, b in points]
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    parts = [f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>']
    parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in places]
    key_y = TOP + 12 + 22 * number
    key_x = WIDTH - RIGHT + 14
    parts.append(f'<path d="M{key_x} {key_y}h24" stroke="{colour}" stroke-width="2"{dashed}/>')
    parts.append(text(key_x + 30, key_y + 4, name, "start"))
    return parts


def chart(title: str, x_title: str, y_title: str, lines: Sequence[Line]) -> str:
    """Return the SVG of a chart. All values must be greater than zero; a line has points (x, y)."""
    drawn = [line for line in lines if line[1]]
    x = Axis((a for _, points in drawn for a, _ in points), LEFT, WIDTH - RIGHT, whole=False)
    y = Axis((b for _, points in drawn for _, b in points), HEIGHT - BOTTOM, TOP, whole=True)
    turned = f' transform="rotate(-90 18 {(TOP + HEIGHT - BOTTOM) / 2:.1f})"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        ' font-family="system-ui, sans-serif" font-size="12" fill="#1f2937">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        text(LEFT, 24, title, "start", ' font-size="15" font-weight="600"'),
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, x_title),
        text(18, (TOP + HEIGHT - BOTTOM) / 2, y_title, "middle", turned),
        *grid(x, y),
    ]
    for number, line in enumerate(drawn):
        parts += curve(number, line, x, y)
    return "\n".join([*parts, "</svg>", ""])
