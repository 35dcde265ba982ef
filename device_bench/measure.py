"""The timing loop: callables run in turn, in a new random order each round, on the same input."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtimes.errors import EdgewiseError, EngineError

WARMUP = 20


@dataclass(frozen=True)
class Timings:
    """Samples by callable, int64 (rounds,) in ns: element r of each was taken in round r on the same input.

    `cpu_share`: processor time of this process over wall time of the whole loop. With one thread, well
    below 1 means that other work held the processor.
    """

    ns: dict[str, npt.NDArray[np.int64]]
    cpu_share: float


def interleave(
    callables: Mapping[str, Callable[[int], object]],
    inputs: int,
    rounds: int,
    seconds: float,
    *,
    seed: int = 0,
    warmup: int = WARMUP,
    clock: Callable[[], int] = time.perf_counter_ns,
    cpu_clock: Callable[[], int] = time.process_time_ns,
    progress: Callable[[], object] = lambda: None,
) -> Timings:
    """Times every callable once a round, until `rounds` are done or `seconds` have passed in all.

    Round r calls each with r % inputs, in an order drawn anew (seeded), with the garbage collector off.
    The warm-up is not timed, and takes at most a tenth of `seconds` (one round at least).
    Raises EngineError, or the callable's own EdgewiseError, with the callable's name in front.
    """
    names = list(callables)
    rng = np.random.default_rng(seed)
    samples = np.zeros((rounds, len(names)), dtype=np.int64)
    done = 0
    with _collector_off():
        _warm_up(callables, inputs, warmup, seconds / 10, clock)
        start, cpu_start = clock(), cpu_clock()
        now = start
        while done < rounds and (done == 0 or now - start < seconds * 1e9):
            for column in rng.permutation(len(names)):
                samples[done, column] = _time(names[column], callables[names[column]], done % inputs, clock)
            done += 1
            progress()
            now = clock()
        share = (cpu_clock() - cpu_start) / max(now - start, 1)
    return Timings({name: samples[:done, column] for column, name in enumerate(names)}, share)


def _time(name: str, function: Callable[[int], object], position: int, clock: Callable[[], int]) -> int:
    try:
        before = clock()
        function(position)
        return clock() - before
    except EdgewiseError as error:
        raise type(error)(f"{name}: {error}") from error
    except Exception as error:
        raise EngineError(f"{name}: failed in the bench: {first_line(error)}; try --debug") from error


def _warm_up(
    callables: Mapping[str, Callable[[int], object]],
    inputs: int,
    rounds: int,
    seconds: float,
    clock: Callable[[], int],
) -> None:
    start = clock()
    for turn in range(rounds):
        for name, function in callables.items():
            _time(name, function, turn % inputs, clock)
        if clock() - start > seconds * 1e9:
            return


@contextmanager
def _collector_off() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def first_line(error: BaseException) -> str:
    """An error of somebody else's code as one short line: class and first line of its message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}".rstrip(": ")
