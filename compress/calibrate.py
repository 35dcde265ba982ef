"""Calibration data: a few labelled training rows that set a quantizer's ranges and measure its damage."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.bundle import NUMBERS
from runtimes.codec import Codec
from runtimes.errors import InputError
from runtimes.generation import TASK as GENERATION
from runtimes.tasks.answer import MAX_QUESTION, STRIDE
from runtimes.text import Tokenizer, clean, pad

LEAST = 32
MOST = 256
# Of running text: so many stretches of so many tokens.
STRETCHES, STRETCH = 24, 512
_FIX = "give rows like those that the model was trained on"


@dataclass(frozen=True)
class Calibration:
    """Texts with labels (indices into the checkpoint's), of which `most` are picked by `seed`.

    For a reader pairs of question and passage, for a detector windows float32 (window,) as the graph takes
    them; their labels are not looked at.
    """

    texts: Sequence[Any] = field(repr=False)
    labels: Sequence[Any] = field(repr=False)
    seed: int = 0
    most: int = MOST


def check_calibration(calibration: Calibration, labels: int | None) -> None:
    """`labels`: how many the model has; None where it has none to compare with.

    Raises InputError for rows that would calibrate nothing, or something else than this model."""
    texts = list(calibration.texts)
    if len(texts) < LEAST or calibration.most < LEAST:
        count = min(len(texts), calibration.most)
        raise InputError(f"calibration: {count} rows, at least {LEAST} are needed; {_FIX}")
    if len(texts) != len(calibration.labels):
        raise InputError(f"calibration: {len(texts)} texts but {len(calibration.labels)} labels; {_FIX}")
    for row, text in enumerate(texts):
        parts = text if isinstance(text, tuple) else (text,)
        if not all(isinstance(part, str) and part.strip() for part in parts):
            raise InputError(f"calibration: row {row} has no text ({text!r:.40}); {_FIX}")
    if labels is None:
        return
    for row, label in enumerate(calibration.labels):
        if isinstance(label, bool) or not isinstance(label, int | np.integer) or not 0 <= label < labels:
            raise InputError(
                f"calibration: row {row} has label {label!r:.40}, not one of the model's {labels}"
            )


def write_rows(calibration: Calibration, checkpoint: Path, out: Path) -> Path:
    """Pick rows, tokenize them as the checkpoint does, and write them as .npz.

    `input_ids`, `attention_mask` and `token_type_ids` int64 (n, L), `labels` int64 (n,). Rows that are longer
    than the checkpoint reads are left out: their end would be missing. Of windows `values` float32
    (n, window) in place of tokens. Raises InputError for rows that are
    too few, empty, all alike or of other labels.
    """
    from trainers.checkpoint import open_checkpoint

    opened = open_checkpoint(checkpoint)
    if opened.task == NUMBERS:
        return _write_windows(calibration, opened.limits["window"], out)
    if opened.task == GENERATION:
        return _write_stretches(calibration, checkpoint, opened.limits["max_tokens"], out)
    classifies = opened.task == "text-classification"
    check_calibration(calibration, len(opened.labels) if classifies else None)
    most = opened.limits["max_tokens"]
    tokenizer = Tokenizer.from_bytes((checkpoint / "tokenizer.json").read_bytes(), most + 1)
    order = np.random.default_rng(calibration.seed).permutation(len(calibration.texts))
    picked = [int(row) for row in order[: 4 * calibration.most]]
    ids, types = _tokens([calibration.texts[row] for row in picked], tokenizer)
    kept = [index for index, one in enumerate(ids) if tokenizer.special_tokens < len(one) <= most]
    kept = kept[: calibration.most]
    if len(kept) < LEAST:
        raise InputError(
            f"calibration: only {len(kept)} rows have 1 to {most} tokens, at least {LEAST} are needed; {_FIX}"
        )
    if len({tuple(ids[index]) for index in kept}) < 2:
        raise InputError(f"calibration: all rows are the same text; {_FIX}")
    length = max(len(ids[index]) for index in kept)
    feeds = pad(
        [ids[index] for index in kept], length, tokenizer.pad_id, types and [types[index] for index in kept]
    )
    told = [calibration.labels[picked[index]] for index in kept]
    labels = np.array([label if classifies else 0 for label in told], np.int64)
    np.savez(out, allow_pickle=False, labels=labels, **feeds)
    return out


def _write_windows(calibration: Calibration, window: int, out: Path) -> Path:
    count = len(calibration.texts)
    if min(count, calibration.most) < LEAST:
        raise InputError(f"calibration: {count} windows, at least {LEAST} are needed; {_FIX}")
    order = np.random.default_rng(calibration.seed).permutation(count)[: calibration.most]
    values = [np.asarray(calibration.texts[row], np.float32) for row in order]
    if any(one.shape != (window,) or not np.isfinite(one).all() for one in values):
        raise InputError(f"calibration: each row must be a window of {window} finite numbers; {_FIX}")
    rows = np.stack(values)
    if (rows == rows[0]).all():
        raise InputError(f"calibration: all windows are the same; {_FIX}")
    np.savez(out, allow_pickle=False, labels=np.zeros(len(rows), np.int64), values=rows)
    return out


def _write_stretches(calibration: Calibration, checkpoint: Path, most: int, out: Path) -> Path:
    """`input_ids` int64 (n, length): stretches of the texts put in a row."""
    from trainers.texts import windows

    codec = Codec.from_bytes((checkpoint / "tokenizer.json").read_bytes())
    found = windows(list(calibration.texts), codec, min(STRETCH, most), STRETCHES)
    np.savez(out, allow_pickle=False, input_ids=np.array(found, np.int64))
    return out


def _tokens(rows: Sequence[Any], tokenizer: Tokenizer) -> tuple[list[list[int]], list[list[int]] | None]:
    """Ids of texts; ids and types of pairs, each in one piece."""
    if isinstance(rows[0], str):
        return tokenizer.encode([clean(text) for text in rows]), None
    windows = [
        tokenizer.windows(question.strip(), passage, STRIDE, MAX_QUESTION) for question, passage in rows
    ]
    whole = [found[0] for found in windows if len(found) == 1]
    return [one.ids for one in whole], [one.types for one in whole]


def read_rows(path: str) -> dict[str, np.ndarray]:
    """What `write_rows` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def single_feeds(rows: dict[str, np.ndarray], names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """One engine input a row, unpadded: each array int64 (1, length), windows float32 (1, window)."""
    if "values" in rows:
        return [{"values": row[None]} for row in rows["values"]]
    names = names or ["input_ids", "attention_mask", "token_type_ids"]
    lengths = rows["attention_mask"].sum(axis=1)
    return [
        {name: rows[name][row : row + 1, :length] for name in names} for row, length in enumerate(lengths)
    ]
