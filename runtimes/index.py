"""The index of a collection: one SQLite file with passages, words (FTS5) and vectors, searched together.

Vectors are int8 rows of a plain table, so any SQLite reads the file and no extension must load; they are
compared in numpy, from one array in memory that follows the file. A question is data: it reaches FTS5 as
quoted words and SQL as parameters.
"""

import json
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.errors import BundleError, InputError
from runtimes.vectors import none

SCHEMA = 1
HOW = ("hybrid", "bm25", "dense")
DEPTH = 100  # passages that each list hands to the fusion
# The share of BM25 in the fused score. Learned on the questions of SQuAD's training split, where sums of
# scores beat sums of reciprocal ranks (docs/answers/store.md), as in Bruch, Gai and Ingber 2023.
WORDS_SHARE = 0.3
MAX_K = 1_000
MAX_WORDS = 64  # of a question; the rest is not searched for
MAX_WORD = 64  # characters
_WORD = re.compile(r"\w+")
# Words that nearly every English passage has: they cost time and tell nothing (left in when alone).
_COMMON = """
    a an and are as at be been by did do does for from had has have how in is it its of on or that the
    their there they this to was were what when where which who whom whose why will with
"""
COMMON = frozenset(_COMMON.split())


@dataclass(frozen=True)
class Passage:
    """A piece of a document: `text` begins at character `start` of the document's plain text."""

    id: int
    document: str
    name: str
    heading: str
    start: int
    text: str
    metadata: dict[str, str]


@dataclass(frozen=True)
class Hit:
    """A passage found. `bm25` and `dense` are its ranks in the two lists from 1, None where not in one.

    `score` is the fused one (hybrid), BM25 (larger is better) or the cosine.
    """

    passage: Passage
    score: float
    bm25: int | None
    dense: int | None


class Index:
    """Reads the index; safe to use from many threads. `connect` gives a new connection to the same file."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], shared: bool = False) -> None:
        self._connect, self._local = connect, threading.local()
        self._one = connect() if shared else None
        self._lock = threading.RLock()
        self._vectors = none()

    @classmethod
    def open(cls, source: Path | bytes) -> "Index":
        """A file, read only, or the bytes of one. Raises BundleError for others and newer schemas."""
        if isinstance(source, bytes):
            one = _from_bytes(source)  # SQLite's own copy: the bytes may go
            index = cls(lambda: one, shared=True)
        else:
            path = Path(source)
            if not path.is_file():
                raise BundleError(f"{path}: no such index; name the .sqlite of a collection")
            index = cls(lambda: _from_file(path))
        index.describe()
        return index

    def search(
        self,
        question: str,
        vector: np.ndarray | None,
        k: int = 10,
        where: Mapping[str, str] | None = None,
        how: str = "hybrid",
        embedder: str | None = None,
    ) -> list[Hit]:
        """The best `k` passages, best first.

        `vector` is the question's, float (dimensions,), of length 1; without one only words are searched.
        `where` names metadata that a document must have, all of it. `embedder` is the digest of what made
        `vector`, checked against the index where given. Raises InputError.
        """
        check_search(vector, k, how)
        with self.reading() as connection:
            about = _about(connection)
            allowed = _allowed(connection, where) if where else None
            found = _by_words(connection, question, max(k, DEPTH), allowed) if how != "dense" else []
            near: list[tuple[int, float]] = []
            if vector is not None and how != "bm25":
                check_vector(about, vector, embedder)
                with self._lock:
                    vectors = self._vectors = self._vectors.follow(connection, about)
                near = vectors.nearest(vector, max(k, DEPTH), allowed)
            return _hits(connection, fuse(found, near, how)[:k])

    def passages(self, document: str) -> list[Passage]:
        """All passages of a document in its order; none where it does not exist."""
        with self.reading() as connection:
            rows = connection.execute("SELECT id FROM passages WHERE document = ? ORDER BY start", [document])
            return _load(connection, [row[0] for row in rows])

    def around(self, passage: int, count: int = 1) -> list[Passage]:
        """A passage with up to `count` before and after it in its document."""
        with self.reading() as connection:
            row = connection.execute("SELECT document FROM passages WHERE id = ?", [passage]).fetchone()
        whole = self.passages(row[0]) if row else []
        place = next((i for i, one in enumerate(whole) if one.id == passage), None)
        return [] if place is None else whole[max(0, place - count) : place + count + 1]

    def describe(self) -> dict[str, Any]:
        """schema, embedder (digest), dimensions, documents, passages."""
        with self.reading() as connection:
            about = _about(connection)
            for table in ("documents", "passages"):
                about[table] = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return about

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection in one read transaction: all that is asked in the block is of one moment."""
        if self._one is not None:
            with self._lock:
                yield self._one
            return
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.rollback()

    def close(self) -> None:
        """Close this thread's connection; those of other threads close with their threads."""
        connection = self._one or getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
        self._local, self._one = threading.local(), None


def words(question: str) -> list[str]:
    """The words of a question that are searched for, in lower case, each once."""
    found = list(dict.fromkeys(word[:MAX_WORD] for word in _WORD.findall(question.lower())))
    return ([word for word in found if word not in COMMON] or found)[:MAX_WORDS]


def _from_bytes(source: bytes) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        connection.deserialize(source)
    except (sqlite3.Error, OverflowError, MemoryError):  # MemoryError: no bytes at all
        raise BundleError("the index is damaged; pack the collection again") from None
    return connection


