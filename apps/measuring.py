"""A bundle, and perhaps its checkpoint, → bench rows; the gate on a device."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from device_bench.bench import BenchConfig, BenchEntry, bench
from runtimes.bundle import Bundle, open_bundle
from runtimes.errors import InputError
from runtimes.load import choose

LOCAL = "local"


def measure_bundle(
    path: Path,
    reference: Path | None,
    data: str | None,
    variants: list[str] | None,
    config: BenchConfig,
    on: Sequence[str] = (LOCAL,),
) -> list[dict[str, Any]]:
    """One interleaved run a device of the named variants (default: all); here the reference beside them.

    Several devices run at once, each in a thread of its own; all have to succeed.
    """
    bundle = open_bundle(path)
    texts, labels = _sample(bundle, data)
    if tuple(on) == (LOCAL,):
        return _here(path, bundle, reference, variants, texts, labels, config)
    if reference is not None:
        raise InputError("bench: --reference runs PyTorch, which is on this machine only; leave out --on")
    from device_bench.devices import reach
    from device_bench.remote import bench_on

    def measured(address: str) -> list[dict[str, Any]]:
        with reach(address) as device:
            return bench_on(device, bundle, variants, texts, labels, config)

    return [row for rows in _at_once(measured, on) for row in rows]


def _here(
    path: Path,
    bundle: Bundle,
    reference: Path | None,
    variants: list[str] | None,
    texts: list[str],
    labels: list[int] | None,
    config: BenchConfig,
) -> list[dict[str, Any]]:
    names = [choose(bundle, variant=name) for name in variants] if variants else list(bundle.variants)
    entries = {"checkpoint pytorch-fp32": BenchEntry(reference)} if reference else {}
    entries |= {name: BenchEntry(path, variant=name) for name in names}
    return bench(entries, texts, labels, config)


def check_on(path: Path, on: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Device → what `export.gate.check` gives, of the golden texts answered there. Raises GateError."""
    from device_bench.devices import reach
    from device_bench.remote import answers_on
    from export.gate import check_answers

    bundle = open_bundle(path)
    texts = [str(text) for text in bundle.golden()["texts"]]

    def checked(address: str) -> dict[str, Any]:
        with reach(address) as device:
            return check_answers(bundle, answers_on(device, bundle, None, texts))

    return dict(zip(on, _at_once(checked, on), strict=True))


def _at_once(work: Callable[[str], Any], on: Sequence[str]) -> list[Any]:
    """Every device to its end, so that each is cleaned up; then the first error, if there was one."""
    if len(set(on)) != len(on):
        raise InputError("a device is named twice")
    if len(on) == 1:
        return [work(on[0])]  # in this thread, which is the one that Ctrl-C interrupts
    with ThreadPoolExecutor(len(on)) as pool:
        return [one.result() for one in [pool.submit(work, address) for address in on]]


def _sample(bundle: Bundle, data: str | None) -> tuple[list[str], list[int] | None]:
    """Labelled rows where they are given, else the golden texts without labels."""
    if data is None:
        return [str(text) for text in bundle.golden()["texts"]], None
    from apps.rows import test_rows

    test = test_rows(data, bundle.labels).splits["test"]
    return test.texts, test.labels
