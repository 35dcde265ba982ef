"""API keys: who may do what with which collections or series. Only hashes are stored, in one SQLite file."""

import hashlib
import hmac
import json
import re
import secrets
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from runtimes.errors import InputError

FILE = "keys.sqlite"
Role = Literal["read", "write", "admin"]
ROLES: tuple[str, ...] = get_args(Role)  # each may do what those before it may
COLLECTION = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
SERIES = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_PER_MINUTE = 1_000_000
_KEY = re.compile(r"ew_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_TABLE = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, hash BLOB NOT NULL, role TEXT NOT NULL,
    collections TEXT, per_minute INTEGER, made TEXT NOT NULL, revoked TEXT
) STRICT
"""


@dataclass(frozen=True)
class Key:
    """`collections` None: all of them. `per_minute` None: the service's own rate. Times are ISO, UTC."""

    id: str
    name: str
    role: Role
    collections: frozenset[str] | None = None
    per_minute: int | None = None
    made: str = ""
    revoked: str | None = None

    def may(self, role: Role) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)

    def sees(self, collection: str) -> bool:
        return self.collections is None or collection in self.collections


NOBODY = Key("-", "no key", "admin")  # who asks where no key was ever made


class Keys:
    """The keys of one folder. What another process makes or revokes holds from the next request on."""

    def __init__(self, folder: Path) -> None:
        """Opens or makes the file, readable by its owner only. Raises InputError where it is none."""
        path = folder / FILE
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
        self.lock = threading.Lock()
        self.file = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
        try:
            self.file.execute("PRAGMA journal_mode = WAL")
            self.file.execute(_TABLE)
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{path}: is no file of keys ({error}); move it away and make new keys"
            ) from None

    def make(
        self,
        name: str,
        role: str = "read",
        collections: Iterable[str] | None = None,
        per_minute: int | None = None,
        series: Iterable[str] | None = None,
    ) -> tuple[Key, str]:
        """A new key and its text, which is told this once. Raises InputError for what cannot be.

        `collections` and `series` are what it is bound to; with neither it opens all.
        """
        bound = None if collections is None else frozenset(map(check_collection, collections))
        if series is not None:
            bound = (bound or frozenset()) | frozenset(map(check_series, series))
        _check(name, role, bound, per_minute)
        id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        text, now = f"ew_{id}_{secret}", _now()
        listed = None if bound is None else json.dumps(sorted(bound))
        self._run(
            "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
            (id, name, hashed(text), role, listed, per_minute, now),
        )
        return Key(id, name, role, bound, per_minute, now), text  # type: ignore[arg-type]

    def revoke(self, id: str) -> Key:
        """From now on that key opens nothing. Raises InputError where there is no such key."""
        self._run("UPDATE keys SET revoked = ? WHERE id = ? AND revoked IS NULL", (_now(), id))
        found = self._run(f"{_SELECT} WHERE id = ?", (id,))
        if not found:
            raise InputError(f"there is no key {id!r}; `edgewise keys FOLDER` lists them")
        return _key(found[0])

    def all(self) -> list[Key]:
        """All keys, the oldest first, revoked ones too."""
        return [_key(row) for row in self._run(f"{_SELECT} ORDER BY made, id")]

    def find(self, text: str) -> Key | None:
        """The key of that text; None for a wrong or revoked one. The hash is compared in constant time."""
        match = _KEY.fullmatch(text)
        found = self._run(f"{_SELECT} WHERE id = ?", (match[1],)) if match else []
        stored = found[0]["hash"] if found else bytes(32)
        if not hmac.compare_digest(stored, hashed(text)) or found[0]["revoked"]:
            return None
        return _key(found[0])

    def needed(self) -> bool:
        """True as soon as one was ever made: to revoke the last one closes the service, and opens nothing."""
        return bool(self._run("SELECT 1 AS one FROM keys LIMIT 1"))

    def close(self) -> None:
        self.file.close()

    def _run(self, statement: str, values: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        with self.lock:
            cursor = self.file.execute(statement, values)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor]


_SELECT = "SELECT id, name, hash, role, collections, per_minute, made, revoked FROM keys"


def hashed(text: str) -> bytes:
    """SHA-256. A key has 256 random bits, so nobody tries them all: a slow hash would only slow us."""
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def check_collection(name: str) -> str:
    """The name of a collection, which is also its file's. Raises InputError for one that cannot be."""
    if not COLLECTION.fullmatch(name):
        raise InputError(
            f"{name[:70]!r} is no name for a collection; use up to 64 of a-z, 0-9, - and _, as in manuals-26"
        )
    return name


def check_series(name: str) -> str:
    """The name of a series. Raises InputError for one that cannot be."""
    if not SERIES.fullmatch(name):
        raise InputError(
            f"{name[:70]!r} is no name for a series; use up to 64 of A-z, 0-9, dot, - and _, as in cpu.load"
        )
    return name


def _key(row: dict[str, Any]) -> Key:
    bound = None if row["collections"] is None else frozenset(json.loads(row["collections"]))
    return Key(row["id"], row["name"], row["role"], bound, row["per_minute"], row["made"], row["revoked"])


def _check(name: str, role: str, bound: frozenset[str] | None, per_minute: int | None) -> None:
    if not name.strip() or len(name) > 80 or not name.isprintable():
        raise InputError("the key's name must have 1 to 80 visible characters; say who uses it")
    if role not in ROLES:
        raise InputError(f"there is no role {role!r}; choose {', '.join(ROLES)}")
    if bound is not None and not bound:
        raise InputError("a key for no collection and no series opens nothing; name one")
    if per_minute is not None and not 1 <= per_minute <= MAX_PER_MINUTE:
        raise InputError(f"{per_minute} requests a minute; give 1 to {MAX_PER_MINUTE}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
