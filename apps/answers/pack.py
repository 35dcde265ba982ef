"""A collection's file, a reader and an embedder → one edge bundle."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apps.answers.cloze import questions_from
from apps.answers.compact import compact, passages_evenly
from export.collection import pack_collection
from runtimes.confidence import Calibration, calibration_from
from runtimes.errors import InputError

MOST_BYTES = 4 << 20
TRIED = 240  # passages that questions are made of, where nobody gives any


def export_collection(
    source: Path, reader: Path, embedder: Path, out: Path, questions: Path | None, calibration: Path | None
) -> dict[str, Any]:
    """Pack `source` (the collection's SQLite file) with two bundles. Raises InputError, BundleError.

    `questions`: a file with one a line, for the golden answers (default: made of the collection's own
    sentences). `calibration`: JSON of `apps.answers.end_to_end --out`.
    """
    if not source.is_file():
        raise InputError(f"{source}: no such collection; name the .sqlite file that the service keeps")
    learned = read_calibration(calibration) if calibration else None
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        index = compact(source, Path(folder) / "index.sqlite")
        asked = _lines(questions) if questions else questions_from(passages_evenly(index, TRIED))
        packed = pack_collection(index, reader, embedder, asked, out, learned)
        size = index.stat().st_size
    return {
        "bundle": str(packed.path),
        "bytes": packed.bytes,
        "index_bytes": size,
        "golden": packed.questions,
    }


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
