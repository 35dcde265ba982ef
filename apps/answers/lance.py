"""A collection on object storage: LanceDB (`pip install "edgewise[lance]"`) behind the store's interface.

For those who outgrow one machine: many readers, one writer at a time, on S3 or any folder. A write is one
commit of one table, so it is there whole or not at all, for every reader at once.
"""

import hashlib
import json
import secrets
import threading
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from apps.answers.documents import Parsed, check, check_id
from apps.answers.passages import cut
from apps.answers.store import Embed, Entry, embedded, told
from runtimes.errors import BundleError, InputError
from runtimes.index import DEPTH, SCHEMA, Hit, Passage, check_search, check_vector, fuse, words

_ENTRY = ("document", "name", "kind", "metadata", "characters", "sha256", "added")
_PASSAGE = ("id", "document", "name", "heading", "start", "text", "metadata")


class LanceStore:
    """A collection as tables under `uri` (`s3://bucket/folder` or a path). Safe to use from many threads."""

    def __init__(
        self, uri: str, embed: Embed, embedder: str, storage_options: Mapping[str, str] | None = None
    ) -> None:
        """Open or make it. `storage_options` are the object store's: endpoint, keys, region.

        Raises InputError where LanceDB is not installed or the storage cannot be reached.
        """
        try:
            import lancedb
        except ImportError:
            raise InputError('LanceDB is not installed; `pip install "edgewise[lance]"`') from None
        self._by, self._lock = (embed, embedder), threading.RLock()
        try:
            # No interval: every search looks for the newest commit, so a delete elsewhere is seen at once.
            self._base = lancedb.connect(
                uri, storage_options=dict(storage_options or {}), read_consistency_interval=timedelta(0)
            )
            if "about" not in self._base.table_names():
                self._begin("passages_0", embed, embedder, [])
            self._about_table = self._base.open_table("about")
            self._tables: dict[str, Any] = {}
            about = self._about()
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{uri}: cannot be opened ({str(error).splitlines()[0][:200]})") from None
        if about["schema"] > SCHEMA:
            raise BundleError(f"{uri}: schema {about['schema']} is newer than {SCHEMA}; upgrade edgewise")

    def add(self, document: Parsed, id: str | None = None) -> str:
        """As `SqliteStore.add`."""
        id = uuid.uuid4().hex if id is None else id
        check_id(id)
        with self._lock:
            rows = self._rows(id, document)
            if self._entry_rows(f"document = {quoted(id)}"):
                raise InputError(f"document {id!r} exists; update it, or add under another id")
            self._table().add(rows)
        return id

    def update(self, id: str, document: Parsed) -> None:
        """As `SqliteStore.update`: old passages go and new ones come in one commit."""
        check_id(id)
        with self._lock:
            rows = self._rows(id, document)
            if not self._entry_rows(f"document = {quoted(id)}"):
                raise InputError(f"no document {id!r}; add it first")
            merge = self._table().merge_insert("id").when_not_matched_insert_all()
            merge.when_not_matched_by_source_delete(f"document = {quoted(id)}").execute(rows)

    def delete(self, id: str) -> bool:
        """Whether there was one to delete; once this returns, no search finds it."""
        with self._lock:
            wanted = f"document = {quoted(id)}"
            there = bool(self._entry_rows(wanted))
            if there:
                self._table().delete(wanted)
            return there

    def get(self, id: str) -> tuple[Entry, str] | None:
        """A document's entry and its plain text."""
        found = self._entry_rows(f"document = {quoted(id)}", "whole")
        return (_entry(found[0]), found[0]["whole"]) if found else None

    def entries(self, where: Mapping[str, str] | None = None) -> list[Entry]:
        """All documents that have all of `where` in their metadata, the oldest first."""
        found = self._entry_rows(filtered(where) if where else None)
        return sorted((_entry(row) for row in found), key=lambda entry: entry.added)

    def reindex(self, embed: Embed, embedder: str) -> None:
        """Embed all passages anew, in a new table; questions go to the old one until it stands."""
        with self._lock:
            about, rows = self._about(), self._table().to_arrow().to_pylist()
            if rows:
                vectors = embedded([told(row["heading"], row["text"]) for row in rows], embed)
                rows = [row | {"vector": vector} for row, vector in zip(rows, vectors, strict=True)]
            number = int(about["table"].rpartition("_")[2]) + 1
            self._begin(f"passages_{number}", embed, embedder, rows)
            self._by = (embed, embedder)
            for old in self._base.table_names():  # the last one stays for the searches that are in it
                if old not in ("about", about["table"], f"passages_{number}"):
                    self._base.drop_table(old)

    def search(
        self,
        question: str,
        vector: np.ndarray | None = None,
        k: int = 10,
        where: Mapping[str, str] | None = None,
        how: str = "hybrid",
    ) -> list[Hit]:
        """As `SqliteStore.search`."""
        about = self._about()
        if vector is None and how != "bm25":
            embed, about = self._agreed(about)
            vector = embed([question])[0]
        check_search(vector, k, how)
        if vector is not None and how != "bm25":
            check_vector(about, vector, None)
        table = self._table(about)
        condition, count = filtered(where) if where else None, max(k, DEPTH)
        rows: dict[int, Any] = {}
        by_words = _by_words(table, question, count, condition, rows) if how != "dense" else []
        near = _near(table, vector, count, condition, rows) if vector is not None and how != "bm25" else []
        found = fuse(by_words, near, how)[:k]
        return [Hit(_passage(rows[id]), score, bm25, dense) for id, score, bm25, dense in found]

    def passages(self, document: str) -> list[Passage]:
        query = self._table().search().where(f"document = {quoted(document)}").select(list(_PASSAGE))
        return sorted((_passage(row) for row in query.limit(None).to_list()), key=lambda one: one.start)

    def describe(self) -> dict[str, Any]:
        """schema, embedder (digest), dimensions, documents, passages."""
        table = self._table()
        about = {key: value for key, value in self._about().items() if key != "table"}
        return about | {
            "documents": table.count_rows("whole IS NOT NULL"),
            "passages": table.count_rows(),
        }

    def compact(self) -> None:
        """Merge small files and bring the index of words up to date; searches are right without it too."""
        with self._lock:
            self._table().optimize(cleanup_older_than=timedelta(0))

    def close(self) -> None:
        self._tables.clear()

    def _begin(self, name: str, embed: Embed, embedder: str, rows: list[dict[str, Any]]) -> None:
        """A new table of passages; with the row of `about` it becomes the one that all use."""
        import pyarrow as pa
        from lancedb.index import FTS

        dimensions = int(embed(["dimensions"]).shape[1])
        texts = ("document", "name", "kind", "metadata", "sha256", "added", "heading", "text", "whole")
        fields = [("id", pa.int64()), *((key, pa.string()) for key in texts)]
        fields += [("characters", pa.int64()), ("start", pa.int64()), ("pairs", pa.list_(pa.string()))]
        fields += [("vector", pa.list_(pa.float32(), dimensions))]
        table = self._base.create_table(name, rows or None, schema=pa.schema(fields), mode="overwrite")
        table.create_index("text", config=FTS(remove_stop_words=False))
        about = {"schema": SCHEMA, "embedder": embedder, "dimensions": dimensions, "table": name}
        self._base.create_table("about", [about], mode="overwrite")
        self._about_table = self._base.open_table("about")

    def _about(self) -> dict[str, Any]:
        return self._about_table.to_arrow().to_pylist()[0]

    def _agreed(self, about: dict[str, Any]) -> tuple[Embed, dict[str, Any]]:
        """The embedder and the collection that it made; waits for a reindex that is at work here."""
        embed, embedder = self._by
        if about["embedder"] != embedder:
            with self._lock:
                (embed, embedder), about = self._by, self._about()
            if about["embedder"] != embedder:
                raise InputError("another embedder made this collection; reindex it first")
        return embed, about

    def _table(self, about: dict[str, Any] | None = None) -> Any:
        name = (about or self._about())["table"]
        if name not in self._tables:
            self._tables = {name: self._base.open_table(name)}
        return self._tables.get(name) or self._base.open_table(name)

    def _rows(self, id: str, document: Parsed) -> list[dict[str, Any]]:
        check(document)
        embed, _ = self._agreed(self._about())
        pieces = cut(document)
        vectors = embedded([told(piece.heading, piece.text) for piece in pieces], embed)
        shared = {
            "document": id,
            "name": document.name,
            "kind": document.kind,
            "metadata": json.dumps(dict(document.metadata), ensure_ascii=False),
            "characters": len(document.text),
            "sha256": hashlib.sha256(document.text.encode()).hexdigest(),
            "added": datetime.now(UTC).isoformat(timespec="microseconds"),
            "pairs": [pair(key, value) for key, value in document.metadata.items()],
        }
        return [
            shared
            | {"id": secrets.randbits(62), "heading": piece.heading, "start": piece.start, "text": piece.text}
            # The whole text stands once, with the first passage.
            | {"whole": document.text if number == 0 else None, "vector": np.asarray(vector, np.float32)}
            for number, (piece, vector) in enumerate(zip(pieces, vectors, strict=True))
        ]

    def _entry_rows(self, condition: str | None, *more: str) -> list[dict[str, Any]]:
        first = "whole IS NOT NULL" + (f" AND {condition}" if condition else "")
        return self._table().search().where(first).select([*_ENTRY, *more]).limit(None).to_list()


