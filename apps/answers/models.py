"""The two models behind the service, and how many questions are answered by one call of each."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from apps.answers.shelf import Shelf
from apps.web.identity import digest_of
from runtimes.ask import Answered, Asker, Hit
from runtimes.confidence import Calibration
from runtimes.errors import InputError
from runtimes.load import load
from runtimes.tasks.answer import Reader
from runtimes.tasks.embed import Embedder

PASSAGES = 4  # embedded by one call of an upload: a question waits no longer than for these


@dataclass(frozen=True)
class Ask:
    """One question, and the collection that it is asked of."""

    question: str
    collection: str
    where: Mapping[str, str] = field(default_factory=dict)
    k: int | None = None


class Models:
    """`digest` names the embedder: a collection that another one made is refused."""

    def __init__(
        self, reader: Reader, embedder: Embedder, digest: str, calibration: Calibration | None = None
    ) -> None:
        self.reader, self.embedder, self.digest = reader, embedder, digest
        self.calibration = calibration or Calibration()
        self.lock = threading.Lock()  # not every engine's session takes calls of two threads

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (texts, dimensions), of length 1."""
        with self.lock:
            return self.embedder(list(texts))

    def embed(self, texts: Sequence[str], step: Callable[[int], None]) -> np.ndarray:
        """The same in small calls, so that questions come between. `step` is told how many each has made."""
        made = []
        for start in range(0, len(texts), PASSAGES):
            made.append(self.vectors(texts[start : start + PASSAGES]))
            step(len(made[-1]))
        return np.concatenate(made) if made else np.empty((0, 0), np.float32)

    def answers(self, asks: Sequence[Ask], shelf: Shelf) -> list[Answered]:
        """Answers to questions of several collections at once, in their order."""
        index = _InTurn(iter(asks), shelf, self.calibration.k)
        asker = Asker(self.reader, self.vectors, index, self.calibration)
        return asker.many([one.question for one in asks])

    def describe(self) -> dict[str, dict[str, Any]]:
        return {"reader": self.reader.describe(), "embedder": self.embedder.describe()}


@dataclass(frozen=True)
class _InTurn:
    """Stands for an index: an asker searches once for each question in their order, and each question has
    its own collection, filter and k."""

    asks: Iterator[Ask]
    shelf: Shelf
    k: int

    def search(
        self, question: str, vector: np.ndarray | None, k: int, where: Mapping[str, str] | None = None
    ) -> Sequence[Hit]:
        one = next(self.asks)
        store, k = self.shelf.store(one.collection), one.k or self.k
        if one.collection in self.shelf.stale:  # its vectors are another embedder's
            return store.search(question, None, k, one.where or None, "bm25")
        return store.search(question, vector, k, one.where or None)


def open_models(
    reader: Path, embedder: Path, threads: int = 1, calibration: Calibration | None = None
) -> Models:
    """From two bundles (or checkpoints). Raises BundleError, InputError for another kind of model."""
    found = [load(path, threads=threads) for path in (reader, embedder)]
    for path, model, kind in zip((reader, embedder), found, (Reader, Embedder), strict=True):
        if not isinstance(model, kind):
            raise InputError(f"{path}: is no {kind.__name__.lower()}; give the bundle of one")
    return Models(found[0], found[1], digest_of(embedder), calibration)
