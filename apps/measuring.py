"""A bundle, and perhaps its checkpoint, → bench rows."""

from pathlib import Path
from typing import Any

from device_bench.bench import BenchConfig, BenchEntry, bench
from runtimes.bundle import Bundle, open_bundle
from runtimes.load import choose


def measure_bundle(
    path: Path,
    reference: Path | None,
    data: str | None,
    variants: list[str] | None,
    threads: int,
    quick: bool,
) -> list[dict[str, Any]]:
    """One interleaved run of the named variants (default: all) and the reference checkpoint."""
    bundle = open_bundle(path)
    names = [choose(bundle, variant=name) for name in variants] if variants else list(bundle.variants)
    entries = {"checkpoint pytorch-fp32": BenchEntry(reference)} if reference else {}
    entries |= {name: BenchEntry(path, variant=name) for name in names}
    texts, labels = _sample(bundle, data)
    return bench(entries, texts, labels, BenchConfig(threads=threads, quick=quick))


def _sample(bundle: Bundle, data: str | None) -> tuple[list[str], list[int] | None]:
    """Labelled rows where they are given, else the golden texts without labels."""
    if data is None:
        return [str(text) for text in bundle.golden()["texts"]], None
    from apps.rows import test_rows

    test = test_rows(data, bundle.labels).splits["test"]
    return test.texts, test.labels
