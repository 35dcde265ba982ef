"""How well and how fast a reader reads: `python -m apps.answers.benchmark` after `edgewise build`.

Exact match and F1 with 95% intervals on the held-out articles, and one interleaved run of the checkpoint in
PyTorch eager, every variant, and Optimum's own int8 of the same checkpoint. Optimum's graph is asked through
the reader's own windows and spans, which spares it the overhead of a pipeline.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps.flow import build
from apps.recipe import read_recipe
from device_bench import machine, measure, statistics
from runtimes import engines
from runtimes.bundle import open_bundle
from runtimes.files import writing
from runtimes.load import load
from runtimes.tasks import answer
from runtimes.text import Tokenizer
from trainers.checkpoint import open_checkpoint
from trainers.reader import readings, report
from trainers.squad import Question, open_questions

RECIPE = Path(__file__).with_name("recipe.toml")
ROUNDS = 256
EAGER, OPTIMUM = "PyTorch eager fp32", "Optimum dynamic int8"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    paths = build(read_recipe(options.recipe), options.runs, until="packed")
    last = next(paths[name] for name in ("qat", "student", "pruned", "teacher") if name in paths)
    test = open_questions(paths["data"]).splits["test"]
    models = opened(last, paths["packed"])
    times = timed(models, test, options.rounds)
    print(f"{machine.describe()['soc']}, one thread, batch 1, {options.rounds} rounds, n = {len(test)}\n")
    print("| reader | exact match | F1 | answerable F1 | rightly silent | p50 ms | times as fast | MB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, (model, size) in models.items():
        # What computes in fp32 gives the checkpoint's own answers: the gate has compared them.
        same = name == EAGER or name.endswith("-fp32")
        told = open_checkpoint(last).meta["metrics"]["test"] if same else figures(model, test)
        print(_line(name, told, times[name], times[EAGER], size))


def opened(checkpoint: Path, packed: Path) -> dict[str, tuple[Any, int]]:
    """Name → (reader, bytes of its file): the checkpoint, the variants, and Optimum's int8."""
    size = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    found: dict[str, tuple[Any, int]] = {EAGER: (load(checkpoint, threads=1), size)}
    for name, about in open_bundle(packed).variants.items():
        found[name] = load(packed, variant=name, threads=1), about["size_bytes"]
    graph = optimum_int8(checkpoint)
    found[OPTIMUM] = _reader_of(graph, checkpoint), graph.stat().st_size
    return found


def optimum_int8(checkpoint: Path) -> Path:
    """Optimum's export of the checkpoint, quantized by its ORTQuantizer for AVX-512 VNNI; kept beside it."""
    folder = checkpoint.with_name(f"optimum-{checkpoint.name}")
    if not folder.exists():
        from optimum.onnxruntime import ORTModelForQuestionAnswering, ORTQuantizer
        from optimum.onnxruntime.configuration import AutoQuantizationConfig

        with writing(folder) as new:
            ORTModelForQuestionAnswering.from_pretrained(
                checkpoint, export=True, local_files_only=True
            ).save_pretrained(new)
            config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False)
            ORTQuantizer.from_pretrained(new).quantize(save_dir=new, quantization_config=config)
    return folder / "model_quantized.onnx"


def _reader_of(graph: Path, checkpoint: Path) -> Any:
    told = open_checkpoint(checkpoint)
    tokenizer = Tokenizer.from_bytes((checkpoint / "tokenizer.json").read_bytes(), told.limits["max_tokens"])
    session = engines.module("onnx").open(graph, 1, variant={"file": graph.name})
    return answer.open(
        session, tokenizer, told.labels, told.limits, {"calibration": told.meta["calibration"]}
    )


def figures(model: Any, test: Sequence[Question]) -> dict[str, Any]:
    return report(readings(model, test), test, model.about["calibration"]["threshold"])


def timed(models: dict[str, tuple[Any, int]], test: Sequence[Question], rounds: int) -> dict[str, Any]:
    """Name → milliseconds of each round, on the same questions with their passages."""
    order = np.random.default_rng(0).permutation(len(test))[:rounds]
    pairs = [(test[row].question, test[row].context) for row in order]
    calls = {
        name: (lambda row, model=model: model.answers([pairs[row]])) for name, (model, _) in models.items()
    }
    taken = measure.interleave(calls, len(pairs), rounds, 3600.0)
    return {name: ns / 1e6 for name, ns in taken.ns.items()}


def _line(name: str, told: dict[str, Any], mine: Any, eager: Any, size: int) -> str:
    speed, low, high = statistics.ratio_of_medians(eager, mine, 0)
    exact, overlap = (
        f"{told[key]:.3f} ({told[f'{key}_ci95'][0]:.3f} to {told[f'{key}_ci95'][1]:.3f})"
        for key in ("exact_match", "f1")
    )
    some, none = told["answerable"]["f1"], told["unanswerable"]["exact_match"]
    faster = f"{speed:.1f} ({low:.1f} to {high:.1f})"
    cells = (name, exact, overlap, f"{some:.3f}", f"{none:.3f}", f"{np.median(mine):.1f}", faster)
    return f"| {' | '.join(cells)} | {size / 1e6:.1f} |"


if __name__ == "__main__":
    main()
