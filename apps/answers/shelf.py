"""The collections of one folder: each a file of its own, so that none can see into another."""

import secrets
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from apps.answers.store import Store
from apps.web.keys import COLLECTION, Key, check_collection
from apps.web.replies import Refused, clip

FOLDER = "collections"
FILE = "index.sqlite"
FIRST = "documents"  # so that a new service can be used at once
MAX_COLLECTIONS = 1000


class Shelf:
    """Opens each collection when it is first asked for. From any thread.

    A collection is a folder with its SQLite file (and that file's log), so that it goes in one rename.
    """

    def __init__(self, folder: Path, open_store: Callable[[Path], Store], embedder: str) -> None:
        """`embedder`: the digest of the one in use. Collections of another one are opened as `stale`."""
        self.folder = folder / FOLDER
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # documents are their owner's alone
        self.folder.chmod(0o700)
        self.open_store, self.embedder = open_store, embedder
        self.stale: set[str] = set()
        self.lock = threading.Lock()
        self.open: dict[str, Store] = {}
        self.writing: dict[str, threading.Lock] = {}
        for path in self.folder.glob(".gone-*"):  # a deletion that was cut off
            shutil.rmtree(path, ignore_errors=True)
        for name in self.names():
            self.store(name)
        if not self.open:
            self.create(FIRST)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if self.has(path.name))

    def seen_by(self, key: Key) -> list[str]:
        return [name for name in self.names() if key.sees(name)]

    def check(self, key: Key, name: str) -> str:
        """The name, where it exists and the key sees it. Raises Refused (404), alike for both."""
        if not key.sees(name) or not self.has(name):
            raise _no_such(name)
        return name

    def has(self, name: str) -> bool:
        return COLLECTION.fullmatch(name) is not None and (self.folder / name / FILE).is_file()

    def store(self, name: str) -> Store:
        """Raises Refused (404) where it is gone."""
        with self.lock:
            if name not in self.open:
                if not self.has(name):
                    raise _no_such(name)
                self.open[name] = self.open_store(self.folder / name / FILE)
                if self.open[name].describe()["embedder"] != self.embedder:
                    self.stale.add(name)
            return self.open[name]

    def create(self, name: str) -> None:
        """An empty collection. Raises InputError for a bad name, Refused: 409 exists, 422 too many."""
        check_collection(name)
        with self.lock:
            if self.has(name):
                raise Refused(409, f"there is a collection {clip(name)} already; choose another name")
            if len(self.names()) >= MAX_COLLECTIONS:
                raise Refused(422, f"{MAX_COLLECTIONS} collections are the most; delete one")
            (self.folder / name).mkdir(exist_ok=True)
            self.open[name] = self.open_store(self.folder / name / FILE)

    def write_lock(self, name: str) -> threading.Lock:
        """Held by whoever writes into the collection or takes it away."""
        with self.lock:
            return self.writing.setdefault(name, threading.Lock())

    def hide(self, name: str) -> tuple[Path, Store | None]:
        """From now on nobody finds it. `discard` takes away what this gives."""
        gone = self.folder / f".gone-{secrets.token_hex(8)}"
        with self.lock:
            if not self.has(name):
                raise _no_such(name)
            (self.folder / name).rename(gone)
            return gone, self.open.pop(name, None)

    def discard(self, name: str, gone: Path, store: Store | None) -> None:
        """Closes and deletes a hidden collection, when nobody writes in it and nobody reads any more."""
        with self.write_lock(name):
            if store is not None:
                store.close()
            shutil.rmtree(gone)

    def close(self) -> None:
        with self.lock:
            for store in self.open.values():
                store.close()
            self.open.clear()


def _no_such(name: str) -> Refused:
    return Refused(404, f"there is no collection {clip(name)}; GET /collections lists yours")
