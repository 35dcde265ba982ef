"""Pack variants, tokenizer, golden vectors and card into a bundle; nothing is published before the gate."""

import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from export.advise import Makings
from export.card import card
from export.gate import Budget, Sample, gate
from export.original import Original, of_checkpoint
from export.variant import Variant
from runtimes.bundle import SCHEMA, Bundle, open_bundle, seal
from runtimes.errors import InputError
from runtimes.files import write_atomic, writing
from runtimes.load import choose
from runtimes.text import pad
from trainers.checkpoint import Checkpoint
from trainers.data import Dataset, Split
from trainers.files import write_json

GOLDEN = 28
# In logits: a lead of 1 is a probability 2.7 times as high.
MARGIN = 1.0
# Texts that break naive pipelines; answered by the checkpoint like the others, label unknown (-1).
EDGE_CASES = ["?", "naïve café — 東京 🚀", "<b>AT&amp;T</b> said profit rose 5%", "word " * 2_000]


@dataclass(frozen=True)
class Packed:
    path: Path
    parity: dict[str, Any]


def pack(
    checkpoint: Checkpoint | Original,
    variants: Sequence[Variant],
    dataset: Dataset,
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
    test = dataset.splits["test"]
    original = of_checkpoint(checkpoint) if isinstance(checkpoint, Checkpoint) else checkpoint
    sample = _sample(test, budget.samples, original.model)
    with writing(out) as folder:
        files = list(original.files)
        for file, data in original.files.items():
            (folder / file).write_bytes(data)
        (folder / "golden.npz").write_bytes(_golden(sample, original.model))
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
        "signature": {
            "inputs": {
                key: {"dtype": "int64", "shape": ["batch", "length"]}
                for key in ("input_ids", "attention_mask", "token_type_ids")
            },
            "outputs": {"logits": {"dtype": "float32", "shape": ["batch", len(original.labels)]}},
        },
        "variants": {variant.name: variant.entry() for variant in variants},
        "defaults": defaults({v.name: v.engine for v in variants}, [v.name for v in ranked]),
        "checkpoint": original.digest,
        "data": original.meta["data"],
        "metrics": original.meta["metrics"],
        "seed": original.meta["seed"],
        "lineage": original.meta["lineage"],
    }


def _sample(test: Split, most: int, reference: Any) -> Sample:
    if not test.texts:
        raise InputError("the test split is empty, so the gate cannot compare; give test rows")
    rows = sample_rows(len(test.texts), most)
    texts = [test.texts[row] for row in rows]
    return Sample(texts, np.array([test.labels[row] for row in rows]), reference.logits(texts))


def sample_rows(count: int, most: int) -> np.ndarray:
    """Which rows of a split the gate looks at: evenly spaced, since the split may be sorted by label."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int))


def _golden(sample: Sample, reference: Any) -> bytes:
    """Golden vectors: texts with the checkpoint's tokens and logits, spread evenly over length.

    Only texts that the checkpoint is sure of: a near tie falls either way by rounding alone, which proves
    nothing. The sample, near ties and all, is compared when the bundle is packed.
    """
    rows = _spread(sample)
    texts, labels = [sample.texts[row] for row in rows], [int(sample.labels[row]) for row in rows]
    for text in filter(partial(_has_tokens, reference), EDGE_CASES):
        if _margins(reference.logits([text]))[0] >= MARGIN:
            texts.append(text)
            labels.append(-1)
    asked = [batch.feeds for text in texts for batch in reference.prepare([text])]
    ids = [feeds["input_ids"][feeds["attention_mask"] == 1].tolist() for feeds in asked]
    feeds = pad(ids, max(map(len, ids)), 0)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        texts=np.array(texts),
        labels=np.array(labels, np.int64),
        input_ids=feeds["input_ids"],
        attention_mask=feeds["attention_mask"],
        logits=np.concatenate([reference.logits([text]) for text in texts]),
    )
    return buffer.getvalue()


def _has_tokens(reference: Any, text: str) -> bool:
    """A word-level tokenizer may know nothing of a text."""
    try:
        return bool(reference.prepare([text]))
    except InputError:
        return False


def _spread(sample: Sample) -> list[int]:
    """Up to GOLDEN rows, evenly over the lengths of those with a clear answer (else the clearest)."""
    margins = _margins(sample.logits)
    sure = np.flatnonzero(margins >= min(MARGIN, np.sort(margins)[-min(GOLDEN, len(margins))]))
    by_length = sorted(sure.tolist(), key=lambda row: len(sample.texts[row]))
    places = np.linspace(0, len(by_length) - 1, min(GOLDEN, len(by_length)))
    return [by_length[int(place)] for place in places]


def _margins(logits: np.ndarray) -> np.ndarray:
    """By how much the best label leads the second, in logits (n,); infinite for a single label."""
    if logits.shape[1] < 2:
        return np.full(len(logits), np.inf)
    second, best = np.sort(logits, axis=1)[:, -2:].T
    return best - second
