"""Cuts a document's text into passages that end with sentences and never cross a heading."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from apps.answers.documents import Heading, Parsed

SIZE = (
    1_200  # characters: about 240 tokens of English, what the encoder sees (256) and one window of the reader
)
OVERLAP = 200  # characters at most, whole sentences: a sentence that leans on the one before it keeps it
MAX_HEADING = 300  # characters of a heading path
# A sentence ends at . ! ? or their like, with closing quotes, before a blank and an upper-case letter, digit
# or quote; a paragraph ends at an empty line; East Asian full stops end without a blank.
_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[^\Wa-z_])|(?<=[。！？])|\n\s*\n\s*")
_SHORT = re.compile(r"(?:^|[\s(])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|vs|No|Fig|e\.g|i\.e|etc|cf|approx)\.$")


@dataclass(frozen=True)
class Piece:
    """`text` is the document's text[start : start + len(text)]; `heading` the titles above it, joined."""

    heading: str
    start: int
    text: str


def cut(document: Parsed, size: int = SIZE, overlap: int = OVERLAP) -> list[Piece]:
    """All passages of a document, in order; every character that is no blank is in one or more."""
    pieces = []
    for heading, start, end in _sections(document):
        spans = [
            part
            for span in _sentences(document.text, start, end)
            for part in _parts(document.text, span, size)
        ]
        pieces += [Piece(heading, a, document.text[a:b]) for a, b in _packed(spans, size, overlap)]
    return pieces


def _sections(document: Parsed) -> Iterator[tuple[str, int, int]]:
    """(heading path, start, end) between headings."""
    path: list[Heading] = []
    at = 0
    for heading in document.headings:
        if document.text[at : heading.start].strip():
            yield _path(path), at, heading.start
            at = heading.start
        path = [above for above in path if above.level < heading.level] + [heading]
    yield _path(path), at, len(document.text)


def _path(path: list[Heading]) -> str:
    return " › ".join(heading.title for heading in path)[-MAX_HEADING:]


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Spans of sentences, without the blanks around them."""
    at = start
    for match in _END.finditer(text, start, end):
        if "\n" not in match.group() and _SHORT.search(text, max(start, match.start() - 12), match.start()):
            continue
        close = match.start() + len(match.group().rstrip())
        if text[at:close].strip():
            yield _stripped(text, at, close)
        at = match.end()
    if text[at:end].strip():
        yield _stripped(text, at, end)


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    inner = text[start:end]
    return start + len(inner) - len(inner.lstrip()), start + len(inner.rstrip())


def _parts(text: str, span: tuple[int, int], size: int) -> Iterator[tuple[int, int]]:
    """A sentence longer than a passage is cut at blanks, and where it has none, at the size."""
    start, end = span
    while end - start > size:
        window = text[start : start + size]
        blank = max(window.rfind(" "), window.rfind("\n"))
        at = start + (blank if blank > size // 2 else size)
        yield _stripped(text, start, at)
        start = at + len(text[at:end]) - len(text[at:end].lstrip())
    if start < end:
        yield start, end


def _packed(spans: list[tuple[int, int]], size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Runs of sentences that fit the size; each begins with the last ones of the one before that fit."""
    first = 0
    while first < len(spans):
        last = first
        while last + 1 < len(spans) and spans[last + 1][1] - spans[first][0] <= size:
            last += 1
        yield spans[first][0], spans[last][1]
        if last + 1 == len(spans):
            return
        after = last + 1
        while (
            after - 1 > first
            and spans[last][1] - spans[after - 1][0] <= overlap
            and spans[last + 1][1] - spans[after - 1][0] <= size
        ):
            after -= 1
        first = after
