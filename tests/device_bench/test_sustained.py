from typing import Any

import pytest
from bench_fakes import row

from device_bench import sustained
from device_bench.rows import check_row
from device_bench.sustained import sustain


class Board:
    """A board that gets warm: each answer takes 1 ms, and 2 ms after `warm` seconds, when it throttles."""

    def __init__(self, warm: float) -> None:
        self.now, self.warm, self.seen = 0, warm * 1e9, []  # type: ignore[var-annotated]

    def clock(self) -> int:
        return self.now

    def call(self, position: int) -> None:
        self.seen.append(position)
        self.now += 1_000_000 if self.now < self.warm else 2_000_000

    def look(self) -> dict[str, Any]:
        hot = self.now > self.warm
        return {"temperature_c": 80.0 if hot else 50.0, "mhz": 600.0 if hot else 1500.0, "throttled": hot}


def run(minutes: float, warm: float) -> tuple[dict[str, Any], Board]:
    board = Board(warm)
    return sustain(board.call, 3, minutes, watch=board, clock=board.clock), board  # type: ignore[arg-type]


def test_slices_of_ten_seconds_and_what_the_board_was_like() -> None:
    got, board = run(minutes=4, warm=100)
    assert [one["t_s"] for one in got["slices"]] == [pytest.approx(10 * n, abs=0.01) for n in range(1, 25)]
    assert [one["p50"] for one in got["slices"]] == [1.0] * 10 + [2.0] * 14
    assert [one["throttled"] for one in got["slices"]] == [False] * 10 + [True] * 14
    assert got["slices"][0]["n"] == 10_000
    assert got["minutes"] == 4
    assert got["drop"] == 2.0
    assert board.seen[:7] == [0, 1, 2, 0, 1, 2, 0]
    check_row(row(sustained=got), "row")
    assert sustained.told(got) == (
        "sustained: 4 min, p50 at the end 2.00 times that at the start, 50 to 80 °C, "
        "throttled in 14 of 24 slices"
    )


def test_a_short_run_has_six_slices_and_is_compared_by_thirds() -> None:
    got, _ = run(minutes=0.1, warm=3)
    assert len(got["slices"]) == sustained.slices_of(0.1) == 6
    assert got["drop"] == 2.0


def test_a_slow_answer_is_longer_than_its_slice() -> None:
    clock = iter(range(0, 10**15, 3 * 10**9))
    got = sustain(lambda _: None, 1, 0.1, clock=lambda: next(clock))
    assert all(one["n"] >= 1 for one in got["slices"])


def test_this_machine() -> None:
    got = sustain(lambda _: None, 1, 0.001)
    assert got["drop"] > 0
    assert set(got["slices"][0]) == {"t_s", "n", "p50", "temperature_c", "mhz", "throttled"}
    assert sustained.told(got).startswith("sustained: 0.001 min, p50 at the end ")
