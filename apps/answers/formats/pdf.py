"""PDF → plain text (pypdf), page by page; bookmarks become headings."""

import io
import re
from typing import Any

from apps.answers.formats.plain import Plain
from runtimes.errors import InputError

MAX_PAGES = 1_000
MAX_BOOKMARKS = 2_000


def read(data: bytes) -> Plain:
    import pypdf

    reader = pypdf.PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise InputError("locked by a password; save it without one")
    count = len(reader.pages)
    if count > MAX_PAGES:
        raise InputError(f"{count} pages, over {MAX_PAGES}; split it")
    marks = _bookmarks(reader)
    plain = Plain()
    for number in range(count):
        _add_page(plain, joined(reader.pages[number].extract_text()), marks.get(number, []))
    return plain


def joined(text: str) -> str:
    """Lines of a page set as a paragraph joined again, words cut at a line's end made whole."""
    text = re.sub(r"[ \t]+\n", "\n", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = re.sub(r"([a-zà-ÿ])-\n([a-zà-ÿ])", r"\1\2", text)
    return re.sub(r"(?<=[^\s.!?:;])\n(?=[^\s•\-*])|(?<=[,;])\n(?=\S)", " ", text)


def _add_page(plain: Plain, text: str, marks: list[tuple[int, str]]) -> None:
    for level, title in marks:
        # The title where the page shows it, else before what is left of the page.
        found = re.search(r"\s+".join(map(re.escape, title.split())), text)
        if found:
            plain.add(text[: found.start()])
            text = text[found.end() :]
        plain.add(title, level)
    plain.add(text)


def _bookmarks(reader: Any) -> dict[int, list[tuple[int, str]]]:
    """Page number → (level, title) of its bookmarks; none where the outline is damaged."""
    found: dict[int, list[tuple[int, str]]] = {}
    try:
        waiting = [(1, item) for item in reversed(reader.outline)]
        seen = 0
        while waiting and seen < MAX_BOOKMARKS:
            level, item = waiting.pop()
            seen += 1
            if isinstance(item, list):
                waiting += [(level + 1, inner) for inner in reversed(item)]
            elif item.title.strip() and (page := reader.get_destination_page_number(item)) is not None:
                found.setdefault(page, []).append((level, item.title.strip()))
    except Exception:  # an outline is a convenience: the text is read without it
        return {}
    return found
