"""What each part of a classifier costs: parameters, bytes on disk, FLOPs, and time measured with hooks."""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.parts import KINDS, Part, bytes_on_disk, flops, modules, parameters, parts_of, share_out
from runtimes.errors import InputError
from trainers.checkpoint import Checkpoint

if TYPE_CHECKING:
    import numpy as np

COSTS = ("parameters", "bytes", "flops", "ms")
RESAMPLES = 200


@dataclass(frozen=True)
class AnalyseConfig:
    """`texts` are timed, one at a time at their own lengths, in each of `rounds`; `threads` for torch. `rows`
    is the most rows that the sensitivity is measured on."""

    texts: int = 32
    rounds: int = 15
    threads: int = 1
    rows: int = 512
    seed: int = 0


def check_analyse(config: AnalyseConfig) -> None:
    """InputError for a value that cannot work."""
    for key in ("texts", "rounds", "threads", "rows"):
        if getattr(config, key) < 1:
            raise InputError(f"analyse.{key} = {getattr(config, key)}: must be 1 or more")


@dataclass(frozen=True)
class Times:
    """Milliseconds, float64 (rounds, texts): the whole without and with hooks, and each part with them."""

    plain: "np.ndarray"
    hooked: "np.ndarray"
    parts: "dict[str, np.ndarray]"


def costs(
    checkpoint: Checkpoint,
    texts: Sequence[str],
    config: AnalyseConfig | None = None,
    weights: Path | None = None,
) -> dict[str, Any]:
    """Tables of what the parts and the modules cost, and of the whole (schema: docs/analysis.md).

    FLOPs are means over the lengths of the timed texts, the first `config.texts` of `texts`. Bytes are those
    of the files in `weights` (None: the checkpoint's own). Raises InputError for no texts or an architecture
    that is not supported.
    """
    from trainers.model import open_model, open_tokenizer

    config = config or AnalyseConfig()
    check_analyse(config)
    if not texts:
        raise InputError("analyse: no texts to time; give rows with --data")
    model = open_model(checkpoint.path).eval()
    parts = parts_of(model, checkpoint.path)
    tokenizer = open_tokenizer(checkpoint.path, checkpoint.limits["max_tokens"])
    ids = tokenizer.encode(list(texts[: config.texts]))
    times = time_parts(model, parts, ids, tokenizer.pad_id, config)
    lengths = [len(one) for one in ids]
    sizes, unused = share_out(parts, bytes_on_disk(weights or checkpoint.path))
    rows = [_row(model, part, lengths, sizes[part.name], times) for part in parts]
    whole = {key: sum(row[key] for row in rows) for key in ("parameters", "bytes", "flops")}
    whole |= {**_median(times.hooked), "plain_ms": _median(times.plain)["ms"]}
    rest = whole["ms"] - sum(row["ms"] for row in rows)
    for row in rows:
        row["share"] = {key: row[key] / whole[key] if whole[key] else 0.0 for key in COSTS}
    return {
        "model_type": model.config.model_type,
        "whole": whole,
        "parts": rows,
        "kinds": [_kind(kind, rows) for kind in KINDS],
        "rest": {"ms": rest, "share": rest / whole["ms"], "bytes": unused},
        "hooks_ms": whole["ms"] - whole["plain_ms"],
        "sample": {"n": len(ids), "tokens_mean": sum(lengths) / len(ids), "tokens_max": max(lengths)},
        "threads": config.threads,
        "batch": 1,
        "rounds": config.rounds,
    }


def _row(model: Any, part: Part, lengths: list[int], size: int, times: Times) -> dict[str, Any]:
    mean = sum(flops(model, part, tokens) for tokens in lengths) / len(lengths)
    took = _median(times.parts[part.name])
    return {
        "name": part.name,
        "kind": part.kind,
        "layer": part.layer,
        "parameters": parameters(model, part),
        "bytes": size,
        "flops": mean,
        **took,
        "gflops_per_second": mean / took["ms"] / 1e6 if took["ms"] else None,
        "modules": modules(model, part, round(sum(lengths) / len(lengths))),
    }


