"""Task `text-classification`: text → label with scores, and which words spoke for it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from runtimes.engines import Session
from runtimes.errors import EngineError, InputError
from runtimes.text import Prepared, Tokenizer, clean, prepare, unpadded

OUTPUT = "logits"  # (texts, labels)
# Words that are left out one at a time; a longer text is left out in runs of neighbouring words.
MAX_OCCLUSIONS = 128
_WORD = re.compile(r"\w[\w'’.-]*\w|\w")


@dataclass(frozen=True)
class Answer:
    """The best label, its probability, and the probabilities of all labels, best first."""

    label: str
    score: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Word:
    """A word of the original text, `text[start:end]`, and the probability lost when it is left out."""

    text: str
    start: int
    end: int
    contribution: float


@dataclass(frozen=True)
class Explanation:
    label: str
    score: float
    words: list[Word]


class Classifier:
    """A callable text classifier on any engine."""

    def __init__(
        self,
        session: Session,
        tokenizer: Tokenizer,
        labels: list[str],
        limits: dict[str, int],
        about: dict[str, Any],
    ) -> None:
        self.labels = labels
        self.limits = limits
        self._session = session
        self._tokenizer = tokenizer
        self._about = about

    @overload
    def __call__(  # type: ignore[overload-overlap] # a str is a Sequence[str] to the type checker
        self, texts: str, top_k: int | None = None
    ) -> Answer: ...
    @overload
    def __call__(self, texts: Sequence[str], top_k: int | None = None) -> list[Answer]: ...
    def __call__(self, texts: str | Sequence[str], top_k: int | None = None) -> Answer | list[Answer]:
        """Answer one text or many. `top_k` keeps that many scores.

        Raises InputError for an empty text, something that is no text, or a `top_k` below 1.
        """
        if top_k is not None and top_k < 1:
            raise InputError(f"top_k must be at least 1, not {top_k}")
        if isinstance(texts, str):
            return self.answers([texts], top_k)[0]
        return self.answers(texts, top_k)

    def answers(self, texts: Sequence[str], top_k: int | None = None) -> list[Answer]:
        """One answer a text, in their order."""
        answers = []
        for row in softmax(self.logits(texts)):
            best = np.argsort(-row, kind="stable")[:top_k]
            scores = {self.labels[index]: float(row[index]) for index in best}
            answers.append(Answer(self.labels[best[0]], float(row[best[0]]), scores))
        return answers

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """float32 of shape (len(texts), labels)."""
        return self.run(self.prepare(texts))

    def prepare(self, texts: Sequence[str]) -> list[Prepared]:
        """Clean, tokenize, sort by length and pad each batch to its own longest text (or bucket)."""
        return prepare(texts, self._tokenizer, self.limits["max_chars"], self._session.lengths)

    def run(self, prepared: Sequence[Prepared]) -> np.ndarray:
        """Logits of prepared batches, float32 (rows, labels), in the order of the texts."""
        logits = np.empty((sum(len(batch.rows) for batch in prepared), len(self.labels)), np.float32)
        for batch in prepared:
            answer = self._session.run(batch.feeds).get("logits")
            if answer is None or answer.shape != (len(batch.rows), len(self.labels)):
                shape = None if answer is None else answer.shape
                raise EngineError(f"the graph gives logits of shape {shape} for {len(self.labels)} labels")
            logits[batch.rows] = answer
        return logits

    # What gate and bench ask of every task; an input is a text here.

    def tokens(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int64 token ids of each text."""
        return unpadded(self.prepare(texts))

    def outputs(self, texts: Sequence[str]) -> list[np.ndarray]:
        """float32 (labels,) of each text."""
        return list(self.logits(texts))

    def verdicts(self, texts: Sequence[str], outputs: Sequence[np.ndarray]) -> list[Any]:
        """The number of each text's best label."""
        return [int(row.argmax()) for row in outputs]

    def sureness(self, texts: Sequence[str], outputs: Sequence[np.ndarray]) -> np.ndarray:
        """(texts,): by how much the best label leads the second, in logits; infinite for a single label."""
        if len(self.labels) < 2:
            return np.full(len(outputs), np.inf)
        second, best = np.sort(np.stack(list(outputs)), axis=1)[:, -2:].T
        return np.asarray(best - second)

    def metric(
        self, texts: Sequence[str], outputs: Sequence[np.ndarray], truths: Sequence[int]
    ) -> dict[str, Any]:
        """Accuracy; `truths` are label numbers."""
        right = np.array(self.verdicts(texts, outputs)) == np.asarray(truths)
        return {"name": "accuracy", "value": float(right.mean()), "n": len(right)}

    def explain(self, text: str, label: str | None = None) -> Explanation:
        """Contribution of each word to `label` (default: the best one), by occlusion.

        The text is answered once more for each word left out (Zeiler and Fergus 2014, as Li et al. 2016
        carried it to words): that needs no gradients, so every engine can do it.
        Raises InputError for an unknown label or an empty text.
        """
        if label is not None and label not in self.labels:
            raise InputError(f"label {label!r} is not one of {', '.join(self.labels)}")
        text_read = text[: self.limits["max_chars"]]
        words = list(_WORD.finditer(text_read))
        groups = list(_groups(words, MAX_OCCLUSIONS))
        left_out = [text_read[: group[0].start()] + " " + text_read[group[-1].end() :] for group in groups]
        # A lone word leaves nothing behind; a mark that means nothing stands in for it.
        probabilities = softmax(self.logits([text, *(rest if clean(rest) else "." for rest in left_out)]))
        target = int(probabilities[0].argmax()) if label is None else self.labels.index(label)
        lost = probabilities[0, target] - probabilities[1:, target]
        found = [
            Word(word.group(), word.start(), word.end(), float(share) / len(group))
            for group, share in zip(groups, lost, strict=True)
            for word in group
        ]
        return Explanation(self.labels[target], float(probabilities[0, target]), found)

    def describe(self) -> dict[str, Any]:
        """bundle, task, variant, precision, engine, engine_version, threads, providers really used."""
        return {**self._about, **self._session.describe()}


def open(
    session: Session,
    tokenizer: Tokenizer,
    labels: list[str],
    limits: dict[str, int],
    about: dict[str, Any],
) -> Classifier:
    return Classifier(session, tokenizer, labels, limits, about)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, float64, the same on every engine."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _groups(words: list[re.Match[str]], most: int) -> Iterator[list[re.Match[str]]]:
    size = -(-len(words) // most) or 1
    for start in range(0, len(words), size):
        yield words[start : start + size]
