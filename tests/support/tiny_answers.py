"""A tiny reader and a tiny embedder as bundles: random weights, really exported, sure of it all."""

import json
import shutil
from pathlib import Path

import numpy as np

from export.variants import export_variant, open_variant
from runtimes.bundle import SCHEMA, seal
from runtimes.load import load

LIMITS = {"max_tokens": 64, "max_chars": 10_000, "max_batch": 32}
HEADS = {
    "question-answering": ("BertForQuestionAnswering", ["start", "end"]),
    "feature-extraction": ("BertModel", ["vector"]),
}
# The base's words, so that passages differ to it.
PASSAGES = [
    "wheat harvest rises after the export of corn, said the farmers. soybean prices fall",
    "opec and oil barrels in the new refinery, by the pipeline. drilling wells rise",
    "the vessel left port with cargo and containers. a strike in the harbour was said to fall",
    "tariffs and imports, a deficit before negotiations. customs said the dispute was after quota",
    "corn crop in bushels, the farmers said in the market before the harvest",
    "petroleum tanker at the port, oil freight by vessel. the strike was new today",
]
QUESTIONS = [
    "what rises after the export?", "where is the refinery?", "what left the port?", "what said customs?",
    "which crop in bushels?", "what was new today at the port?", "who said it in the market?",
    "what is by the pipeline?", "what rises, oil or corn?", "the tanker was in the harbour before what?",
]  # fmt: skip


def part(base: Path, task: str, out: Path, variants=("onnx-fp32", "onnx-int8")) -> Path:
    """A bundle of a model with random weights; the last variant is the default."""
    import torch
    import transformers

    head, labels = HEADS[task]
    work = out.parent / f"{out.name}.work"
    torch.manual_seed(1)
    model = getattr(transformers, head).from_pretrained(base)
    if task == "question-answering":
        model.qa_outputs.weight.data *= 300  # random spans, but no near ties
    model.save_pretrained(work / "checkpoint")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, work / "checkpoint")
    out.mkdir(parents=True)
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(work / "checkpoint" / name, out)
    made = []
    for name in variants:
        parent = work / "onnx-fp32" if name != "onnx-fp32" else None
        export_variant(name, work / "checkpoint", parent, (16, 64), work / name)
        made.append(open_variant(name, work / name))
        (out / made[-1].file).parent.mkdir(parents=True)
        shutil.copy(made[-1].path, out / made[-1].file)
    figures = {"max_abs": 0.0, "cosine": 1.0, "agreement": 1.0, "n": 1}
    metric = {"name": "accuracy", "variant": 1.0, "checkpoint": 1.0}
    told = {v.name: {"golden": figures, "sample": {**figures, "metric": metric}} for v in made}
    (out / "parity.json").write_text(json.dumps({"budget": {}, "variants": told}))
    manifest = {
        "schema": SCHEMA, "name": out.name.removesuffix(".bundle"), "task": task, "labels": labels,
        "limits": LIMITS, "signature": {}, "variants": {one.name: one.entry() for one in made},
        "defaults": {"*": made[-1].name, "onnx": made[-1].name}, "lineage": [],
        "data": {"name": "tiny"}, "metrics": {}, "seed": 1, "checkpoint": "0" * 64,
    }  # fmt: skip
    if task == "question-answering":
        manifest["calibration"] = {"scale": 0.16, "shift": -19.0}
    seal(out, manifest, ["tokenizer.json", "config.json", "parity.json", *(one.file for one in made)])
    shutil.rmtree(work)
    return out


def embed(embedder: Path):
    """Texts → vectors by the default variant of an embedder's bundle."""
    model = load(embedder, threads=1)
    return lambda texts: np.asarray(model(list(texts)), np.float32)


def collection(embedder: Path, out: Path) -> Path:
    """A collection's file as it goes to a device, of six documents with a passage each."""
    from apps.answers.compact import compact
    from apps.answers.documents import Heading, Parsed
    from apps.answers.store import SqliteStore

    kept = SqliteStore(out.with_suffix(".kept.sqlite"), embed(embedder), "tiny")
    for number, text in enumerate(PASSAGES):
        heading = (Heading(0, 1, f"Part {number}"),) if number % 2 else ()
        kept.add(Parsed(f"{number}.txt", text, heading), f"d{number}")
    kept.close()
    return compact(out.with_suffix(".kept.sqlite"), out)
