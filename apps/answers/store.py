"""Where a collection's documents are kept and searched: one small interface, and SQLite behind it.

A write is one transaction in a write-ahead log: it is there whole when the call returns, or not at all, and
readers go on meanwhile. What is slow (cutting, embedding) is done before the transaction begins.
"""

import hashlib
import json
import sqlite3
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from apps.answers import schema
from apps.answers.documents import MAX_CHARS, Parsed, check, check_id
from apps.answers.passages import Piece, cut
from runtimes.errors import BundleError, InputError
from runtimes.index import Hit, Index, Passage
from runtimes.vectors import pack

Embed = Callable[[Sequence[str]], np.ndarray]
BATCH = 64  # passages that are embedded at a time
BUSY_SECONDS = 30  # how long a write waits for another process's


@dataclass(frozen=True)
class Entry:
    """What a list shows of a document; `sha256` is of its plain text, `added` an ISO time in UTC."""

    id: str
    name: str
    kind: str
    metadata: dict[str, str]
    characters: int
    sha256: str
    added: str


class Store(Protocol):
    """A collection. What `delete` returned from, no later `search` finds."""

    def add(self, document: Parsed, id: str | None = None) -> str: ...
    def update(self, id: str, document: Parsed) -> None: ...
    def delete(self, id: str) -> bool: ...
    def get(self, id: str) -> tuple[Entry, str] | None: ...
    def entries(self, where: Mapping[str, str] | None = None) -> list[Entry]: ...
    def reindex(self, embed: Embed, embedder: str) -> None: ...
    def search(
        self,
        question: str,
        vector: np.ndarray | None = None,
        k: int = 10,
        where: Mapping[str, str] | None = None,
        how: str = "hybrid",
    ) -> list[Hit]: ...
    def passages(self, document: str) -> list[Passage]: ...
    def describe(self) -> dict[str, Any]: ...
    def close(self) -> None: ...


class SqliteStore:
    """A collection in one SQLite file. Safe to use from many threads and processes."""

    def __init__(self, path: Path, embed: Embed, embedder: str) -> None:
        """Open or make the file. `embedder` is the digest of what `embed` is.

        A file of another embedder opens, but only `reindex` and a search by words work until it is done.
        Raises BundleError where the file is something else or of a newer schema.
        """
        self.path, self._by = Path(path), (embed, embedder)
        self._lock = threading.RLock()
        try:
            self._writer = self._open()
            schema.prepare(self._writer, embedder, lambda: int(embed(["dimensions"]).shape[1]))
        except (sqlite3.DatabaseError, KeyError, ValueError) as error:
            raise BundleError(f"{path}: no collection, or a damaged one ({error}); restore it") from None
        self.index = Index(self._open)

    def add(self, document: Parsed, id: str | None = None) -> str:
        """Cut, embed and keep a document; returns its id (a new one where none is given).

        Raises InputError for an id that exists, and for what `documents.check` refuses.
        """
        id = uuid.uuid4().hex if id is None else id
        check_id(id)
        self._put(id, document, new=True)
        return id

    def update(self, id: str, document: Parsed) -> None:
        """Put another text in a document's place, at once. Raises InputError where the id does not exist."""
        self._put(id, document, new=False)

    def delete(self, id: str) -> bool:
        """Whether there was one to delete; once this returns, no search finds it."""
        with self._write() as writer:
            return self._remove(writer, id)

    def get(self, id: str) -> tuple[Entry, str] | None:
        """A document's entry and its plain text."""
        query = f"SELECT {_ENTRY}, deflated FROM documents d JOIN texts t ON t.document = d.id WHERE d.id = ?"
        with self.index.reading() as connection:
            row = connection.execute(query, [id]).fetchone()
        return None if row is None else (_entry(row[:-1]), _inflate(row[-1]))

    def entries(self, where: Mapping[str, str] | None = None) -> list[Entry]:
        """All documents that have all of `where` in their metadata, the oldest first."""
        one = "d.id IN (SELECT document FROM metadata WHERE key = ? AND value = ?)"
        pairs = list((where or {}).items())
        wanted = " AND ".join(["1", *[one] * len(pairs)])
        query = f"SELECT {_ENTRY} FROM documents d WHERE {wanted} ORDER BY d.rowid"
        with self.index.reading() as connection:
            rows = connection.execute(query, [part for pair in pairs for part in pair]).fetchall()
        return [_entry(row) for row in rows]

    def reindex(self, embed: Embed, embedder: str) -> None:
        """Embed all passages anew; questions are answered by the old vectors until the new ones stand."""
        made: dict[int, bytes] = {}
        while self._embed_missing(made, embed):
            pass
        dimensions = int(embed(["dimensions"]).shape[1])
        with self._lock:
            with self._write() as writer:
                self._embed_missing(made, embed)  # what was added since the last look; no one else writes now
                _replace_vectors(writer, made, embedder, dimensions)
            self._by = (embed, embedder)

    def search(
        self,
        question: str,
        vector: np.ndarray | None = None,
        k: int = 10,
        where: Mapping[str, str] | None = None,
        how: str = "hybrid",
    ) -> list[Hit]:
        """As `Index.search`; without a vector the question is embedded here."""
        if vector is not None or how == "bm25":
            return self.index.search(question, vector, k, where, how)
        while True:
            embed, embedder = self._by
            try:
                return self.index.search(question, embed([question])[0], k, where, how, embedder)
            except InputError:
                if not self._changed(embedder):
                    raise

    def passages(self, document: str) -> list[Passage]:
        return self.index.passages(document)

    def describe(self) -> dict[str, Any]:
        return self.index.describe()

    def close(self) -> None:
        self.index.close()
        self._writer.close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction, the only one that writes; nothing of it stays where the block raises."""
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("UPDATE about SET value = value + 1 WHERE key = 'version'")
                self._writer.execute("COMMIT")
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise

    def _put(self, id: str, document: Parsed, new: bool) -> None:
        check(document)
        pieces = cut(document)
        while True:
            embed, embedder = self._by
            vectors = pack(embedded([told(piece.heading, piece.text) for piece in pieces], embed))
            with self._write() as writer:
                if _made_by(writer) == embedder:
                    check_there(writer, id, new)
                    self._remove(writer, id)
                    _insert(writer, id, document, pieces, vectors)
                    return
            if not self._changed(embedder):
                raise InputError(f"{self.path}: another embedder made this collection; reindex it first")

    def _changed(self, embedder: str) -> bool:
        """Whether a reindex has put another embedder in this one's place; waits for one that is at work."""
        with self._lock:
            return self._by[1] != embedder

    def _remove(self, writer: sqlite3.Connection, id: str) -> bool:
        # Passages first: a cascade would not fire the triggers that keep `words` in step.
        writer.execute("DELETE FROM passages WHERE document = ?", [id])
        return writer.execute("DELETE FROM documents WHERE id = ?", [id]).rowcount > 0

    def _embed_missing(self, made: dict[int, bytes], embed: Embed) -> bool:
        """Embed the passages that `made` lacks; whether there were any."""
        with self.index.reading() as connection:
            rows = connection.execute("SELECT id, heading, text FROM passages").fetchall()
        rows = [row for row in rows if row[0] not in made]
        vectors = pack(embedded([told(*row[1:]) for row in rows], embed)) if rows else []
        made.update(zip((row[0] for row in rows), vectors, strict=True))
        return bool(rows)


