"""Task `question-answering`: a question and a passage → the very span that answers it, or that none does.

Long passages are read in overlapping windows. A span is as good as the logits of its first and last token
together; the logits of the first token of all (`[CLS]`) stand for "not here" (Devlin et al. 2019, section
4.3; Rajpurkar et al. 2018 for questions without an answer).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtimes.engines import Session
from runtimes.errors import EngineError, InputError
from runtimes.spans import f1
from runtimes.text import Prepared, Tokenizer, Window, batches

STRIDE = 64  # tokens that two neighbouring windows share
MAX_QUESTION = 64  # tokens
MAX_ANSWER = 30  # tokens
NOTHING = -100.0  # the lead of a passage without any token
OUTPUT = "logits"  # (windows, tokens, 2)


@dataclass(frozen=True)
class Reading:
    """`passage[start:end]` is `text`. `score`: how far the span's logits lead those of "not here".

    `confidence`: the probability that the answer is right, as the bundle's calibration has it. `found`:
    whether the score reaches the bundle's threshold; below it "not in this passage" is the better answer.
    """

    text: str
    start: int
    end: int
    score: float
    confidence: float
    found: bool = True


@dataclass(frozen=True)
class Asked:
    """Engine inputs for all windows; `windows[i]` belongs to question-passage pair `owners[i]`."""

    batches: list[Prepared]
    windows: list[Window]
    owners: list[int]


@dataclass(frozen=True)
class Reader:
    """A callable reader on any engine. `about` may have `calibration`: {scale, shift, threshold}."""

    session: Session
    tokenizer: Tokenizer
    limits: dict[str, int]
    about: dict[str, Any]

    def __call__(self, question: str, passage: str) -> Reading:
        """The best span of one passage. Raises InputError for an empty question or passage."""
        return self.read(question, [passage])[0]

    def read(self, question: str, passages: Sequence[str]) -> list[Reading]:
        """The best span of each passage, in their order."""
        return self.answers([(question, passage) for passage in passages])

    def answers(self, pairs: Sequence[tuple[str, str]]) -> list[Reading]:
        """The best span of each (question, passage), in their order."""
        asked = self.prepare(pairs)
        return self.decode([passage for _, passage in pairs], asked, self.run(asked))

    def prepare(self, pairs: Sequence[tuple[str, str]]) -> Asked:
        """Tokenize each pair into windows, sort them by length, and pad them."""
        windows: list[Window] = []
        owners: list[int] = []
        most = self.limits["max_chars"]
        for row, (question, passage) in enumerate(pairs):
            if not question.strip() or not passage.strip():
                what = "question" if not question.strip() else "passage"
                raise InputError(f"{what} {row + 1} of {len(pairs)} is empty; give at least one word")
            found = self.tokenizer.windows(question.strip(), passage[:most], STRIDE, MAX_QUESTION)
            windows += found
            owners += [row] * len(found)
        ids, types = [one.ids for one in windows], [one.types for one in windows]
        made = list(batches(ids, self.session.lengths, self.tokenizer.pad_id, types))
        return Asked(made, windows, owners)

    def run(self, asked: Asked) -> list[np.ndarray]:
        """For each window float32 (tokens, 2): logits of being the first and the last token."""
        found: list[np.ndarray] = [np.empty(0)] * len(asked.windows)
        for batch in asked.batches:
            answer = _logits(self.session.run(batch.feeds))
            if answer.shape != (*batch.feeds["input_ids"].shape, 2):
                raise EngineError(f"the graph gives logits of shape {answer.shape}; it is no reader")
            for row, logits in zip(batch.rows, answer, strict=True):
                found[row] = logits[: len(asked.windows[row].ids)]
        return found

    def decode(self, passages: Sequence[str], asked: Asked, logits: Sequence[np.ndarray]) -> list[Reading]:
        """The best span over the windows of each passage, held against the least sure "not here"."""
        best: dict[int, tuple[float, int, int]] = {}
        null: dict[int, float] = {}
        for window, owner, scores in zip(asked.windows, asked.owners, logits, strict=True):
            span = best_span(scores, window.spans)
            if span is not None and span > best.get(owner, (-math.inf, 0, 0)):
                best[owner] = span
            null[owner] = min(null.get(owner, math.inf), float(scores[0].sum()))
        return [self._reading(passage, best.get(row), null[row]) for row, passage in enumerate(passages)]

    def _reading(self, passage: str, span: tuple[float, int, int] | None, null: float) -> Reading:
        if span is None:  # nothing but blanks for this tokenizer
            return Reading("", 0, 0, NOTHING, 0.0, False)
        score, start, end = span
        lead = score - null
        told = self.about.get("calibration") or {}
        confidence = sigmoid(told.get("scale", 1.0) * lead + told.get("shift", 0.0))
        return Reading(passage[start:end], start, end, lead, confidence, lead >= told.get("threshold", 0.0))

    # What gate and bench ask of every task; an input is a pair here.

    def tokens(self, pairs: Sequence[tuple[str, str]]) -> list[np.ndarray]:
        """int64 token ids of each window, in the order of the pairs."""
        return [np.asarray(one.ids, np.int64) for one in self.prepare(pairs).windows]

    def outputs(self, pairs: Sequence[tuple[str, str]]) -> list[np.ndarray]:
        """float32 (tokens, 2) of each window, in the order of the pairs."""
        return self.run(self.prepare(pairs))

    def verdicts(self, pairs: Sequence[tuple[str, str]], outputs: Sequence[np.ndarray]) -> list[Any]:
        """For each pair (start, end) of what was found, or None."""
        read = self.decode([passage for _, passage in pairs], self.prepare(pairs), outputs)
        return [(one.start, one.end) if one.found else None for one in read]

    def sureness(self, pairs: Sequence[tuple[str, str]], outputs: Sequence[np.ndarray]) -> np.ndarray:
        """(pairs,): how far each verdict is from another one, in logits: another span, or silence."""
        asked, threshold = self.prepare(pairs), (self.about.get("calibration") or {}).get("threshold", 0.0)
        read = self.decode([passage for _, passage in pairs], asked, outputs)
        far = np.array([abs(one.score - threshold) for one in read])
        seconds = np.full(len(pairs), -math.inf)
        best = np.full(len(pairs), -math.inf)
        for window, owner, scores in zip(asked.windows, asked.owners, outputs, strict=True):
            for value in span_scores(scores, window.spans):
                if value > best[owner]:
                    seconds[owner], best[owner] = best[owner], value
                elif value > seconds[owner]:
                    seconds[owner] = value
        return np.where([one.found for one in read], np.minimum(far, best - seconds), far)

    def metric(
        self, pairs: Sequence[tuple[str, str]], outputs: Sequence[np.ndarray], truths: Sequence[Sequence[str]]
    ) -> dict[str, Any]:
        """F1 over all pairs; `truths` has the right answers of each, none where it is not in the passage."""
        found = zip(pairs, self.verdicts(pairs, outputs), truths, strict=True)
        said = [(passage[slice(*span)] if span else "", truth) for (_, passage), span, truth in found]
        return {"name": "f1", "value": float(np.mean([f1(*one) for one in said])), "n": len(pairs)}

    def describe(self) -> dict[str, Any]:
        """bundle, task, variant, precision, engine, engine_version, threads, providers really used."""
        return {**self.about, **self.session.describe()}


def open(
    session: Session, tokenizer: Tokenizer, labels: list[str], limits: dict[str, int], about: dict[str, Any]
) -> Reader:
    return Reader(session, tokenizer, limits, about)


def _logits(outputs: dict[str, np.ndarray]) -> np.ndarray:
    """(batch, length, 2), from one output or from two, as transformers' own graphs have them."""
    if "logits" in outputs:
        return outputs["logits"]
    if not {"start_logits", "end_logits"} <= outputs.keys():
        raise EngineError(f"the graph gives {', '.join(outputs)}, no start_logits and end_logits; no reader")
    return np.stack([outputs["start_logits"], outputs["end_logits"]], axis=-1)


