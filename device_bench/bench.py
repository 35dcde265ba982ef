"""The bench on this machine: entries and a sample of texts → bench rows."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from device_bench import cold, machine, measure, quality, statistics
from device_bench.rows import EXTRA_KEYS, KEYS
from runtimes.errors import EdgewiseError, EngineError, InputError

HARNESS = "empty call"
QUICK_ROUNDS, QUICK_SECONDS, QUICK_COLD_STARTS = 200, 5.0, 2
BUSY = 0.9


@dataclass(frozen=True)
class BenchEntry:
    """One model of a run: a bundle (engine or variant chosen, or its default) or a checkpoint folder."""

    path: Path
    engine: str | None = None
    variant: str | None = None


@dataclass(frozen=True)
class BenchConfig:
    """How long and how. `seconds` and `rounds` are per entry and tokenization: the first reached ends it.

    `quick` puts 200 rounds, 5 s and 2 cold starts in their place, and every row says so.
    """

    threads: int = 1
    rounds: int = 1024
    seconds: float = 60.0
    cold_starts: int = 5
    quick: bool = False
    seed: int = 0
    tokenization: tuple[bool, ...] = (True, False)


@dataclass(frozen=True)
class _Opened:
    model: Any
    about: dict[str, Any]
    size: int
    tokenizer_size: int
    default: bool | None
    golden: dict[str, np.ndarray] | None


def bench(
    entries: dict[str, BenchEntry],
    texts: Sequence[str],
    labels: Sequence[int] | None,
    config: BenchConfig | None = None,
    metrics: dict[str, dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Measures all entries in one interleaved run on `texts` (batch 1); one row per entry and tokenization.

    Accuracy is that of the very variant on (texts, labels), label indices; None leaves it null, unless
    `metrics` holds what was measured before of that very variant, by the entry's name. The entry on
    engine "torch", if there is one, is the reference of `ratio_to`. Rows follow `device_bench.rows`. An entry
    that cannot be measured raises: InputError, BundleError or EngineError, with its name in front.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    config = effective(config or BenchConfig())
    if machine.emulated():  # times will not be told: one round shows that each variant runs
        config = replace(config, rounds=1, cold_starts=1)
    if not entries:
        raise InputError("bench: nothing to measure; name a bundle or a checkpoint")
    opened = {name: _open(name, entry, config.threads) for name, entry in entries.items()}
    _check_same_labels(opened)
    quality.check_labels(texts, labels, next(iter(opened.values())).model.labels)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    known = metrics or {}
    judged = {name: _judge(name, one, texts, labels, known.get(name)) for name, one in opened.items()}
    device = machine.describe()
    order = np.random.default_rng(config.seed).permutation(len(texts))
    mixed = [texts[position] for position in order]
    timings = _time_all(opened, mixed[: config.rounds], config)
    colds = {name: _cold(name, entry, mixed, config) for name, entry in entries.items()}
    reference = next((name for name, one in opened.items() if one.about["engine"] == "torch"), None)
    common = {"device": device, "emulated": machine.emulated(), "started": started, "sample": _sample(texts)}
    rows = []
    for name, one in opened.items():
        for tokenized in config.tokenization:
            timed = _timed(timings, name, tokenized, config)
            timed["ratio_to"] = _ratio(reference, name, tokenized, opened, timings, config.seed)
            rows.append(_row(name, one, judged[name], colds[name], timed, common, config))
    return rows


def effective(config: BenchConfig) -> BenchConfig:
    """The config with what `quick` stands for put in. Raises InputError for a value that cannot work."""
    if not config.tokenization or min(config.rounds, config.seconds, config.cold_starts, config.threads) <= 0:
        raise InputError(
            "bench: threads, rounds, seconds, cold_starts and tokenization must not be zero or empty"
        )
    if not config.quick:
        return config
    return BenchConfig(
        threads=config.threads,
        rounds=min(config.rounds, QUICK_ROUNDS),
        seconds=min(config.seconds, QUICK_SECONDS),
        cold_starts=min(config.cold_starts, QUICK_COLD_STARTS),
        quick=True,
        seed=config.seed,
        tokenization=config.tokenization,
    )


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Puts the entry's name in front of what goes wrong with it."""
    try:
        yield
    except EdgewiseError as error:
        raise type(error)(f"{name}: {error}") from error
    except Exception as error:
        line = measure.first_line(error)
        raise EngineError(f"{name}: failed in the bench: {line}; --debug shows where") from error