_ENTRY = "d.id, d.name, d.kind, d.metadata, d.characters, d.sha256, d.added"


def _entry(row: Sequence[Any]) -> Entry:
    id, name, kind, metadata, *rest = row
    return Entry(id, name, kind, json.loads(metadata), *rest)


def _inflate(deflated: bytes) -> str:
    return zlib.decompressobj().decompress(deflated, 4 * MAX_CHARS).decode()


def told(heading: str, text: str) -> str:
    """What is embedded of a passage: its heading tells what its sentences are about."""
    return f"{heading}\n{text}" if heading else text


def embedded(texts: Sequence[str], embed: Embed) -> np.ndarray:
    parts = [np.asarray(embed(texts[at : at + BATCH])) for at in range(0, len(texts), BATCH)]
    return np.concatenate(parts)


def _replace_vectors(
    writer: sqlite3.Connection, made: Mapping[int, bytes], embedder: str, dimensions: int
) -> None:
    present = {row[0] for row in writer.execute("SELECT id FROM passages")}
    writer.execute("DELETE FROM vectors")
    rows = [(passage, vector) for passage, vector in made.items() if passage in present]
    writer.executemany("INSERT INTO vectors VALUES (?, ?)", rows)
    for key, value in (("embedder", embedder), ("dimensions", str(dimensions))):
        writer.execute("UPDATE about SET value = ? WHERE key = ?", [value, key])
    writer.execute("UPDATE about SET value = value + 1 WHERE key = 'embedding'")


def _made_by(connection: sqlite3.Connection) -> str:
    return connection.execute("SELECT value FROM about WHERE key = 'embedder'").fetchone()[0]


def check_there(connection: sqlite3.Connection, id: str, new: bool) -> None:
    there = connection.execute("SELECT 1 FROM documents WHERE id = ?", [id]).fetchone() is not None
    if there and new:
        raise InputError(f"document {id!r} exists; update it, or add under another id")
    if not there and not new:
        raise InputError(f"no document {id!r}; add it first")


def _insert(
    connection: sqlite3.Connection,
    id: str,
    document: Parsed,
    pieces: Sequence[Piece],
    vectors: Sequence[bytes],
) -> None:
    metadata = dict(document.metadata)
    data = document.text.encode()
    connection.execute(
        "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            id,
            document.name,
            document.kind,
            json.dumps(metadata, ensure_ascii=False),
            len(document.text),
            hashlib.sha256(data).hexdigest(),
            datetime.now(UTC).isoformat(timespec="seconds"),
        ],
    )
    connection.execute("INSERT INTO texts VALUES (?, ?)", [id, zlib.compress(data)])
    rows = [(id, key, value) for key, value in metadata.items()]
    connection.executemany("INSERT INTO metadata VALUES (?, ?, ?)", rows)
    query = "INSERT INTO passages (document, heading, start, text) VALUES (?, ?, ?, ?)"
    for piece, vector in zip(pieces, vectors, strict=True):
        passage = connection.execute(query, [id, piece.heading, piece.start, piece.text]).lastrowid
        connection.execute("INSERT INTO vectors VALUES (?, ?)", [passage, vector])
