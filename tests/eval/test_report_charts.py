import math
import re

from hypothesis import given
from hypothesis import strategies as st

from jaxret.eval.report.charts import MOST_POINTS, Bar, bar_chart, line_chart, thinned, ticks_to


@given(st.floats(1e-6, 1e9))
def test_ticks_reach_the_top_in_few_round_steps(top: float):
    ticks = ticks_to(top)
    assert ticks[0] == 0 and ticks[-1] >= top * (1 - 1e-6)
    assert 2 <= len(ticks) <= 7
    apart = ticks[1]
    assert ticks[-1] - apart < top
    assert round(apart / 10.0 ** math.floor(math.log10(apart) + 1e-9)) in (1, 2, 5)


@given(st.integers(1, 1500))
def test_thinning_keeps_the_mean_and_the_last_step(count: int):
    points = [(step, float(step % 7)) for step in range(1, count + 1)]
    few = thinned(points)
    assert len(few) <= MOST_POINTS and few[-1][0] == count
    size = -(-count // MOST_POINTS)
    for i, (_, value) in enumerate(few):
        stretch = [v for _, v in points[i * size : (i + 1) * size]]
        assert math.isclose(value, sum(stretch) / len(stretch), abs_tol=1e-12)


def test_bars_are_as_long_as_their_values_and_whiskers_span_the_intervals():
    svg = bar_chart([Bar("a", 0.25, (0.2, 0.4), False), Bar("b", 0.75, None, True)])
    widths = [float(width) for width in re.findall(r'<rect [^>]*?width="([\d.]+)"', svg)]
    assert math.isclose(widths[1], 3 * widths[0], abs_tol=0.2)
    whiskers = re.findall(r'd="M([\d.]+) [\d.]+v8M[\d.]+ [\d.]+H([\d.]+)', svg)
    assert len(whiskers) == 1
    left = float(re.search(r'<rect x="([\d.]+)"', svg)[1])
    low, high = (float(end) for end in whiskers[0])
    assert math.isclose(low - left, 0.2 / 0.25 * widths[0], abs_tol=0.2)
    assert math.isclose(high - left, 0.4 / 0.25 * widths[0], abs_tol=0.2)
    assert ">0.250<" in svg and ">0.750<" in svg


def test_labels_are_escaped():
    assert "<b>" not in bar_chart([Bar("<b>", 0.5, None, True)])


def test_lines_fall_where_the_values_fall():
    svg = line_chart({"dense": [(1, 4.0), (50, 2.0), (100, 1.0)], "all": [(1, 0.0), (100, 0.0)]})
    path = re.search(r'<path d="M([^"]+)" class="line dense"', svg)[1]
    points = [tuple(map(float, point.split())) for point in path.split("L")]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    base = float(re.search(r'<path d="M[\d.]+ ([\d.]+)L[^"]+" class="line all"', svg)[1])
    heights = [base - y for _, y in points]
    assert math.isclose(heights[0] / heights[1], 2, rel_tol=0.01)
    assert math.isclose(heights[1] / heights[2], 2, rel_tol=0.01)
