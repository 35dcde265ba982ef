"""The bench on this machine: entries and a sample of texts → bench rows."""

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from device_bench import cold, energy, machine, measure, meters, pace, quality, result, sustained
from device_bench.heat import LIMIT_S, Cooling
from device_bench.result import HARNESS, key_of
from runtimes.bundle import NUMBERS
from runtimes.errors import EdgewiseError, EngineError, InputError
from runtimes.generation import TASK as GENERATION
from runtimes.golden import inputs_of, outputs_of
from runtimes.tasks.generate import BENCH_TOKENS

QUICK_ROUNDS, QUICK_SECONDS, QUICK_COLD_STARTS, QUICK_COOLING = 200, 5.0, 2, 10.0
RERUN_PART = 4

Calls = dict[str, Callable[[int], object]]


@dataclass(frozen=True)
class BenchEntry:
    """One model of a run: a bundle (engine or variant chosen, or its default) or a checkpoint folder."""

    path: Path
    engine: str | None = None
    variant: str | None = None


@dataclass(frozen=True)
class BenchConfig:
    """How long and how. `seconds` and `rounds` are per entry and tokenization: the first reached ends it.

    `quick` puts 200 rounds, 5 s and 2 cold starts in their place, and every row says so. `sustained` are
    minutes of answers without pause, after all else.
    """

    threads: int = 1
    rounds: int = 1024
    seconds: float = 60.0
    cold_starts: int = 5
    quick: bool = False
    seed: int = 0
    tokenization: tuple[bool, ...] = (True, False)
    sustained: float = 0.0


@dataclass(frozen=True)
class _Opened:
    model: Any
    about: dict[str, Any]
    size: int
    tokenizer_size: int | None
    default: bool | None
    golden: dict[str, np.ndarray] | None