def _kind(kind: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    mine = [row for row in rows if row["kind"] == kind]
    total = {key: sum(row[key] for row in mine) for key in COSTS}
    return {"kind": kind, **total, "share": {key: sum(row["share"][key] for row in mine) for key in COSTS}}


def _median(samples: "np.ndarray") -> dict[str, Any]:
    """The median over the rounds of each text, a mean over the texts; ci95 by drawing whole rounds again."""
    import numpy as np

    def middle(rows: Any) -> float:
        return float(np.median(samples[rows], axis=0).mean())

    draw, count = np.random.default_rng(0), len(samples)
    values = [middle(draw.integers(0, count, count)) for _ in range(RESAMPLES)]
    low, high = np.percentile(values, [2.5, 97.5])
    return {"ms": middle(slice(None)), "ci95": [float(low), float(high)]}


def time_parts(
    model: Any, parts: Sequence[Part], ids: Sequence[Sequence[int]], pad_id: int, config: AnalyseConfig
) -> Times:
    """Times of the parts at batch 1 without padding; tokenization is not included.

    In each round every text, in a new random order, runs once with hooks and once without, the one that goes
    first drawn by lot: so what the hooks cost can be told, and a busy moment hits both.
    """
    import numpy as np
    import torch
    from tqdm import tqdm

    inputs, threads = _inputs(model, ids, pad_id), torch.get_num_threads()
    draw, shape = random.Random(config.seed), (config.rounds, len(inputs))
    whole = {True: np.zeros(shape), False: np.zeros(shape)}
    by_part = {part.name: np.zeros(shape) for part in parts}
    torch.set_num_threads(config.threads)
    try:
        with torch.inference_mode():
            for one in inputs:  # warm-up: each length once
                model(**one)
            for turn in tqdm(range(config.rounds), desc="time", unit="round", disable=None):
                for text in draw.sample(range(len(inputs)), len(inputs)):
                    for hooked in draw.sample([True, False], 2):
                        took, sums = _timed(model, inputs[text], parts if hooked else [])
                        whole[hooked][turn, text] = took
                        for name, value in sums.items():
                            by_part[name][turn, text] = value
    finally:
        torch.set_num_threads(threads)
    return Times(whole[False], whole[True], by_part)


def _inputs(model: Any, ids: Sequence[Sequence[int]], pad_id: int) -> list[dict[str, Any]]:
    import torch

    from runtimes.text import pad
    from trainers.fit import input_names

    names = input_names(model)
    rows = [pad([list(one)], len(one), pad_id) for one in ids]
    return [{name: torch.from_numpy(value) for name, value in row.items() if name in names} for row in rows]


def _timed(model: Any, inputs: dict[str, Any], parts: Sequence[Part]) -> tuple[float, dict[str, float]]:
    """Milliseconds of one forward pass, and of each of `parts` in it."""
    sums = {part.name: 0.0 for part in parts}
    with _clocks(model, parts, sums):
        started = time.perf_counter()
        model(**inputs)
        return (time.perf_counter() - started) * 1000, sums


@contextmanager
def _clocks(model: Any, parts: Sequence[Part], sums: dict[str, float]) -> Iterator[None]:
    hooks, started = [], 0.0

    def start(*_: Any) -> None:
        nonlocal started  # one is enough: the modules of all parts are disjoint and run one after another
        started = time.perf_counter()

    def stop(name: str) -> Any:
        def add(*_: Any) -> None:
            sums[name] += (time.perf_counter() - started) * 1000

        return add

    for part in parts:
        for path in part.modules:
            module = model.get_submodule(path)
            hooks += [module.register_forward_pre_hook(start), module.register_forward_hook(stop(part.name))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
