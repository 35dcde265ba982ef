"""Are two runs of the bench here alike? And what does the harness itself cost?

    python -m device_bench.repeat BUNDLE [--variant NAME …] [--threads N] [--quick]

Two whole runs, each in a process of its own, on the bundle's golden texts. Prints both p50 of every variant;
exit code 1 where two of them differ by more than 5%, with what the rows say of the reason.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from device_bench.bench import BenchConfig
from device_bench.measure import interleave
from device_bench.result import UNSTEADY, key_of
from runtimes.bundle import Bundle, open_bundle
from runtimes.errors import EdgewiseError
from runtimes.golden import inputs_of


def compare(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """[{key, first, second, difference, alike, notes}]: p50 in ms of the rows that both runs have."""
    found = []
    others = {_key(row): row for row in second}
    for row in first:
        other = others.get(_key(row))
        if other is None or not row["latency_ms"] or not other["latency_ms"]:
            continue
        one, two = row["latency_ms"]["p50"], other["latency_ms"]["p50"]
        difference = two / one - 1
        notes = _reasons(row["note"], "first") + _reasons(other["note"], "second")
        found.append(
            {"key": _key(row), "first": one, "second": two, "difference": difference,
             "alike": abs(difference) <= UNSTEADY, "notes": notes}
        )  # fmt: skip
    return found


def overhead_ms(call_ms: float = 5.0, rounds: int = 200) -> float:
    """What the loop adds to a call that takes `call_ms` by its own clock: the median difference, in ms."""
    own: list[int] = []

    def busy(position: int) -> None:
        start = time.perf_counter_ns()
        while time.perf_counter_ns() - start < call_ms * 1e6:
            pass
        own.append(time.perf_counter_ns() - start)

    measured = interleave({"busy": busy}, 1, rounds, rounds * call_ms).ns["busy"]
    return (
        float(median(told - took for told, took in zip(measured, own[-len(measured) :], strict=True))) / 1e6
    )


def _key(row: dict[str, Any]) -> str:
    return key_of(row.get("entry") or row["variant"], row["tokenization"])


def _reasons(note: str, run: str) -> list[str]:
    """The remarks of a row that tell why another run may differ."""
    return [f"{run} run: {part}" for part in note.split("; ") if part.startswith(("busy machine", "rerun"))]


def _run(bundle: Bundle, variants: list[str] | None, config: BenchConfig) -> list[dict[str, Any]]:
    from device_bench.devices import reach
    from device_bench.remote import bench_on

    texts = inputs_of(bundle.golden())
    with reach("local") as device:
        return bench_on(device, bundle, variants, texts, None, config)


def _print(found: Sequence[dict[str, Any]]) -> None:
    width = max(len(one["key"]) for one in found)
    print(f"{'':<{width}}  p50 ms first  second  difference")
    for one in found:
        figures = f"{one['first']:>12.3f}  {one['second']:>6.3f}  {one['difference']:>+10.1%}"
        print(f"{one['key']:<{width}}  {figures}{'' if one['alike'] else '  not alike'}")
        for note in [] if one["alike"] else one["notes"] or ["nothing in either run says why: run again"]:
            print(f"{'':<{width}}  {note}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m device_bench.repeat", description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--variant", action="append")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args(argv)
    config = BenchConfig(threads=asked.threads, quick=asked.quick, cold_starts=1)
    try:
        bundle = open_bundle(asked.bundle)
        runs = [_run(bundle, asked.variant, config) for _ in range(2)]
    except EdgewiseError as error:
        print(f"repeat: {error}", file=sys.stderr)
        return error.exit_code
    found = compare(*runs)
    if not found:
        print("repeat: no times on an emulated machine", file=sys.stderr)
        return 2
    _print(found)
    cost = overhead_ms()
    print(f"\nharness: {cost * 1e3:.1f} µs of a call that takes 5 ms, {cost / 5:.3%}")
    return 0 if all(one["alike"] for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