def bench(
    entries: dict[str, BenchEntry],
    texts: Sequence[Any],
    labels: Sequence[Any] | None,
    config: BenchConfig | None = None,
    metrics: dict[str, dict[str, Any]] | None = None,
    profile: str | None = None,
) -> list[dict[str, Any]]:
    """Measures all entries in one interleaved run on `texts` (batch 1); one row per entry and tokenization.

    `texts` are what the task takes: texts, (question, passage), or windows. The metric is that of the very
    variant on (texts, labels), label indices or the right answers of each; None leaves it null, unless
    `metrics` holds what was measured before of that very variant, by the entry's name. The entry on engine
    "torch", if there is one, is the reference of `ratio_to`. `profile` names the limits under which this
    process runs (`device_bench.devices.profiles`), if it does. Rows follow `device_bench.rows`. An entry that
    cannot be measured raises: InputError, BundleError or EngineError, with its name in front.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    config = effective(config or BenchConfig())
    if machine.emulated():  # times will not be told: one round shows that each variant runs
        config = replace(config, rounds=1, sustained=0.0)
    if not entries:
        raise InputError("bench: nothing to measure; name a bundle or a checkpoint")
    opened = {name: _open(name, entry, config.threads) for name, entry in entries.items()}
    _check_same_labels(opened)
    quality.check_truths(texts, labels, getattr(next(iter(opened.values())).model, "labels", None))
    common = _common(texts, config, profile)
    cooling = Cooling(QUICK_COOLING if config.quick else LIMIT_S)
    known = metrics or {}
    judged = {name: _judge(name, one, texts, labels, known.get(name)) for name, one in opened.items()}
    order = np.random.default_rng(config.seed).permutation(len(texts))
    mixed = [texts[position] for position in order]
    loop = mixed[: config.rounds]
    calls = _calls(opened, loop, config)
    timings, again = _loops(calls, len(loop), config, cooling)
    colds = {name: _cold(name, entry, mixed, config) for name, entry in entries.items()}
    beside = {
        name: _beside(name, one, calls, len(loop), config, cooling, profile) for name, one in opened.items()
    }
    speeds = _paces(opened, loop, config, cooling)
    reference = next((name for name, one in opened.items() if one.about["engine"] == "torch"), None)
    rows = []
    for name, one in opened.items():
        for tokenized in config.tokenization:
            size = (opened[reference or name].size, one.size)
            values = {
                **common, **_known(name, one, judged[name], colds[name]), "tokenization": tokenized,
                **result.timed(key_of(name, tokenized), timings, again, len(loop), config.seed),
                "ratio_to": result.ratio(reference, name, tokenized, timings, size, config.seed),
                **_of_row(beside[name], tokenized, config), "generation": speeds.get(name),
            }  # fmt: skip
            notes = [
                *judged[name]["notes"],
                pace.told(speeds[name]) if name in speeds else "",
                values.pop("energy_note"),
                cooling.told(),
            ]
            rows.append(result.row(values, timings.cpu_share, notes, _distorted(one.about)))
    return rows


def _loops(
    calls: Calls, inputs: int, config: BenchConfig, cooling: Cooling
) -> tuple[measure.Timings, measure.Timings | None]:
    """The loop and, where times mean something, a second, shorter one in another order to hold it against."""
    cooling.before("the loop")
    timings = _time_all(calls, inputs, config, "rounds")
    if machine.emulated():
        return timings, None
    cooling.before("the rerun")
    rounds, seconds = math.ceil(config.rounds / RERUN_PART), config.seconds / RERUN_PART
    shorter = replace(config, rounds=rounds, seconds=seconds, seed=config.seed + 1)
    return timings, _time_all(calls, inputs, shorter, "rounds of the rerun")


def _common(texts: Sequence[Any], config: BenchConfig, profile: str | None) -> dict[str, Any]:
    """What all rows of a run share."""
    return {
        "device": machine.describe(), "emulated": machine.emulated(), "sample": result.sample(texts),
        "started": datetime.now(UTC).isoformat(timespec="seconds"), "batch": 1, "quick": config.quick,
        "simulated_profile": profile,
    }  # fmt: skip


def _paces(
    opened: dict[str, _Opened], texts: list[Any], config: BenchConfig, cooling: Cooling
) -> dict[str, dict[str, Any]]:
    """The pace of generators, where times mean something."""
    models = {name: one.model for name, one in opened.items() if one.about["task"] == GENERATION}
    if not models or machine.emulated():
        return {}
    cooling.before("the pace")
    with _progress("bench: pace", 1):
        return pace.paces(models, texts, config.quick, config.seed)


def effective(config: BenchConfig) -> BenchConfig:
    """The config with what `quick` stands for put in. Raises InputError for a value that cannot work."""
    if not config.tokenization or min(config.rounds, config.seconds, config.cold_starts, config.threads) <= 0:
        raise InputError(
            "bench: threads, rounds, seconds, cold_starts and tokenization must not be zero or empty"
        )
    if not 0 <= config.sustained <= sustained.MAX_MINUTES:
        raise InputError(f"bench: sustained takes 0 to {sustained.MAX_MINUTES:g} minutes")
    if not config.quick:
        return config
    return replace(
        config,
        rounds=min(config.rounds, QUICK_ROUNDS),
        seconds=min(config.seconds, QUICK_SECONDS),
        cold_starts=min(config.cold_starts, QUICK_COLD_STARTS),
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
            tokenizer = entry.path / "tokenizer.json"  # a detector has none
            told = tokenizer.stat().st_size if tokenizer.is_file() else None
            return _Opened(model, about, size, told, None, None)
        bundle = open_bundle(entry.path)
        variant = bundle.variants[about["variant"]]
        default = bundle.defaults.get("*") == about["variant"]
        told = None if bundle.task == NUMBERS else len(bundle.read("tokenizer.json"))
        return _Opened(model, about, variant["size_bytes"], told, default, bundle.golden())


def _check_same_labels(opened: dict[str, _Opened]) -> None:
    first = next(iter(opened))
    for name, one in opened.items():
        if _kind(one) != _kind(opened[first]):
            raise InputError(f"bench: {name} and {first} have different labels; bench one task at a time")


def _kind(one: _Opened) -> tuple[Any, ...]:
    return one.about["task"], *getattr(one.model, "labels", ())


def _judge(
    name: str,
    one: _Opened,
    texts: Sequence[Any],
    labels: Sequence[Any] | None,
    metric: dict[str, Any] | None,
) -> dict[str, Any]:
    """metric and parity, with the reasons where they are null."""
    parity = None
    notes = []
    with _named(name):
        if one.about["task"] == GENERATION:
            notes.append("accuracy: an answer is neither right nor wrong (parity.json has its perplexity)")
            notes.append(f"an answer is {BENCH_TOKENS} tokens, whether it would end before or not")
        elif metric is None and labels is None:
            notes.append(
                f"accuracy: the {'windows' if one.about['task'] == NUMBERS else 'texts'} have no labels"
            )
        elif metric is None and labels is not None:
            metric = one.model.metric(texts, quality.finite_outputs(one.model, texts), labels)
        if one.golden is None:
            notes.append("parity: this is the checkpoint itself")
        else:
            inputs, wanted = inputs_of(one.golden), outputs_of(one.golden)
            parity = quality.parity(one.model, inputs, quality.finite_outputs(one.model, inputs), wanted)
        if one.about["task"] == NUMBERS:
            patch = one.model.limits["patch"]
            notes.append(f"a window is asked about once in {patch} points: a point takes p50 / {patch}")
    return {"metric": metric, "parity": parity, "notes": notes}


def _calls(opened: dict[str, _Opened], texts: Sequence[Any], config: BenchConfig) -> Calls:
    calls: Calls = {}
    for name, one in opened.items():
        with _named(name):
            if True in config.tokenization:
                calls[key_of(name, True)] = _call_with(one.model, texts)
            if False in config.tokenization:
                calls[key_of(name, False)] = _call_without(one.model, texts)
    return calls


def _time_all(calls: Calls, inputs: int, config: BenchConfig, what: str) -> measure.Timings:
    total = config.seconds * len(calls)
    everything = {**calls, HARNESS: lambda position: None}
    with _progress(f"bench: {what}", config.rounds) as step:
        return measure.interleave(everything, inputs, config.rounds, total, seed=config.seed, progress=step)


def _call_with(model: Any, texts: Sequence[Any]) -> Callable[[int], object]:
    return lambda position: model.answers([texts[position]])


def _call_without(model: Any, texts: Sequence[Any]) -> Callable[[int], object]:
    prepared = [model.prepare([text]) for text in texts]
    return lambda position: model.run(prepared[position])


def _cold(name: str, entry: BenchEntry, texts: Sequence[Any], config: BenchConfig) -> cold.ColdStart:
    if machine.emulated():
        return cold.UNTOLD
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


def _beside(
    name: str,
    one: _Opened,
    calls: Calls,
    inputs: int,
    config: BenchConfig,
    cooling: Cooling,
    profile: str | None,
) -> dict[str, Any]:
    """What is measured of an entry by itself: energy of an answer, and answers for minutes."""
    call = calls[key_of(name, True in config.tokenization)]
    found: dict[str, Any] = dict.fromkeys(("energy_mj", "energy_source", "energy", "sustained"))
    meter, reason = _meter(one, profile)
    with _named(name):
        if meter is not None:
            cooling.before(f"the energy of {name}")
            with _progress(f"bench: energy of {name}", 1):
                told = energy.measure(meter, call, inputs)
            reason = told.reason
            block = {key: getattr(told, key) for key in ("idle_mw", "run_mw", "n", "seconds")}
            if not reason:
                found |= {"energy_mj": told.mj, "energy_source": meter.source, "energy": block}
        if config.sustained and not _distorted(one.about):
            cooling.before(f"the sustained run of {name}")
            with _progress(
                f"bench: {name} for {config.sustained:g} min", sustained.slices_of(config.sustained)
            ) as step:
                found["sustained"] = sustained.sustain(call, inputs, config.sustained, progress=step)
    return {**found, "energy_note": f"energy: {reason}" if reason else ""}


def _meter(one: _Opened, profile: str | None) -> tuple[meters.Meter | None, str]:
    if profile:
        return None, "not measured, as what this machine draws says nothing of the simulated one"
    if _distorted(one.about):
        return None, "not measured"
    return meters.find()


def _of_row(beside: dict[str, Any], tokenized: bool, config: BenchConfig) -> dict[str, Any]:
    """Energy and the sustained run are those of whole answers, so they stand in one row of an entry."""
    if tokenized == (True in config.tokenization):
        return beside
    note = beside["energy_note"] or "energy: see the row with tokenization"
    return {**dict.fromkeys(beside), "energy_note": note}


def _known(name: str, one: _Opened, judged: dict[str, Any], started: cold.ColdStart) -> dict[str, Any]:
    """The keys of a row that both of an entry's rows share."""
    keys = ("bundle", "variant", "engine", "engine_version", "threads", "precision", "providers")
    memory = {"load": started.load_mb, "run": started.run_mb}
    return {
        **{key: one.about[key] for key in keys},
        "cold_start_ms": started.ms, "peak_rss_mb": started.peak_rss_mb, "size_bytes": one.size,
        "rss_mb": None if None in memory.values() else memory,
        "metric": judged["metric"], "parity": judged["parity"],
        "entry": name, "default": one.default, "tokenizer_bytes": one.tokenizer_size,
    }  # fmt: skip


def _distorted(about: dict[str, Any]) -> str | None:
    """Why the times say nothing about the device, if they do not."""
    if machine.emulated():
        return "emulated"
    if about.get("elsewhere"):
        return f"{about['engine']} ran in another process, behind a pipe (bench in its environment)"
    return None