def _open(name: str, entry: BenchEntry, threads: int) -> _Opened:
    from runtimes.bundle import open_bundle
    from runtimes.load import load

    with _named(name):
        model = load(entry.path, engine=entry.engine, variant=entry.variant, threads=threads)
        about = model.describe()
        if about["engine"] == "torch":
            weights = [*entry.path.glob("*.safetensors"), *entry.path.glob("*.bin")]
            size = sum(file.stat().st_size for file in weights)
            return _Opened(model, about, size, (entry.path / "tokenizer.json").stat().st_size, None, None)
        bundle = open_bundle(entry.path)
        variant = bundle.variants[about["variant"]]
        default = bundle.defaults.get("*") == about["variant"]
        tokenizer = len(bundle.read("tokenizer.json"))
        return _Opened(model, about, variant["size_bytes"], tokenizer, default, bundle.golden())


def _check_same_labels(opened: dict[str, _Opened]) -> None:
    first = next(iter(opened))
    for name, one in opened.items():
        if list(one.model.labels) != list(opened[first].model.labels):
            raise InputError(f"bench: {name} and {first} have different labels; bench one task at a time")


def _judge(
    name: str,
    one: _Opened,
    texts: Sequence[str],
    labels: Sequence[int] | None,
    metric: dict[str, Any] | None,
) -> dict[str, Any]:
    """metric and parity, with the reasons where they are null."""
    parity = None
    notes = []
    with _named(name):
        if metric is None and labels is None:
            notes.append("accuracy: the texts have no labels")
        elif metric is None and labels is not None:
            metric = quality.accuracy(quality.finite_logits(one.model, texts), labels)
        if one.golden is None:
            notes.append("parity: this is the checkpoint itself")
        else:
            golden_texts = [str(text) for text in one.golden["texts"]]
            parity = quality.parity(quality.finite_logits(one.model, golden_texts), one.golden["logits"])
    return {"metric": metric, "parity": parity, "notes": notes}


def _key(name: str, tokenized: bool) -> str:
    return f"{name} {'with' if tokenized else 'without'} tokenization"


def _time_all(opened: dict[str, _Opened], texts: Sequence[str], config: BenchConfig) -> measure.Timings:
    calls: dict[str, Callable[[int], object]] = {}
    for name, one in opened.items():
        with _named(name):
            if True in config.tokenization:
                calls[_key(name, True)] = _call_with(one.model, texts)
            if False in config.tokenization:
                calls[_key(name, False)] = _call_without(one.model, texts)
    total = config.seconds * len(calls)
    calls[HARNESS] = lambda position: None
    with _progress("bench: rounds", config.rounds) as step:
        return measure.interleave(calls, len(texts), config.rounds, total, seed=config.seed, progress=step)


def _call_with(model: Any, texts: Sequence[str]) -> Callable[[int], object]:
    return lambda position: model(texts[position])


def _call_without(model: Any, texts: Sequence[str]) -> Callable[[int], object]:
    prepared = [model.prepare([text]) for text in texts]
    return lambda position: model.run(prepared[position])


def _cold(name: str, entry: BenchEntry, texts: Sequence[str], config: BenchConfig) -> cold.ColdStart:
    request = {
        "path": str(Path(entry.path).resolve()),
        "engine": entry.engine,
        "variant": entry.variant,
        "threads": config.threads,
        "texts": cold.sample(texts),
    }
    with _progress(f"bench: cold start of {name}", 1) as step:
        started = cold.cold_start(name, request, config.cold_starts)
        step()
    return started


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[], object]]:
    """A bar on standard error; one plain line where that is no terminal."""
    if not sys.stderr.isatty():
        print(what, file=sys.stderr, flush=True)
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit="", leave=False) as bar:
        yield bar.update


