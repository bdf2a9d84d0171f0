"""Charts as inline SVG that takes its colours from the page's style sheet, light or dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 460
MOST_POINTS = 200


@dataclass(frozen=True)
class Bar:
    """One bar: a value in [0, 1] and its interval, where there is one."""

    label: str
    value: float
    interval: tuple[float, float] | None
    best: bool


def bar_chart(bars: Sequence[Bar]) -> Markup:
    """Horizontal bars from 0 to 1 with their intervals as whiskers."""
    row, left, right, top = 26, 158, 48, 4
    scale = WIDTH - left - right
    bottom = top + row * len(bars)
    parts = [_axis_line(left + scale * t, top, bottom, f"{t:g}") for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    for i, bar in enumerate(bars):
        y = top + row * i + row / 2
        kind = "bar best" if bar.best else "bar"
        parts += [
            _tag("text", bar.label, x=left - 8, y=y + 4, text_anchor="end"),
            _tag("rect", x=left, y=y - 8, width=scale * bar.value, height=16, rx=2, class_=kind),
        ]
        if bar.interval:
            low, high = (left + scale * end for end in bar.interval)
            path = f"M{low:.1f} {y - 4}v8M{low:.1f} {y}H{high:.1f}M{high:.1f} {y - 4}v8"
            parts.append(_tag("path", d=path, class_="whisker"))
        parts.append(
            _tag("text", f"{bar.value:.3f}", x=WIDTH - right + 8, y=y + 4, class_="best" if bar.best else "value")
        )
    return _svg(bottom + 22, parts)


def line_chart(series: Mapping[str, Sequence[tuple[int, float]]]) -> Markup:
    """Lines over steps, from 0 upwards, each in the class of its name; at most MOST_POINTS points each."""
    left, top, height = 44, 8, 150
    thin = {name: thinned(points) for name, points in series.items()}
    last = max(step for points in thin.values() for step, _ in points)
    ticks = ticks_to(max(value for points in thin.values() for _, value in points))
    across, up = (WIDTH - left - 8) / last, height / ticks[-1]
    base = top + height
    parts = [
        part
        for t in ticks
        for part in (
            _tag("path", d=f"M{left} {base - up * t:.1f}H{WIDTH - 8}", class_="grid"),
            _tag("text", f"{t:g}", x=left - 8, y=round(base - up * t + 4, 1), text_anchor="end", class_="tick"),
        )
    ]
    for step in ticks_to(float(last))[1:]:
        if step <= last:
            parts.append(
                _tag(
                    "text",
                    f"{step:,g}",
                    x=round(left + across * step, 1),
                    y=base + 16,
                    text_anchor="middle",
                    class_="tick",
                )
            )
    for name, points in thin.items():
        path = "M" + "L".join(f"{left + across * step:.1f} {base - up * value:.1f}" for step, value in points)
        parts.append(_tag("path", d=path, class_=f"line {name}"))
    return _svg(base + 22, parts)


def thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most MOST_POINTS points: each the last step and the mean value of a stretch of equal length."""
    size = -(-len(points) // MOST_POINTS)
    stretches = [points[start : start + size] for start in range(0, len(points), size)]
    return [(stretch[-1][0], math.fsum(value for _, value in stretch) / len(stretch)) for stretch in stretches]


def ticks_to(top: float) -> list[float]:
    """Round numbers from 0 to `top` or just past it, 1, 2 or 5 times a power of ten apart."""
    if top <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(top / 4))
    apart = next(power * times for times in (1, 2, 5, 10) if power * times * 5 >= top)
    return [round(apart * i, 10) for i in range(math.ceil(round(top / apart, 6)) + 1)]


def _axis_line(x: float, top: int, bottom: int, label: str) -> Markup:
    line = _tag("path", d=f"M{x:.1f} {top}V{bottom}", class_="grid")
    return line + _tag("text", label, x=round(x, 1), y=bottom + 16, text_anchor="middle", class_="tick")


def _svg(height: int, parts: Sequence[Markup]) -> Markup:
    return _tag("svg", *parts, viewBox=f"0 0 {WIDTH} {height}", role="img")


def _tag(name: str, *children: str, **attributes: object) -> Markup:
    """An element; text and attributes are escaped, `text_anchor` means `text-anchor`, `class_` means `class`."""
    listed = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(round(value, 1) if isinstance(value, float) else value)}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{listed}>{''.join(escape(child) for child in children)}</{name}>")
