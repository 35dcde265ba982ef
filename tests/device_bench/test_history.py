from bench_fakes import row
from hypothesis import given
from hypothesis import strategies as st

from device_bench.history import compare, history, summary


def one(**now):
    (change,) = compare([row(**now)], [row()])
    return change


def test_what_counts_as_worse():
    assert one().worse == one().better == ()
    assert one(p50=1.9 * 1.2).worse == ("latency",)
    assert one(p50=1.9 * 1.04).worse == ()  # under 5%
    assert one(p50=1.9 / 1.2).better == ("latency",)
    assert one(accuracy=0.89).worse == ("accuracy",) and one(accuracy=0.896).worse == ()
    assert one(size_bytes=12_000_000, peak_rss_mb=150.0).worse == ("file", "memory")


def test_a_change_within_the_intervals_is_noise():
    wide = {"p50": 2.2, "p90": 3.0, "p99": 4.0, "mean": 2.3, "ci95": [1.5, 2.6]}
    assert one(latency_ms=wide).worse == ()


def test_rows_are_matched_by_device_profile_variant_and_threads():
    other = {**row()["device"], "name": "Other"}
    assert compare([row()], [row(device=other)]) == []
    assert "nothing to compare" in summary([])
    changes = compare([row("a"), row("b", threads=2)], [row("a"), row("b"), row("gone")])
    assert [(c.now and c.now["variant"], c.before and c.before["variant"]) for c in changes] == [
        ("a", "a"), ("b", None), (None, "b"), (None, "gone"),
    ]  # fmt: skip


def test_the_latest_of_several_earlier_runs_counts():
    earlier = [row(p50=9.0, started="2026-02-01"), row(p50=1.9, started="2026-03-01")]
    assert compare([row()], earlier)[0].worse == () and compare([row()], earlier[::-1])[0].better == ()


def test_the_section_names_the_regression():
    changes = compare([row(p50=3.0), row("b")], [row(), row("b")])
    page = history(changes)
    assert summary(changes) == "1 of 2 rows became worse: onnx-int8: latency"
    assert "worse: latency" in page and "+57.9%" in page and "1 rows as before" in page
    assert history(compare([row()], [row()])).count("no regression in 1 rows") == 1


@given(st.floats(0.1, 100), st.floats(0.1, 100))
def test_worse_one_way_is_better_the_other(first, second):
    there, back = (compare([row(p50=a)], [row(p50=b)])[0] for a, b in ((first, second), (second, first)))
    assert there.worse == back.better and there.better == back.worse
    assert not (there.worse and there.better)
