import time
from collections.abc import Callable

import pytest

from device_bench import energy
from device_bench.energy import measure
from device_bench.meters import Meter


class Board:
    """A machine that draws 1 W, and 20 mJ more for each call. Its counter moves in steps, if it has some."""

    def __init__(self, step: float = 0.0) -> None:
        self.step = step
        self.start = time.monotonic()
        self.calls = 0

    def work(self, position: int) -> None:
        time.sleep(0.005)
        self.calls += 1

    def joules(self) -> float:
        total = time.monotonic() - self.start + self.calls * 0.02
        return total // self.step * self.step if self.step else total


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "PERIOD", 0.01)


def test_a_counter_less_idle() -> None:
    board = Board()
    got = measure(Meter("board", board.joules, counts=True, seconds=0.3), board.work, 3)
    assert got.reason == ""
    assert got.mj == pytest.approx(20, rel=0.02)
    assert got.idle_mw == pytest.approx(1000, rel=0.02)
    assert got.run_mw == pytest.approx(1000 + 20 * got.n / got.seconds, rel=0.02)
    assert got.n == board.calls
    assert got.seconds >= 0.3


def test_power_is_weighted_by_time() -> None:
    trace = energy._Trace([(0.0, 1.0), (1.0, 3.0), (3.0, 3.0)])
    assert trace.watts(counts=False) == pytest.approx(8 / 3)
    assert trace.watts(counts=True) == pytest.approx(2 / 3)
    assert trace.moves() == 1


def test_no_figure_where_running_shows_no_more_than_idle() -> None:
    got = measure(Meter("flat", lambda: 2.5, counts=False, seconds=0.05), lambda _: time.sleep(0.01), 1)
    assert got.mj is None
    assert got.reason == "flat: 2.50 W running is no more than 2.50 W idle"


def test_no_figure_from_a_counter_that_hardly_moves() -> None:
    board = Board(step=1000.0)
    got = measure(Meter("coarse", board.joules, counts=True, seconds=0.3), board.work, 1)
    assert got.mj is None
    assert got.reason.startswith("coarse: it moved 0 times in ")


@pytest.mark.parametrize("reads", [0, 1, 4])
def test_a_meter_that_stops_is_a_reason(reads: int) -> None:
    left = iter(range(reads))

    def read() -> float:
        if next(left, None) is None:
            raise OSError("it is plugged in")
        return 1.0

    got = measure(Meter("battery", read, counts=False, seconds=0.1), lambda _: time.sleep(0.001), 1)
    assert (got.mj, got.reason) == (None, "battery: it is plugged in")


def test_a_call_that_fails_is_not_swallowed() -> None:
    def fail(position: int) -> None:
        raise RuntimeError("bad kernel")

    calls: Callable[[int], None] = fail
    with pytest.raises(RuntimeError, match="bad kernel"):
        measure(Meter("x", lambda: 1.0, counts=False, seconds=0.01), calls, 1)