def _by_words(
    table: Any, question: str, count: int, condition: str | None, rows: dict[int, Any]
) -> list[tuple[int, float]]:
    from lancedb.query import MatchQuery

    asked: Any = MatchQuery  # its types ask for all that has a default
    found = words(question)
    if not found:
        return []
    return _scored(table.search(asked(" ".join(found), "text")), count, condition, rows, "_score")


def _near(
    table: Any, vector: np.ndarray, count: int, condition: str | None, rows: dict[int, Any]
) -> list[tuple[int, float]]:
    query = table.search(np.asarray(vector, np.float32)).distance_type("cosine")
    return [(id, 1 - distance) for id, distance in _scored(query, count, condition, rows, "_distance")]


def _scored(
    query: Any, count: int, condition: str | None, rows: dict[int, Any], score: str
) -> list[tuple[int, float]]:
    if condition:
        query = query.where(condition, prefilter=True)
    found = query.select([*_PASSAGE, score]).limit(count).to_list()
    rows |= {row["id"]: row for row in found}
    return [(row["id"], row[score]) for row in found]


def quoted(text: str) -> str:
    """A text as a literal of SQL: what is in it never acts."""
    return "'" + text.replace("'", "''") + "'"


def pair(key: str, value: str) -> str:
    """One metadata key with its value, as one text that no other pair gives."""
    return json.dumps([key, value], ensure_ascii=False)


def filtered(where: Mapping[str, str]) -> str:
    return " AND ".join(f"array_has(pairs, {quoted(pair(*one))})" for one in where.items())


def _entry(row: Mapping[str, Any]) -> Entry:
    id, name, kind, metadata, *rest = (row[key] for key in _ENTRY)
    return Entry(id, name, kind, json.loads(metadata), *rest)


def _passage(row: Mapping[str, Any]) -> Passage:
    values = {key: row[key] for key in _PASSAGE}
    return Passage(**values | {"metadata": json.loads(row["metadata"])})
