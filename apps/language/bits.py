"""Which blocks int4 is made in: `python -m apps.language.bits --data Salesforce/wikitext`.

The base of apps/language/recipe.toml (or `--checkpoint`) in blocks of 16 to 128, with each kind of zero
point, bits of head and attention, and what the engine computes in. Prints the table of
docs/language/export.md: perplexity on held-out text and its rise over the checkpoint's, greedy agreement over
64 tokens, megabytes, and the processor time of a decoded token (of one thread, in turns, so that other load
on the machine counts little).
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from apps.flow import build
from apps.language.one_line import ended
from apps.recipe import read_recipe
from compress.calibrate import Calibration, write_rows
from compress.decoder import INT4, INT8, Blocks, quantized, seen_by
from compress.graph import simplified
from export.gate_generator import TOKENS, WINDOW, WRITTEN, perplexity, prompts_of, written
from export.variants import export_variant
from runtimes.engines import onnx_decoder
from runtimes.load import load
from runtimes.tasks.generate import Generator
from trainers.texts import running_texts, windows

RECIPE = Path("apps/language/recipe.toml")
ROWS = {
    "default": INT4,
    "blocks of 16": replace(INT4, block=16),
    "blocks of 64": replace(INT4, block=64),
    "blocks of 128": replace(INT4, block=128),
    "zero on a code": replace(INT4, zero="whole"),
    "zero in the middle": replace(INT4, zero="middle"),
    "zero in the middle, attention 8 bits": replace(INT4, zero="middle", attention_bits=8),
    "head in blocks of 16": replace(INT4, head_block=16),
    "head 8 bits": replace(INT4, head_bits=8),
    "accuracy level 1": replace(INT4, accuracy_level=1),
    "int8": INT8,
}
STEPS, ROUNDS = 48, 5


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m apps.language.bits`: 0, or 2 for what cannot work."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="Instead of the recipe's base.")
    parser.add_argument("--data", default="Salesforce/wikitext", help="Running text.")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--windows", type=int, default=16, help=f"Stretches of {WINDOW} tokens.")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), help="Rows to measure.")
    options = parser.parse_args(arguments)
    return ended(lambda: _tell(options))


def _tell(options: argparse.Namespace) -> None:
    path = options.checkpoint or build(read_recipe(RECIPE), options.runs, until="teacher")["teacher"]
    rows = {name: ROWS[name] for name in options.only or ROWS}
    print(table(measure(path, options.data, rows, options.windows)))


def measure(path: Path, data: str, rows: dict[str, Blocks], most: int = 16) -> list[dict[str, Any]]:
    """A row of figures for each entry, the checkpoint's own first."""
    import onnx

    texts, model = running_texts(data), load(path, threads=1)
    stretches = windows(texts.splits["test"], model.codec, min(WINDOW, model.limits["max_tokens"]), most)
    prompts = prompts_of(texts.splits["test"], WRITTEN)
    wanted, own = model.continuations(prompts, TOKENS), perplexity(model, stretches)["value"]
    found: list[dict[str, Any]] = [{"name": "checkpoint, fp32", "perplexity": own, "rise": 0.0}]
    with TemporaryDirectory(prefix="edgewise-") as folder:
        exported = export_variant("onnx-fp32", path, None, (), Path(folder) / "onnx-fp32")
        calibration = Calibration(texts.splits["train"], [0] * len(texts.splits["train"]))
        tokens = write_rows(calibration, path, Path(folder) / "rows.npz")
        graph = simplified(onnx.load(str(exported.path)))
        seen = seen_by(graph, str(tokens))
        decoders: dict[str, Any] = {}
        for name, blocks in rows.items():
            copy = onnx.ModelProto()
            copy.CopyFrom(graph)
            file = Path(folder) / f"{len(decoders)}.onnx"
            onnx.save(quantized(copy, blocks, seen), str(file))
            decoders[name] = onnx_decoder.open(file, 1, exported.entry())
            variant = Generator(decoders[name], model.codec, model.limits, model.generation, {})
            value = perplexity(variant, stretches)["value"]
            figures = {"perplexity": value, "rise": value / own - 1, "mb": file.stat().st_size / 1e6}
            found.append({"name": name, **figures, **written(variant, prompts, wanted)})
            print(f"bits: {found[-1]}", file=sys.stderr, flush=True)
        times = decode_ms(decoders)
    return [{**row, "ms": times.get(row["name"])} for row in found]


def decode_ms(decoders: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of processor time for a token, the least of the medians of some rounds in turns."""
    found: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(ROUNDS):
        for name, decoder in decoders.items():
            cache, spent = decoder.begin(), []
            token = np.array([[1]], np.int64)
            for _ in range(STEPS):
                start = time.process_time()
                token[0, 0] = int(cache.forward(token)[0].argmax())
                spent.append(time.process_time() - start)
            found[name].append(float(np.median(spent)) * 1e3)
    return {name: min(rounds) for name, rounds in found.items()}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| | perplexity | rise | same text | MB | ms a token | tokens/s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        if row["ms"] is None:
            lines.append(f"| {row['name']} | {row['perplexity']:.2f} | | | | | |")
            continue
        lines.append(
            f"| {row['name']} | {row['perplexity']:.2f} | {row['rise']:.1%} | {row['greedy']:.0%} "
            f"| {row['mb']:.1f} | {row['ms']:.2f} | {1e3 / row['ms']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
