"""Task `feature-extraction`: text → one vector, by the mean of its tokens, of length 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtimes.engines import Session
from runtimes.errors import EngineError
from runtimes.text import Prepared, Tokenizer, prepare, unpadded

OUTPUT = "sentence_embedding"  # (texts, dimensions)


@dataclass(frozen=True)
class Embedder:
    """A callable sentence encoder on any engine; the dot product of two vectors is their cosine."""

    session: Session
    tokenizer: Tokenizer
    limits: dict[str, int]
    about: dict[str, Any]

    def __call__(self, texts: str | Sequence[str]) -> np.ndarray:
        """float32 (dimensions,) of one text, (texts, dimensions) of a list.

        Raises InputError for an empty text or something that is no text.
        """
        if isinstance(texts, str):
            return self.run(self.prepare([texts]))[0]
        return self.run(self.prepare(texts))

    def prepare(self, texts: Sequence[str]) -> list[Prepared]:
        """Tokenize, sort by length and pad; a text longer than `max_tokens` is cut.

        Texts are read as they are, markup too, as sentence-transformers reads them.
        """
        return prepare(texts, self.tokenizer, self.limits["max_chars"], self.session.lengths, raw=True)

    def run(self, prepared: Sequence[Prepared]) -> np.ndarray:
        """Vectors of prepared batches, in the order of the texts."""
        found: np.ndarray = np.empty((0, 0), np.float32)
        count = sum(len(batch.rows) for batch in prepared)
        for batch in prepared:
            vectors = pooled(self._states(batch), batch.feeds["attention_mask"])
            if not found.size:
                found = np.empty((count, vectors.shape[1]), np.float32)
            found[batch.rows] = vectors
        return found

    def _states(self, batch: Prepared) -> np.ndarray:
        outputs = self.session.run(batch.feeds)
        states = outputs.get("last_hidden_state")
        shape = batch.feeds["input_ids"].shape
        if states is None or states.ndim != 3 or states.shape[:2] != shape:
            raise EngineError(f"the graph gives {', '.join(outputs)} for {shape} tokens; it is no encoder")
        return states

    # What gate and bench ask of every task; an input is a text here.

    def answers(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The vector of each text."""
        return list(self.run(self.prepare(texts)))

    outputs = answers

    def tokens(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int64 token ids of each text."""
        return unpadded(self.prepare(texts))

    def verdicts(self, texts: Sequence[str], outputs: Sequence[np.ndarray]) -> list[Any]:
        """For each text the number of its nearest other one."""
        return list(_near(outputs).argmax(axis=1).tolist())

    def sureness(self, texts: Sequence[str], outputs: Sequence[np.ndarray]) -> np.ndarray:
        """(texts,): by how much cosine the nearest other text leads the second."""
        if len(outputs) < 3:
            return np.full(len(outputs), np.inf)
        second, first = np.sort(_near(outputs), axis=1)[:, -2:].T
        return np.asarray(first - second)

    def metric(self, texts: Sequence[str], outputs: Sequence[np.ndarray], truths: Sequence[Any]) -> None:
        """Vectors are neither right nor wrong by themselves: what is built on them is measured."""

    def describe(self) -> dict[str, Any]:
        """bundle, task, variant, precision, engine, engine_version, threads, providers really used."""
        return {**self.about, **self.session.describe()}


def open(
    session: Session, tokenizer: Tokenizer, labels: list[str], limits: dict[str, int], about: dict[str, Any]
) -> Embedder:
    return Embedder(session, tokenizer, limits, about)


def _near(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Cosine of each with each, the own one left out."""
    vectors = np.stack(list(outputs))
    near = vectors @ vectors.T
    np.fill_diagonal(near, -np.inf)
    return np.asarray(near)


def pooled(states: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean over the tokens of each text, scaled to length 1 (Reimers and Gurevych 2019, mean pooling).

    `states` (texts, tokens, dimensions), `mask` (texts, tokens) → float32 (texts, dimensions).
    """
    weight = mask[..., None].astype(np.float32)
    mean = (states * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-9)
    return (mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)).astype(np.float32)
