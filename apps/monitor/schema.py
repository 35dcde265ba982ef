"""The tables of the monitor's file, with their version."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from runtimes.errors import InputError

FILE = "monitor.sqlite"
SCHEMA = 2
# `points` holds a point and what was told of it: `seen` float64 (c,), `expected` and `shares` float32 (c,),
# `parts` uint8, the shares of runtimes.profile.PARTS in 255ths. An alarm's `parts` are JSON, by name.
# A series' `state` and `drift` are those after the point of `state_time`; the points behind that one are
# pushed again after a restart. `alarm_state` is always that after the newest point.
TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;
CREATE TABLE series (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, channels TEXT NOT NULL, made REAL NOT NULL,
  last_time REAL, count INTEGER NOT NULL DEFAULT 0, late INTEGER NOT NULL DEFAULT 0,
  repeated INTEGER NOT NULL DEFAULT 0, profile TEXT, threshold REAL, rules TEXT,
  state TEXT, drift TEXT, state_time REAL, alarm_state TEXT) STRICT;
CREATE TABLE points (
  series INTEGER NOT NULL REFERENCES series(id) ON DELETE CASCADE, time REAL NOT NULL, seen BLOB NOT NULL,
  score REAL, severity REAL, expected BLOB, shares BLOB, parts BLOB,
  PRIMARY KEY (series, time)) WITHOUT ROWID, STRICT;
CREATE TABLE alarms (
  id TEXT PRIMARY KEY, series INTEGER NOT NULL REFERENCES series(id) ON DELETE CASCADE,
  start REAL NOT NULL, end REAL, peak_time REAL NOT NULL, score REAL NOT NULL, severity REAL NOT NULL,
  threshold REAL NOT NULL, channels TEXT NOT NULL, opened REAL NOT NULL, closed REAL,
  acked REAL, acked_by TEXT, note TEXT, parts TEXT) WITHOUT ROWID, STRICT;
CREATE INDEX alarms_of_series ON alarms (series, start);
CREATE INDEX alarms_opened ON alarms (opened);
CREATE TABLE webhooks (
  id TEXT PRIMARY KEY, url TEXT NOT NULL, secret TEXT NOT NULL, series TEXT, cool_down_s REAL NOT NULL,
  made REAL NOT NULL) WITHOUT ROWID, STRICT;
CREATE TABLE deliveries (
  id TEXT PRIMARY KEY, webhook TEXT NOT NULL REFERENCES webhooks(id) ON DELETE CASCADE,
  alarm TEXT NOT NULL, series TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL,
  attempts INTEGER NOT NULL, made REAL NOT NULL, due REAL NOT NULL, ended REAL,
  said TEXT) WITHOUT ROWID, STRICT;
CREATE INDEX deliveries_due ON deliveries (webhook, state, due);
CREATE INDEX deliveries_of_webhook ON deliveries (webhook, series, made);
CREATE TABLE log (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, series TEXT, kind TEXT NOT NULL, who TEXT NOT NULL,
  detail TEXT NOT NULL) STRICT;
CREATE INDEX log_of_series ON log (series, id);
"""


def _add_parts(opened: sqlite3.Connection) -> None:
    """To 2: what was stored before has none."""
    opened.execute("ALTER TABLE points ADD COLUMN parts BLOB")
    opened.execute("ALTER TABLE alarms ADD COLUMN parts TEXT")


# From version n to n + 1, in order.
STEPS: Sequence[Callable[[sqlite3.Connection], None]] = (_add_parts,)


def connect(path: Path) -> sqlite3.Connection:
    """A connection that writes. What COMMIT returned from survives a kill and a power cut."""
    opened = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "cache_size = -16000"):
        opened.execute(f"PRAGMA {pragma}")
    return opened


def reading(path: Path) -> sqlite3.Connection:
    """A connection that only reads, for one thread and a short time."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5, isolation_level=None)


def prepare(path: Path) -> sqlite3.Connection:
    """Makes the file, readable by its owner only, or opens it and brings it to this version.

    Raises InputError where it is something else or of a newer version.
    """
    path.touch(mode=0o600, exist_ok=True)
    try:
        opened = connect(path)
        opened.execute("BEGIN IMMEDIATE")
        if not opened.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            _make(opened)
        _upgrade(opened)
        opened.execute("COMMIT")
    except (sqlite3.DatabaseError, TypeError, ValueError) as error:
        raise InputError(f"{path}: no file of the monitor, or a damaged one ({error}); restore it") from None
    return opened


def _make(opened: sqlite3.Connection) -> None:
    for statement in TABLES.split(";\n")[:-1]:  # executescript would commit on its own
        opened.execute(statement)
    opened.execute("INSERT INTO about VALUES ('schema', ?)", [str(SCHEMA)])


def _upgrade(opened: sqlite3.Connection) -> None:
    version = int(opened.execute("SELECT value FROM about WHERE key = 'schema'").fetchone()[0])
    if version > SCHEMA:
        raise InputError(f"the file's schema {version} is newer than {SCHEMA}; upgrade edgewise")
    for step in STEPS[version - 1 :]:
        step(opened)
    opened.execute("UPDATE about SET value = ? WHERE key = 'schema'", [str(SCHEMA)])