def _sample(texts: Sequence[str]) -> dict[str, int]:
    lengths = [len(text) for text in texts]
    return {"n": len(texts), "chars_p50": int(np.median(lengths)), "chars_max": max(lengths)}


def _ms(timings: measure.Timings, key: str) -> npt.NDArray[np.float64]:
    return timings.ns[key] / 1e6


def _ratio(
    reference: str | None,
    name: str,
    tokenized: bool,
    opened: dict[str, _Opened],
    timings: measure.Timings,
    seed: int,
) -> dict[str, Any] | None:
    if reference is None:
        return None
    theirs, ours = _ms(timings, _key(reference, tokenized)), _ms(timings, _key(name, tokenized))
    speed, low, high = statistics.ratio_of_medians(theirs, ours, seed)
    size = opened[reference].size / opened[name].size if opened[name].size else None
    return {"entry": reference, "speed": speed, "ci95": [low, high], "size": size}


def _timed(timings: measure.Timings, name: str, tokenized: bool, config: BenchConfig) -> dict[str, Any]:
    """What the samples of one callable say, with remarks that a reader of the figures needs."""
    samples = _ms(timings, _key(name, tokenized))
    notes = []
    if config.quick:
        notes.append(f"quick: {len(samples)} rounds; for figures to quote, bench without --quick")
    if len(samples) < 100:
        notes.append(f"p99: from {len(samples)} rounds only, so close to the slowest one")
    if config.threads == 1 and timings.cpu_share < BUSY:
        notes.append(
            f"busy machine: this process had the processor for {timings.cpu_share:.0%} of the run, "
            "so latencies are too high"
        )
    return {
        "tokenization": tokenized,
        "n": len(samples),
        "seconds": float(samples.sum() / 1e3),
        "latency_ms": statistics.summarise(samples, config.seed),
        "outliers": statistics.outliers(samples),
        "overhead_ms": float(np.median(_ms(timings, HARNESS))),
        "notes": notes,
    }


def _row(
    name: str,
    one: _Opened,
    judged: dict[str, Any],
    started: cold.ColdStart,
    timed: dict[str, Any],
    common: dict[str, Any],
    config: BenchConfig,
) -> dict[str, Any]:
    about = one.about
    values = {
        **{key: about[key] for key in ("bundle", "variant", "engine", "engine_version", "threads")},
        **{key: about[key] for key in ("precision", "providers")},
        **common,
        **timed,
        "simulated_profile": None, "batch": 1,
        "cold_start_ms": started.ms, "peak_rss_mb": started.peak_rss_mb, "size_bytes": one.size,
        "metric": judged["metric"], "parity": judged["parity"], "energy_mj": None, "energy_source": None,
        "note": "; ".join([*timed["notes"], *judged["notes"], "energy: no sensor is read on this machine"]),
        "entry": name, "default": one.default, "quick": config.quick, "tokenizer_bytes": one.tokenizer_size,
        "versions": _versions(about),
    }  # fmt: skip
    distorted = _distorted(about, common["emulated"])
    if distorted:
        unknown = dict.fromkeys(("latency_ms", "cold_start_ms", "peak_rss_mb", "outliers", "ratio_to"))
        values |= unknown | {"note": f"{distorted}: times and memory are not reported; {values['note']}"}
    return {key: values[key] for key in (*KEYS, *EXTRA_KEYS)}


def _distorted(about: dict[str, Any], emulated: bool) -> str | None:
    """Why the times say nothing about the device, if they do not."""
    if emulated:
        return "emulated"
    if about.get("elsewhere"):
        return f"{about['engine']} ran in another process, behind a pipe (bench in its environment)"
    return None


def _versions(about: dict[str, Any]) -> dict[str, str]:
    found = {"python": platform.python_version(), about["engine"]: str(about["engine_version"])}
    for package in ("edgewise", "numpy", "tokenizers"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # pushed to a device as plain files
    return found
