import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from device_bench import statistics
from runtimes.errors import InputError

latencies = arrays(np.float64, st.integers(1, 60), elements=st.floats(0.001, 1e6))


def test_percentiles_of_known_samples() -> None:
    got = statistics.summarise(np.arange(1, 102, dtype=float))
    assert (got["p50"], got["p90"], got["p99"], got["mean"]) == (51.0, 91.0, 100.0, 51.0)


@settings(max_examples=40, deadline=None)
@given(latencies)
def test_summary_is_ordered_and_inside_the_samples(samples: np.ndarray) -> None:
    got = statistics.summarise(samples, resamples=50)
    low, high = got["ci95"]
    assert samples.min() <= low <= high <= samples.max()
    assert samples.min() <= got["p50"] <= got["p90"] <= got["p99"] <= samples.max()


def test_interval_narrows_with_more_samples_and_covers_the_median() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for n in (50, 5000):
        low, high = statistics.median_interval(rng.lognormal(1.0, 0.5, n), seed=2)
        assert low < np.e < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 4


def test_same_seed_same_interval() -> None:
    samples = np.random.default_rng(0).random(100)
    assert statistics.median_interval(samples, 3) == statistics.median_interval(samples, 3)
    assert statistics.median_interval(samples, 3) != statistics.median_interval(samples, 4)


def test_paired_ratio_cancels_what_both_sides_share() -> None:
    rounds = np.random.default_rng(0).lognormal(0, 1, 400)
    ratio, low, high = statistics.ratio_of_medians(4 * rounds, rounds)
    assert (ratio, low, high) == pytest.approx((4.0, 4.0, 4.0))


def test_ratio_needs_one_interleaved_run() -> None:
    with pytest.raises(InputError, match="3 rounds against 2"):
        statistics.ratio_of_medians(np.ones(3), np.ones(2))


def test_outliers_lie_three_quartile_ranges_above() -> None:
    samples = np.arange(101.0)  # quartiles 25 and 75: far out from 225 on
    assert statistics.outliers(samples) == 0
    samples[99:] = 224.0, 226.0
    assert statistics.outliers(samples) == 1


def test_wilson_interval_of_a_known_case() -> None:
    # Newcombe (1998), table I: 81 of 263.
    assert statistics.accuracy_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert statistics.accuracy_interval(1.0, 10)[1] == 1.0


def test_no_samples_is_an_error() -> None:
    with pytest.raises(InputError, match="no samples"):
        statistics.summarise(np.array([]))
