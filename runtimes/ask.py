"""Answers from a collection: search, read what was found, merge, rank, and say so when nothing is found.

The same code answers in the service and on a device.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from runtimes.confidence import Calibration, Evidence
from runtimes.errors import InputError
from runtimes.merge import key_of, nested
from runtimes.sentences import sentence_around
from runtimes.tasks.answer import Reading
from runtimes.text import clean

MAX_QUESTION_CHARS = 1_000
MAX_PASSAGES = 50  # of one question: reading is what takes time
BLOCK = 16  # questions that are searched and read together
_WORD = re.compile(r"\w+")
_ASCII = re.compile(r"[\x00-\x7f]*")


class Passage(Protocol):
    """What is needed of `runtimes.index.Passage`: `start` is the text's offset in the document."""

    @property
    def id(self) -> int: ...
    @property
    def document(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def heading(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def text(self) -> str: ...


class Hit(Protocol):
    """What is needed of `runtimes.index.Hit`: ranks from 1, None where that search did not find it."""

    @property
    def passage(self) -> Passage: ...
    @property
    def bm25(self) -> int | None: ...
    @property
    def dense(self) -> int | None: ...


class Searched(Protocol):
    """An index or a store."""

    def search(
        self, question: str, vector: np.ndarray | None, k: int, where: Mapping[str, str] | None = None
    ) -> Sequence[Hit]: ...


class Reads(Protocol):
    """`runtimes.tasks.answer.Reader`."""

    def answers(self, pairs: Sequence[tuple[str, str]]) -> list[Reading]: ...


@dataclass(frozen=True)
class Source:
    """Where an answer stands: `passage[start:end]`, which is at `document_start` of the document's text.

    `passage[sentence_start:sentence_end]` is enough around it to show.
    """

    document: str
    name: str
    heading: str
    passage: str
    passage_id: int
    start: int
    end: int
    document_start: int
    sentence_start: int
    sentence_end: int

    @property
    def sentence(self) -> str:
        return self.passage[self.sentence_start : self.sentence_end]


@dataclass(frozen=True)
class Found:
    """An answer, the probability that it is right, and all places that say the same, the surest first."""

    text: str
    confidence: float
    sources: list[Source]


@dataclass(frozen=True)
class Answered:
    """`found`: answers, the best first; none: not found in the documents, of which `searched` passages were
    read. `ask_back`: where two answers are close, the question which of them is meant."""

    question: str
    found: list[Found]
    ask_back: str | None
    searched: int


@dataclass(frozen=True)
class Asker:
    """A callable that answers questions from `index`. `embedder`: texts → float32 (n, dimensions)."""

    reader: Reads
    embedder: Callable[[list[str]], np.ndarray]
    index: Searched
    calibration: Calibration = field(default_factory=Calibration)
    about: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self, question: str, k: int | None = None, where: Mapping[str, str] | None = None
    ) -> Answered:
        """Answer from the best `k` passages (default: what the calibration has) of the documents that
        `where` lets through. Raises InputError for a question that is empty or too short."""
        return self.many([question], k, where)[0]

    def many(
        self, questions: Sequence[str], k: int | None = None, where: Mapping[str, str] | None = None
    ) -> list[Answered]:
        """Answers in the order of the questions; vectors and readings are made in batches across them."""
        evidence = self.evidence(questions, k, where)
        return [decide(q, one, self.calibration) for q, one in zip(questions, evidence, strict=True)]

    def evidence(
        self, questions: Sequence[str], k: int | None = None, where: Mapping[str, str] | None = None
    ) -> list[list[Evidence]]:
        """For each question what was read in each passage that was found, before anything is judged."""
        k = self.calibration.k if k is None else k
        if not isinstance(k, int) or not 1 <= k <= MAX_PASSAGES:
            raise InputError(f"k = {k!r}: read 1 to {MAX_PASSAGES} passages a question")
        asked = [check_question(one) for one in questions]
        blocks = (asked[start : start + BLOCK] for start in range(0, len(asked), BLOCK))
        return [found for block in blocks for found in self._read(block, k, where)]

    def _read(self, asked: list[str], k: int, where: Mapping[str, str] | None) -> list[list[Evidence]]:
        vectors = self.embedder(asked)
        hits = [
            [hit for hit in self.index.search(question, vector, k, where) if hit.passage.text.strip()]
            for question, vector in zip(asked, vectors, strict=True)
        ]
        pairs = [(q, hit.passage.text) for q, found in zip(asked, hits, strict=True) for hit in found]
        readings = iter(self.reader.answers(pairs) if pairs else [])
        return [[Evidence(hit, next(readings)) for hit in found] for found in hits]

    def describe(self) -> dict[str, Any]:
        """What it was opened from, where it was opened from a bundle."""
        return dict(self.about)


def check_question(question: Any) -> str:
    """The question without blanks around it. Raises InputError where it cannot be answered as it is."""
    if not isinstance(question, str):
        raise InputError("a question, as text, is expected")
    question = question.strip()
    if len(question) > MAX_QUESTION_CHARS:
        raise InputError(
            f"the question has over {MAX_QUESTION_CHARS} characters; ask for one thing at a time"
        )
    words = _WORD.findall(clean(question))
    if not words:
        raise InputError("the question is empty; ask in a sentence, such as: Who wrote the report?")
    if len(words) < 2 and _ASCII.fullmatch(words[0]):  # other scripts may write without blanks
        raise InputError(
            f"{words[0][:40]!r} is too short for a question; ask in a sentence, as in: Who wrote the report?"
        )
    return question


def decide(question: str, evidence: Sequence[Evidence], calibration: Calibration) -> Answered:
    """Merge, rank, and keep what is over the threshold."""
    found = [one for one in ranked(evidence, calibration) if one.confidence >= calibration.threshold]
    other = second(found)
    close = other is not None and is_close(found[0], other, calibration)
    return Answered(question, found, which(found[0], found[1]) if close else None, len(evidence))


def is_close(first: Found, other: Found, calibration: Calibration) -> bool:
    """Whether it is worth asking which of two answers is meant."""
    near = first.confidence - other.confidence < calibration.margin
    return near and other.confidence >= calibration.rival


def second(found: Sequence[Found]) -> Found | None:
    """The answer that could be meant instead of the first: the next one, unless one is within the other."""
    return found[1] if len(found) > 1 and not nested(found[0].text, found[1].text) else None


def ranked(evidence: Sequence[Evidence], calibration: Calibration) -> list[Found]:
    """Every answer that was read, the most probable first, each with all its places."""
    found = [_found(group, calibration) for group in grouped(evidence)]
    return sorted(found, key=lambda one: -one.confidence)


def grouped(evidence: Sequence[Evidence]) -> list[list[Evidence]]:
    """What says the same, together, in the order of the search. Passages without any reading fall out.

    The same: equal but for case, punctuation and articles, or read at overlapping places of one document.
    """
    groups: list[list[Evidence]] = []
    of: dict[str, list[Evidence]] = {}  # each wording belongs to one group
    for one in evidence:
        if not one.reading.text.strip():
            continue
        key = key_of(one.reading.text)
        if key not in of:
            of[key] = next((group for group in groups if _overlaps(one, group)), [])
        if not of[key]:
            groups.append(of[key])
        of[key].append(one)
    return groups


def _overlaps(one: Evidence, group: Sequence[Evidence]) -> bool:
    start, end = one.place
    document = one.hit.passage.document
    return any(
        other.hit.passage.document == document and start < other.place[1] and other.place[0] < end
        for other in group
    )


def _found(group: Sequence[Evidence], calibration: Calibration) -> Found:
    best_first = sorted(group, key=lambda one: -calibration.confidence(one))
    best = best_first[0]
    return Found(best.reading.text, calibration.confidence(best), [_source(one) for one in best_first])


def _source(one: Evidence) -> Source:
    passage, reading = one.hit.passage, one.reading
    first, last = sentence_around(passage.text, reading.start, reading.end)
    return Source(
        passage.document, passage.name, passage.heading, passage.text, passage.id,
        reading.start, reading.end, passage.start + reading.start, first, last,
    )  # fmt: skip


def which(first: Found, second: Found) -> str:
    """The question back: which of two answers is meant, each with its source."""
    one, other = (_named(found.sources[0]) for found in (first, second))
    if one == other:  # two passages under one heading
        one, other = (f"{one}: {_folded(found.sources[0].sentence)}" for found in (first, second))
    return f"Two answers are close: “{first.text}” ({one}) or “{second.text}” ({other}). Which one is meant?"


def _named(source: Source) -> str:
    return f"{source.name}, {source.heading}" if source.heading else source.name


def _folded(text: str, most: int = 120) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most]}…"
