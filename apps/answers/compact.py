"""A collection's file as it goes to a device: without the documents' whole texts, and as small as it gets."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from apps.answers.store import told
from runtimes.errors import InputError


def compact(source: Path, out: Path) -> Path:
    """A copy of one moment of `source`, which may be written to meanwhile. Raises InputError.

    The passages stay; a device needs no more than those to answer and to show where.
    """
    out.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("VACUUM INTO ?", [str(out)])
        with closing(sqlite3.connect(out, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")  # a device may not write beside it
            connection.execute("DELETE FROM texts")
            connection.execute("INSERT INTO words (words) VALUES ('optimize')")
            connection.execute("VACUUM")
            empty = not connection.execute("SELECT count(*) FROM passages").fetchone()[0]
    except sqlite3.Error as error:
        raise InputError(f"{source}: no collection, or a damaged one ({error}); restore it") from None
    if empty:
        raise InputError(f"{source}: has no documents; add some before it is packed")
    return out


def passages_evenly(index: Path, count: int) -> Iterator[str]:
    """The texts of up to `count` passages, spread evenly over the collection."""
    for _, text, _ in _evenly(index, count):
        yield text


def vectors_evenly(index: Path, count: int) -> list[tuple[str, np.ndarray]]:
    """Of such passages the text as it was embedded, and its int8 vector."""
    return [
        (told(heading, text), np.frombuffer(vector, np.int8))
        for heading, text, vector in _evenly(index, count)
    ]


def _evenly(index: Path, count: int) -> Iterator[tuple[str, str, bytes]]:
    one = "SELECT heading, text, vector FROM passages JOIN vectors ON passage = id WHERE id = ?"
    with closing(sqlite3.connect(f"{index.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM passages ORDER BY id")]
        for id in ids[:: max(1, len(ids) // count)][:count]:
            yield connection.execute(one, [id]).fetchone()