def best_span(logits: np.ndarray, spans: np.ndarray, most: int = MAX_ANSWER) -> tuple[float, int, int] | None:
    """(score, start, end) in the passage of the best span of at most `most` tokens, None where there is none.

    `logits` (tokens, 2), `spans` as in `Window`. Of equal ones the first.
    """
    found = _totals(logits, spans, most)
    if found is None:
        return None
    inside, totals = found
    start, end = np.unravel_index(int(totals.argmax()), totals.shape)
    return float(totals[start, end]), int(spans[inside[start], 0]), int(spans[inside[end], 1])


def _totals(
    logits: np.ndarray, spans: np.ndarray, most: int = MAX_ANSWER
) -> tuple[np.ndarray, np.ndarray] | None:
    """The passage's tokens, and the score of each span from one of them to another (-inf: no answer)."""
    inside = np.flatnonzero(spans[:, 0] >= 0)
    if not len(inside):
        return None
    starts, ends = logits[inside, 0].astype(np.float64), logits[inside, 1].astype(np.float64)
    totals = starts[:, None] + ends[None, :]
    first, last = np.indices(totals.shape)
    totals[(last < first) | (last - first >= most)] = -math.inf
    return inside, totals


def span_scores(logits: np.ndarray, spans: np.ndarray) -> list[float]:
    """The two highest scores of different spans of a window, highest first; fewer where there are fewer."""
    found = _totals(logits, spans)
    if found is None:
        return []
    flat = np.sort(found[1], axis=None)[::-1][:2]
    return [float(value) for value in flat if value > -math.inf]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