def _from_file(path: Path) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def _about(connection: sqlite3.Connection) -> dict[str, Any]:
    try:
        about = dict(connection.execute("SELECT key, value FROM about").fetchall())
        found = {**about, "schema": int(about["schema"]), "dimensions": int(about["dimensions"])}
        found |= {key: about[key] for key in ("embedder", "embedding", "version")}
    except (sqlite3.DatabaseError, KeyError, ValueError) as error:
        raise BundleError(f"no index of a collection, or a damaged one ({error}); pack it again") from None
    if found["schema"] > SCHEMA:
        raise BundleError(f"index schema {found['schema']} is newer than {SCHEMA}; upgrade edgewise")
    return found


def check_search(vector: np.ndarray | None, k: int, how: str) -> None:
    """Raises InputError for a search that cannot be."""
    if how not in HOW:
        raise InputError(f"how must be one of {', '.join(HOW)}, not {how!r}")
    if not 1 <= k <= MAX_K:
        raise InputError(f"k must be from 1 to {MAX_K}, not {k}")
    if how == "dense" and vector is None:
        raise InputError("a dense search needs the question's vector; embed the question first")


def check_vector(about: Mapping[str, Any], vector: np.ndarray, embedder: str | None) -> None:
    """Raises InputError unless the vector is one that `about` (dimensions, embedder) can be compared with."""
    if vector.shape != (about["dimensions"],):
        raise InputError(
            f"the vector has shape {vector.shape}, the index {about['dimensions']} dimensions; "
            "use the embedder that made the index"
        )
    if embedder is not None and embedder != about["embedder"]:
        raise InputError("the index was made by another embedder; reindex the collection or use that one")


def _allowed(connection: sqlite3.Connection, where: Mapping[str, str]) -> np.ndarray:
    """Sorted ids of the passages whose documents have all of `where`, int64."""
    one = "SELECT document FROM metadata WHERE key = ? AND value = ?"
    query = f"SELECT id FROM passages WHERE document IN ({' INTERSECT '.join([one] * len(where))})"
    rows = connection.execute(query, [part for pair in where.items() for part in pair])
    return np.sort(np.fromiter((row[0] for row in rows), np.int64))


def _by_words(
    connection: sqlite3.Connection, question: str, count: int, allowed: np.ndarray | None
) -> list[tuple[int, float]]:
    """(id, BM25) of the passages that have a word of the question, best first."""
    found = words(question)
    if not found:
        return []
    match = " OR ".join(f'"{word}"' for word in found)
    query = "SELECT rowid, rank FROM words WHERE words MATCH ?"
    parts: list[Any] = [match]
    if allowed is not None:
        query += " AND rowid IN (SELECT value FROM json_each(?))"
        parts.append(json.dumps(allowed.tolist()))
    rows = connection.execute(f"{query} ORDER BY rank LIMIT ?", [*parts, count])
    return [(row[0], -row[1]) for row in rows]


def fuse(
    by_words: Sequence[tuple[int, float]], near: Sequence[tuple[int, float]], how: str
) -> list[tuple[int, float, int | None, int | None]]:
    """(id, score, BM25's rank, the vectors' rank), best first."""
    bm25 = {passage: rank for rank, (passage, _) in enumerate(by_words, 1)}
    dense = {passage: rank for rank, (passage, _) in enumerate(near, 1)}
    scores = dict(by_words if how == "bm25" else near)
    if how == "hybrid":
        scores = _summed(dict(by_words), dict(near))
    order = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
    return [(passage, score, bm25.get(passage), dense.get(passage)) for passage, score in order]


def _summed(bm25: Mapping[int, float], cosines: Mapping[int, float]) -> dict[int, float]:
    """WORDS_SHARE of BM25 as a part of its best, the rest of the cosine.

    What one list lacks has at most the last score in it: that is taken, or 0 where the list was not full.
    """
    best = max(bm25.values(), default=1.0)
    no_words = min(bm25.values()) if len(bm25) >= DEPTH else 0.0
    no_cosine = min(cosines.values(), default=0.0)
    return {
        passage: WORDS_SHARE * bm25.get(passage, no_words) / best
        + (1 - WORDS_SHARE) * cosines.get(passage, no_cosine)
        for passage in {**bm25, **cosines}
    }


def _hits(
    connection: sqlite3.Connection, fused: Sequence[tuple[int, float, int | None, int | None]]
) -> list[Hit]:
    loaded = {passage.id: passage for passage in _load(connection, [row[0] for row in fused])}
    return [Hit(loaded[row[0]], *row[1:]) for row in fused if row[0] in loaded]


def _load(connection: sqlite3.Connection, ids: Sequence[int]) -> list[Passage]:
    """Passages in the order of `ids`; ids that do not exist are left out."""
    query = (
        "SELECT p.id, p.document, d.name, p.heading, p.start, p.text, d.metadata FROM passages p "
        "JOIN documents d ON d.id = p.document WHERE p.id IN (SELECT value FROM json_each(?))"
    )
    rows = connection.execute(query, [json.dumps(list(ids))])
    found = {row[0]: _passage(*row) for row in rows}
    return [found[one] for one in ids if one in found]


def _passage(
    id: int, document: str, name: str, heading: str, start: int, text: str, metadata: str
) -> Passage:
    return Passage(id, document, name, heading, start, text, json.loads(metadata))
