"""Pack variants, tokenizer, golden vectors and card into a bundle; nothing is published before the gate."""

import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.advise import Makings
from export.card import card
from export.gate import Budget, Sample, gate
from export.gate_generator import GOLDEN_PROMPTS, GOLDEN_TOKENS, generator_sample
from export.judge import series_sample
from export.original import Original, of_checkpoint
from export.variant import Variant
from runtimes.bundle import NUMBERS, SCHEMA, Bundle, open_bundle, seal
from runtimes.errors import InputError
from runtimes.files import write_atomic, writing
from runtimes.generation import TASK as GENERATION
from runtimes.golden import golden_bytes
from runtimes.load import TOLD, choose, task_module
from trainers.checkpoint import Checkpoint
from trainers.data import Dataset
from trainers.examples import examples
from trainers.files import write_json
from trainers.series_data import SeriesData
from trainers.squad import QuestionSet
from trainers.texts import Texts

GOLDEN = 28
# In logits: a lead of 1 is a probability 2.7 times as high.
MARGIN = 1.0
# Texts that break naive pipelines; answered by the checkpoint like the others, label unknown (-1).
EDGE_CASES = ["?", "naïve café — 東京 🚀", "<b>AT&amp;T</b> said profit rose 5%", "word " * 2_000]
EDGE_QUESTION = "what does it say?"


@dataclass(frozen=True)
class Packed:
    path: Path
    parity: dict[str, Any]


def pack(
    checkpoint: Checkpoint | Original,
    variants: Sequence[Variant],
    dataset: Dataset | QuestionSet | SeriesData | Texts,
    out: Path,
    name: str,
    budget: Budget,
    makings: Makings | None = None,
) -> Packed:
    """Write the bundle folder `out` if every variant passes the gate, held to the checkpoint (or original).

    `makings` as in `gate`.

    Raises GateError (nothing is written), InputError for no variants or an empty test split.
    """
    if not variants:
        raise InputError("export.variants is empty; name at least one, such as onnx-int8")
    original = of_checkpoint(checkpoint) if isinstance(checkpoint, Checkpoint) else checkpoint
    if isinstance(dataset, SeriesData):
        sample = series_sample(dataset, budget.samples, original.model)
    elif isinstance(dataset, Texts):
        sample = Sample(**generator_sample(dataset, budget.samples, original.model))
    else:
        sample = _sample(dataset.splits["test"], budget.samples, original.model)
    with writing(out) as folder:
        files = list(original.files)
        for file, data in original.files.items():
            (folder / file).write_bytes(data)
        (folder / "golden.npz").write_bytes(_golden(sample, original))
        for variant in variants:
            (folder / variant.file).parent.mkdir(parents=True)
            shutil.copy(variant.path, folder / variant.file)
            files.append(variant.file)
            for header in variant.path.parent.glob("*.h"):
                beside = str(Path(variant.file).with_name(header.name))
                shutil.copy(header, folder / beside)
                files.append(beside)
        manifest = _manifest(name, original, variants)
        seal(folder, manifest, [*files, "golden.npz"])
        parity = gate(folder, budget, sample, makings)
        write_json(folder / "parity.json", parity)
        (folder / "README.md").write_text(card(manifest, parity), encoding="utf-8")
        seal(folder, manifest, [*files, "golden.npz", "parity.json", "README.md"])
    return Packed(out, parity)


def slim(source: Path, variants: Sequence[str], out: Path) -> Path:
    """A bundle with only the named variants (none named: the default), as a folder or, by name, a .zip."""
    bundle = open_bundle(source)
    keep = [choose(bundle, variant=variant) for variant in variants or [bundle.defaults["*"]]]
    if out.suffix != ".zip":
        with writing(out) as folder:
            _copy_kept(bundle, keep, folder)
        return out
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        _copy_kept(bundle, keep, Path(folder))
        write_atomic(out, zipped(Path(folder)))
    return out


def _copy_kept(bundle: Bundle, keep: Sequence[str], folder: Path) -> None:
    """The kept variants, and what is told of them; nothing of those that are left out."""
    manifest = {
        **bundle.manifest,
        "variants": {name: bundle.variants[name] for name in keep},
        "defaults": defaults({name: bundle.variants[name]["engine"] for name in keep}, keep),
    }
    left_out = tuple(f"variants/{name}/" for name in bundle.variants if name not in keep)
    names = [name for name in bundle.manifest["files"] if not name.startswith(left_out)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bundle.read(name))
    parity = json.loads(bundle.read("parity.json"))
    parity["variants"] = {name: parity["variants"][name] for name in keep}
    write_json(folder / "parity.json", parity)
    (folder / "README.md").write_text(card(manifest, parity), encoding="utf-8")
    for name in (name for name in names if name.startswith("bench/")):
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if json.loads(line)["variant"] in keep]
        (folder / name).write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    seal(folder, manifest, names)


def zipped(folder: Path) -> bytes:
    """A bundle folder as .zip, the same bytes for the same files."""
    bundle, buffer = open_bundle(folder, parts=True), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ["bundle.json", *sorted(bundle.manifest["files"])]:
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, (folder / name).read_bytes())
    return buffer.getvalue()


