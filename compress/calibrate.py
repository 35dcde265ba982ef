"""Calibration data: a few labelled training rows that set a quantizer's ranges and measure its damage."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.errors import InputError
from runtimes.text import Tokenizer, clean, pad

LEAST = 32
MOST = 256
_FIX = "give rows like those that the model was trained on"


@dataclass(frozen=True)
class Calibration:
    """Texts with labels (indices into the checkpoint's), of which `most` are picked by `seed`."""

    texts: Sequence[str] = field(repr=False)
    labels: Sequence[int] = field(repr=False)
    seed: int = 0
    most: int = MOST


def check_calibration(calibration: Calibration, labels: int) -> None:
    """Raises InputError for rows that would calibrate nothing, or something else than this model."""
    texts = list(calibration.texts)
    if len(texts) < LEAST or calibration.most < LEAST:
        count = min(len(texts), calibration.most)
        raise InputError(f"calibration: {count} rows, at least {LEAST} are needed; {_FIX}")
    if len(texts) != len(calibration.labels):
        raise InputError(f"calibration: {len(texts)} texts but {len(calibration.labels)} labels; {_FIX}")
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"calibration: row {row} has no text ({text!r:.40}); {_FIX}")
    for row, label in enumerate(calibration.labels):
        if isinstance(label, bool) or not isinstance(label, int | np.integer) or not 0 <= label < labels:
            raise InputError(
                f"calibration: row {row} has label {label!r:.40}, not one of the model's {labels}"
            )


def write_rows(calibration: Calibration, checkpoint: Path, out: Path) -> Path:
    """Pick rows, tokenize them as the checkpoint does, and write them as .npz.

    `input_ids`, `attention_mask` and `token_type_ids` int64 (n, L), `labels` int64 (n,). Rows that are longer
    than the checkpoint reads are left out: their end would be missing. Raises InputError for rows that are
    too few, empty, all alike or of other labels.
    """
    from trainers.checkpoint import open_checkpoint

    opened = open_checkpoint(checkpoint)
    check_calibration(calibration, len(opened.labels))
    most = opened.limits["max_tokens"]
    tokenizer = Tokenizer.from_bytes((checkpoint / "tokenizer.json").read_bytes(), most + 1)
    order = np.random.default_rng(calibration.seed).permutation(len(calibration.texts))
    picked = [int(row) for row in order[: 4 * calibration.most]]
    ids = tokenizer.encode([clean(calibration.texts[row]) for row in picked])
    kept = [index for index, one in enumerate(ids) if tokenizer.special_tokens < len(one) <= most]
    kept = kept[: calibration.most]
    if len(kept) < LEAST:
        raise InputError(
            f"calibration: only {len(kept)} rows have 1 to {most} tokens, at least {LEAST} are needed; {_FIX}"
        )
    if len({tuple(ids[index]) for index in kept}) < 2:
        raise InputError(f"calibration: all rows are the same text; {_FIX}")
    feeds = pad([ids[index] for index in kept], max(len(ids[index]) for index in kept), tokenizer.pad_id)
    labels = np.array([calibration.labels[picked[index]] for index in kept], np.int64)
    np.savez(out, allow_pickle=False, labels=labels, **feeds)
    return out


def read_rows(path: str) -> dict[str, np.ndarray]:
    """What `write_rows` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def single_feeds(rows: dict[str, np.ndarray], names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """One engine input a row, unpadded: each array int64 (1, length)."""
    names = names or ["input_ids", "attention_mask", "token_type_ids"]
    lengths = rows["attention_mask"].sum(axis=1)
    return [
        {name: rows[name][row : row + 1, :length] for name in names} for row, length in enumerate(lengths)
    ]
