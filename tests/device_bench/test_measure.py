import gc
from collections import Counter
from typing import Any

import pytest

from device_bench.measure import interleave
from runtimes.errors import EngineError, InputError


class Clock:
    """Time that passes only when somebody says so."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def calls(clock: Clock, costs: dict[str, int], seen: list[Any]) -> dict[str, Any]:
    def one(name: str) -> Any:
        def call(position: int) -> None:
            clock.now += costs[name]
            seen.append((name, position))

        return call

    return {name: one(name) for name in costs}


def run(rounds: int = 50, seconds: float = 1.0, **more: Any) -> tuple[Any, list[Any], Clock]:
    clock, seen = Clock(), []
    timings = interleave(
        calls(clock, {"slow": 900, "fast": 100}, seen),
        7, rounds, seconds, clock=clock, cpu_clock=clock, **more,
    )  # fmt: skip
    return timings, seen, clock


def test_each_callable_gets_its_own_time_in_each_round() -> None:
    timings, _, _ = run()
    assert {name: set(ns) for name, ns in timings.ns.items()} == {"slow": {900}, "fast": {100}}
    assert [len(ns) for ns in timings.ns.values()] == [50, 50]
    assert timings.cpu_share == 1.0


def test_a_round_uses_one_text_for_all_and_the_next_round_the_next() -> None:
    _, seen, _ = run(warmup=0)
    pairs = [{position for _, position in seen[at : at + 2]} for at in range(0, len(seen), 2)]
    assert pairs == [{turn % 7} for turn in range(50)]


def test_order_is_mixed_and_seeded() -> None:
    firsts = [Counter(name for name, _ in run(warmup=0, seed=seed)[1][::2]) for seed in (1, 1, 2)]
    assert 10 < firsts[0]["slow"] < 40
    assert run(seed=1)[1] == run(seed=1)[1] != run(seed=2)[1]


def test_stops_when_the_time_is_up() -> None:
    timings, _, _ = run(rounds=10_000, seconds=100e-6, warmup=0)
    assert len(timings.ns["fast"]) == 100  # 1,000 ns a round


def test_one_round_at_least_and_the_warm_up_is_bounded() -> None:
    timings, seen, _ = run(seconds=1e-9, warmup=30)
    assert len(timings.ns["fast"]) == 1
    assert len(seen) == 4  # one round to warm up, one timed


def test_busy_machine_shows_in_the_cpu_share() -> None:
    clock = Clock()
    timings = interleave(
        calls(clock, {"a": 100}, []), 1, 10, 1.0, clock=clock, cpu_clock=lambda: clock.now // 2
    )
    assert timings.cpu_share == 0.5


def test_collector_is_off_inside_and_on_after_also_when_it_fails() -> None:
    states: list[bool] = []
    interleave({"a": lambda _: states.append(gc.isenabled())}, 1, 3, 1.0, warmup=1)
    assert states == [False] * 4
    assert gc.isenabled()
    with pytest.raises(EngineError):
        interleave({"a": lambda _: 1 / 0}, 1, 3, 1.0)
    assert gc.isenabled()


def test_failure_names_the_callable() -> None:
    with pytest.raises(EngineError, match=r"^broken: failed in the bench: ZeroDivisionError: division"):
        interleave({"fine": str, "broken": lambda _: 1 / 0}, 1, 3, 1.0)

    def refuse(_: int) -> None:
        raise InputError("text 1 is empty")

    with pytest.raises(InputError, match=r"^picky: text 1 is empty$"):
        interleave({"picky": refuse}, 1, 3, 1.0)
