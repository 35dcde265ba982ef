import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_bench.measure import Timings
from device_bench.result import HARNESS, key_of, remarks, rerun, timed

KEY = key_of("edge", True)


def timings(ms: list[float], empty_ms: float = 0.0002) -> Timings:
    samples = np.array([round(value * 1e6) for value in ms], np.int64)
    return Timings({KEY: samples, HARNESS: np.full(len(ms), round(empty_ms * 1e6), np.int64)}, 1.0)


def values(**more: Any) -> dict[str, Any]:
    latency = {"p50": 20.0, "p90": 21.0, "p99": 22.0}
    return {
        "n": 1024, "rerun": None, "simulated_profile": None, "quick": False, "threads": 1,
        "latency_ms": latency, "overhead_share": 0.0, "sustained": None, **more,
    }  # fmt: skip


def test_the_rerun_is_compared_on_the_same_texts() -> None:
    long_texts_first = np.array([9.0, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    got = rerun(long_texts_first, np.array([9.9, 9.9]), inputs=8)
    assert got == {"p50": 9.9, "difference": pytest.approx(0.1), "n": 2}
    assert rerun(np.array([1.0, 3.0] * 8), np.array([1.0, 3.0] * 2), inputs=2)["difference"] == 0.0


def test_a_loop_that_was_cut_short() -> None:
    assert rerun(np.array([2.0]), np.array([3.0, 50.0, 50.0]), inputs=8)["difference"] == 0.5


@settings(deadline=None)
@given(
    st.lists(st.floats(0.001, 1e4), min_size=1, max_size=40),
    st.lists(st.floats(0.001, 1e4), min_size=1, max_size=40),
    st.integers(1, 50),
)
def test_any_two_loops_can_be_compared(first: list[float], second: list[float], inputs: int) -> None:
    got = rerun(np.array(first), np.array(second), inputs)
    assert got["difference"] > -1
    assert min(second) <= got["p50"] <= max(second)


def test_the_overhead_and_its_share() -> None:
    got = timed(KEY, timings([5.0] * 50, empty_ms=0.0005), timings([5.1] * 10), 50, seed=0)
    assert got["overhead_ms"] == pytest.approx(0.0005)
    assert got["overhead_share"] == pytest.approx(0.0001)
    assert got["rerun"]["difference"] == pytest.approx(0.02)
    assert timed(KEY, timings([5.0]), None, 1, seed=0)["rerun"] is None


def test_quiet_figures_need_no_remark() -> None:
    assert remarks(values(rerun={"p50": 20.9, "difference": 0.049, "n": 256}), 1.0) == []


@pytest.mark.parametrize(
    ("more", "cpu_share", "told"),
    [
        ({"rerun": {"p50": 22.0, "difference": 0.1, "n": 9}}, 1.0, r"rerun: p50 \+10.0% in a second loop"),
        ({"rerun": {"p50": 18.0, "difference": -0.1, "n": 9}}, 1.0, r"rerun: p50 -10.0% in a second loop"),
        ({}, 0.5, "busy machine: this process had the processor for 50%"),
        ({"n": 50}, 1.0, "p99: from 50 rounds only"),
        ({"quick": True}, 1.0, "quick: 1024 rounds"),
        ({"overhead_share": 0.02}, 1.0, r"harness: an empty call takes 2.0% of the p50"),
        ({"sustained": {"minutes": 1, "slices": [], "drop": 1.25}}, 1.0, "1.25 times that at the start"),
        ({"simulated_profile": "pi4"}, 0.2, "simulated: profile pi4 slows this machine down"),
    ],
)
def test_remarks(more: dict[str, Any], cpu_share: float, told: str) -> None:
    (remark,) = remarks(values(**more), cpu_share)
    assert re.search(told, remark)


def test_answers_shorter_than_the_quota_s_period() -> None:
    short = {"p50": 2.0, "p90": 9.0, "p99": 9.0}
    told = remarks(values(simulated_profile="pi4", latency_ms=short), 0.2)
    assert told[1].endswith("so read the mean")
