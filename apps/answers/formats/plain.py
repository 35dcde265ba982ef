"""The plain text that every format becomes, and the bounds that hold while it grows."""

import re

from apps.answers.documents import MAX_CHARS, Heading
from runtimes.errors import InputError

MAX_HEADINGS = 20_000
MAX_TITLE = 200
# Controls and what steers the direction of text or stands for no character; tabs and newlines stay.
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_BROKEN = re.compile(r"[\ud800-\udfff\ufffe\uffff]")


class Plain:
    """Blocks of text with an empty line between them, and the headings among them."""

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._length = 0
        self.headings: list[Heading] = []

    def add(self, text: str, level: int = 0) -> None:
        """A block: a paragraph, or with a `level` from 1 a heading. Blank ones are left out."""
        text = tidy(text)
        if not text:
            return
        if self._length + len(text) > MAX_CHARS:
            raise InputError(f"over {MAX_CHARS} characters of text; split it")
        if level:
            if len(self.headings) == MAX_HEADINGS:
                raise InputError(f"over {MAX_HEADINGS} headings; split it")
            text = " ".join(text.split())
            self.headings.append(Heading(self._length, level, text[:MAX_TITLE]))
        self._blocks.append(text)
        self._length += len(text) + 2

    @property
    def text(self) -> str:
        return "\n\n".join(self._blocks)


def tidy(text: str) -> str:
    """One kind of line end, no blanks at line ends, at most one empty line in a row, nothing unseen."""
    text = re.sub(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]", "\n", text)
    text = _BROKEN.sub("\ufffd", _UNSEEN.sub("", text)).replace("\u00a0", " ")
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip()
