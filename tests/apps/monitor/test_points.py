"""Points as JSON and CSV: what is read, and that nothing else than a refusal comes of anything."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.monitor import points
from apps.monitor.api_points import read, text_of
from apps.monitor.points import PointsRequest, SeriesPointsRequest
from apps.web.replies import Refused

NOW = 1_800_000_000.0
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(["points", "series", "time", "times", "values", "channels", "a"])
SHAPED = st.recursive(
    ANYTHING,
    lambda inner: st.dictionaries(KEYS, inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=8,
)


def check(parts: list[points.Part]) -> None:
    """What every part must be."""
    for part in parts:
        assert points.NAME.fullmatch(part.series) and part.times.shape == part.values.shape[:1]
        assert (np.diff(part.times) > 0).all() and np.isfinite(part.times).all()
        assert not np.isinf(part.values).any() and part.values.shape[1] >= 1


@given(SHAPED)
@settings(max_examples=150, deadline=None)
def test_any_json_is_points_or_one_line(body: object) -> None:
    text = json.dumps(body)
    for kind, of in (
        (PointsRequest, points.of_many),
        (SeriesPointsRequest, lambda request, now: points.of_one("a", request, now)),
    ):
        try:
            check(of(read(kind, text), NOW))
        except Refused as refused:
            assert refused.status in (400, 422) and "\n" not in refused.line and len(refused.line) < 400


@given(st.text(alphabet="a1,.-+eE\n\r\"' nN:TZ0_\x00é", max_size=80), st.sampled_from([None, "a"]))
@settings(max_examples=300, deadline=None)
def test_any_text_is_points_or_one_line(text: str, series: str | None) -> None:
    try:
        check(points.of_csv(text, series, NOW))
    except Refused as refused:
        assert refused.status == 422 and "\n" not in refused.line and len(refused.line) < 400


@given(st.binary(max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_text_or_one_line(body: bytes) -> None:
    try:
        text_of(body)
    except Refused as refused:
        assert refused.status == 400


@given(
    st.lists(
        st.tuples(st.integers(0, 1_700_000_000), st.none() | st.floats(-1e30, 1e30)), min_size=1, max_size=20
    )
)
@settings(max_examples=100, deadline=None)
def test_json_and_csv_say_the_same(rows: list[tuple[int, float | None]]) -> None:
    body = json.dumps({"points": [{"series": "a", "time": at, "values": [value]} for at, value in rows]})
    lines = "".join(f"a,{at},{'' if value is None else repr(value)}\n" for at, value in rows)
    (one,), (other,) = points.of_many(read(PointsRequest, body), NOW), points.of_csv(lines, None, NOW)
    np.testing.assert_array_equal(one.times, other.times)
    np.testing.assert_array_equal(one.values, other.values)
    assert one.repeated == other.repeated == len(rows) - len({at for at, _ in rows})
    first = dict(reversed(rows))
    for at, (value,) in zip(one.times.tolist(), one.values.tolist(), strict=True):
        wanted = first[int(at)]
        assert math.isnan(value) if wanted is None else value == wanted


@pytest.mark.parametrize(
    ("text", "names", "times"),
    [
        ("time,cpu,disk\n1,2,3\n", ("cpu", "disk"), [1.0]),
        ("1,2\n\n3,4\n", None, [1.0, 3.0]),
        ('"1970-01-01T00:00:05+00:00",2\n', None, [5.0]),
        ("1970-01-01T02:00:05+02:00,2\n", None, [5.0]),
        ("\ufeff".encode().decode("utf-8-sig") + "1.5e1,2\n", None, [15.0]),
    ],
)
def test_lines_of_one_series(text: str, names: tuple[str, ...] | None, times: list[float]) -> None:
    (part,) = points.of_csv(text, "a", NOW)
    assert part.names == names and part.times.tolist() == times
