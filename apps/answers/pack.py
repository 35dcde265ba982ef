"""A collection's file, a reader and an embedder → one edge bundle."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from apps.answers.cloze import questions_from
from apps.answers.compact import compact, passages_evenly, vectors_evenly
from export.collection import pack_collection
from runtimes.bundle import open_bundle
from runtimes.confidence import Calibration, calibration_from
from runtimes.errors import BundleError, InputError
from runtimes.load import load

READER, EMBEDDER = "question-answering", "feature-extraction"
MOST_BYTES = 4 << 20
TRIED = 240  # passages that questions are made of, where nobody gives any
PROBES, ALIKE = 8, 0.9  # passages that are embedded again, and the mean cosine that they must reach


def export_collection(
    source: Path, reader: Path, embedder: Path, out: Path, questions: Path | None, calibration: Path | None
) -> dict[str, Any]:
    """Pack `source` (the collection's SQLite file) with two bundles. Raises InputError, BundleError.

    `questions`: a file with one a line, for the golden answers (default: made of the collection's own
    sentences). `calibration`: JSON of `apps.answers.end_to_end --out`.
    """
    if not source.is_file():
        raise InputError(f"{source}: no such collection; name the .sqlite file that the service keeps")
    for role, path, task in (("--reader", reader, READER), ("--embedder", embedder, EMBEDDER)):
        if (found := open_bundle(path).task) != task:
            raise InputError(f"{role} {path}: its task is {found}; name a bundle of task {task}")
    if out.suffix == ".zip" and out.exists() and not is_bundle(out):
        raise InputError(f"{out}: exists and is no bundle; choose another place or remove it")
    learned = read_calibration(calibration) if calibration else None
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        index = compact(source, Path(folder) / "index.sqlite")
        require_its_embedder(index, embedder)
        asked = _lines(questions) if questions else questions_from(passages_evenly(index, TRIED))
        packed = pack_collection(index, reader, embedder, asked, out, learned)
        size = index.stat().st_size
    return {
        "bundle": str(packed.path),
        "bytes": packed.bytes,
        "index_bytes": size,
        "golden": packed.questions,
    }


def is_bundle(path: Path) -> bool:
    """Whether a whole bundle lies there."""
    try:
        open_bundle(path, parts=True)
    except BundleError:
        return False
    return True


def require_its_embedder(index: Path, embedder: Path) -> None:
    """Raises InputError unless the embedder makes about the vectors that the index has.

    Another variant of the same model does; another model's vectors point elsewhere, whatever their size.
    """
    rows = vectors_evenly(index, PROBES)
    made = load(embedder)([text for text, _ in rows])
    kept = np.stack([vector for _, vector in rows]).astype(np.float32)
    if made.shape != kept.shape:
        raise InputError(f"{embedder}: {made.shape[1]} dimensions, the collection's vectors {kept.shape[1]}")
    cosines = (made * kept).sum(axis=1) / np.maximum(np.linalg.norm(kept, axis=1), 1e-9)
    if not cosines.mean() >= ALIKE:
        raise InputError(
            f"{embedder}: its vectors are not the collection's (cosine {cosines.mean():.2f}); name the "
            "embedder that made them, or index the collection anew"
        )


def read_calibration(path: Path) -> Calibration:
    """A calibration from a JSON file. Raises InputError."""
    try:
        told = json.loads(_bounded(path))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: not JSON ({str(error)[:80]}); give what `apps.answers.end_to_end` wrote"
        ) from None
    told = told.get("calibration", told) if isinstance(told, dict) else None
    if not isinstance(told, dict):
        raise InputError(f"{path}: no calibration in it; give what `apps.answers.end_to_end` wrote")
    return calibration_from(told, str(path))


def _lines(path: Path) -> Iterator[str]:
    try:
        lines = _bounded(path).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}); convert it") from None
    return (line.strip() for line in lines if line.strip())


def _bounded(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path}: over {MOST_BYTES >> 20} MB; shorten it")
    return path.read_bytes()