def set_defaults(path: Path, ranked: Sequence[str]) -> Bundle:
    """Make the first variant of `ranked` (best first) the default, and per engine its first."""
    bundle = open_bundle(path)
    engines = {name: about["engine"] for name, about in bundle.variants.items()}
    seal(path, {**bundle.manifest, "defaults": defaults(engines, ranked)}, bundle.manifest["files"])
    return open_bundle(path)


def defaults(engines: dict[str, str], ranked: Sequence[str]) -> dict[str, str]:
    """{"*": best, engine: best of that engine, ...}, in order of rank."""
    chosen = {"*": ranked[0]}
    for name in ranked:
        chosen.setdefault(engines[name], name)
    return chosen


def _manifest(name: str, original: Original, variants: Sequence[Variant]) -> dict[str, Any]:
    # Until the bench has spoken: the smallest file first.
    ranked = sorted(variants, key=lambda variant: variant.path.stat().st_size)
    return {
        "schema": SCHEMA,
        "name": name,
        "task": original.task,
        "labels": original.labels,
        "limits": original.limits,
        "signature": _signature(original),
        "variants": {variant.name: variant.entry() for variant in variants},
        "defaults": defaults({v.name: v.engine for v in variants}, [v.name for v in ranked]),
        "checkpoint": original.digest,
        "data": original.meta["data"],
        "metrics": original.meta["metrics"],
        "seed": original.meta["seed"],
        "lineage": original.meta["lineage"],
        **{key: original.meta[key] for key in TOLD if key in original.meta},
    }


def _signature(original: Original) -> dict[str, Any]:
    """What goes into every variant, and what the task makes of what comes out."""
    if original.task == NUMBERS:
        window, patch = original.limits["window"], original.limits["patch"]
        return {
            "inputs": {"values": {"dtype": "float32", "shape": ["batch", window]}},
            "outputs": {"expected": {"dtype": "float32", "shape": ["batch", window + patch]}},
        }
    shapes: dict[str, list[Any]] = {
        "text-classification": ["batch", len(original.labels)],
        "question-answering": ["batch", "length", 2],
        "feature-extraction": ["batch", "dimensions"],
    }
    if original.task == GENERATION:
        return {
            "inputs": {"input_ids": {"dtype": "int64", "shape": ["batch", "length"]}},
            "outputs": {"logits": {"dtype": "float32", "shape": ["batch", "length", "vocabulary"]}},
        }
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    output = task_module(original.task).OUTPUT
    return {
        "inputs": {key: {"dtype": "int64", "shape": ["batch", "length"]} for key in inputs},
        "outputs": {output: {"dtype": "float32", "shape": shapes[original.task]}},
    }


def _sample(test: Any, most: int, reference: Any) -> Sample:
    if not len(test):
        raise InputError("the test split is empty, so the gate cannot compare; give test rows")
    inputs, truths = examples(test)
    rows = sample_rows(len(inputs), most)
    chosen = [inputs[row] for row in rows]
    return Sample(chosen, [truths[row] for row in rows], reference.outputs(chosen))


def sample_rows(count: int, most: int) -> np.ndarray:
    """Which rows of a split the gate looks at: evenly spaced, since the split may be sorted by label."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int))


def _golden(sample: Sample, original: Original) -> bytes:
    """Golden vectors: inputs with the checkpoint's tokens and outputs, spread evenly over length.

    Only inputs that the checkpoint is sure of: a near tie falls either way by rounding alone, which proves
    nothing. The sample, near ties and all, is compared when the bundle is packed.
    """
    writes, model = original.task == GENERATION, original.model
    rows = _spread(sample, model, GOLDEN_PROMPTS if writes else GOLDEN)
    inputs, labels = [sample.inputs[row] for row in rows], [_label(sample, row) for row in rows]
    for text in [] if original.task in (NUMBERS, GENERATION) else EDGE_CASES:
        one = (EDGE_QUESTION, text) if isinstance(inputs[0], tuple) else text
        if _sure(model, one):
            inputs.append(one)
            labels.append(-1)
    tokens = [ids for one in inputs for ids in model.tokens([one])]
    outputs = [row for one in inputs for row in model.outputs([one])]
    told = model.continuations(inputs, GOLDEN_TOKENS) if writes else None
    return golden_bytes(inputs, labels, tokens, outputs, task_module(original.task).OUTPUT, told)


def _label(sample: Sample, row: int) -> int:
    truth = sample.truths[row] if sample.truths is not None else -1
    return int(truth) if isinstance(truth, int | np.integer) else -1


def _sure(reference: Any, one: Any) -> bool:
    """A word-level tokenizer may know nothing of a text, and a text may be a near tie."""
    try:
        return bool(reference.sureness([one], reference.outputs([one]))[0] >= MARGIN)
    except InputError:
        return False


def _spread(sample: Sample, reference: Any, most: int) -> list[int]:
    """Up to `most` rows, evenly over the lengths of those with a clear answer (else the clearest)."""
    margins = reference.sureness(sample.inputs, sample.outputs)
    sure = np.flatnonzero(margins >= min(MARGIN, np.sort(margins)[-min(most, len(margins))]))
    by_length = sorted(sure.tolist(), key=lambda row: _length(sample.inputs[row]))
    places = np.linspace(0, len(by_length) - 1, min(most, len(by_length)))
    return [by_length[int(place)] for place in places]


def _length(one: Any) -> int:
    return len(one) if isinstance(one, str | np.ndarray) else sum(map(len, one))
