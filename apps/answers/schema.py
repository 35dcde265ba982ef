"""The tables of a collection's file; `runtimes/index.py` reads them."""

import sqlite3
from collections.abc import Callable

from runtimes.errors import BundleError
from runtimes.index import SCHEMA

# AUTOINCREMENT: the id of a passage that was deleted never comes back, so what a reader holds cannot turn
# into another text. `words` keeps no text of its own (external content), its triggers keep it in step.
TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, metadata TEXT NOT NULL,
  characters INTEGER NOT NULL, sha256 TEXT NOT NULL, added TEXT NOT NULL);
CREATE TABLE texts (
  document TEXT PRIMARY KEY REFERENCES documents(id) ON DELETE CASCADE, deflated BLOB NOT NULL);
CREATE TABLE metadata (
  document TEXT NOT NULL REFERENCES documents(id) ON DELETE CASCADE, key TEXT NOT NULL, value TEXT NOT NULL,
  PRIMARY KEY (key, value, document)) WITHOUT ROWID;
CREATE INDEX metadata_document ON metadata (document);
CREATE TABLE passages (
  id INTEGER PRIMARY KEY AUTOINCREMENT, document TEXT NOT NULL REFERENCES documents(id) ON DELETE CASCADE,
  heading TEXT NOT NULL, start INTEGER NOT NULL, text TEXT NOT NULL);
CREATE INDEX passages_document ON passages (document);
CREATE TABLE vectors (
  passage INTEGER PRIMARY KEY REFERENCES passages(id) ON DELETE CASCADE, vector BLOB NOT NULL);
CREATE VIRTUAL TABLE words USING fts5(
  heading, text, content='passages', content_rowid='id', tokenize="porter unicode61 remove_diacritics 2");
CREATE TRIGGER passages_added AFTER INSERT ON passages BEGIN
  INSERT INTO words (rowid, heading, text) VALUES (new.id, new.heading, new.text); END;
CREATE TRIGGER passages_gone AFTER DELETE ON passages BEGIN
  INSERT INTO words (words, rowid, heading, text) VALUES ('delete', old.id, old.heading, old.text); END;
"""


def prepare(connection: sqlite3.Connection, embedder: str, dimensions: Callable[[], int]) -> None:
    """Make the tables of a new file; check those of an old one. Raises BundleError."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            _make(connection, embedder, dimensions())
        found = dict(connection.execute("SELECT key, value FROM about").fetchall())
        if int(found["schema"]) > SCHEMA:
            raise BundleError(f"schema {found['schema']} is newer than {SCHEMA}; upgrade edgewise")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _make(connection: sqlite3.Connection, embedder: str, dimensions: int) -> None:
    statement = ""
    for line in TABLES.splitlines(keepends=True):  # executescript would commit on its own
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""
    rows = {"schema": SCHEMA, "embedder": embedder, "dimensions": dimensions, "embedding": 0, "version": 0}
    connection.executemany("INSERT INTO about VALUES (?, ?)", [(k, str(v)) for k, v in rows.items()])
