"""HTML → plain text (the Lexbor parser, through selectolax). Nothing in it runs or is fetched."""

import codecs
import re

from apps.answers.formats import text
from apps.answers.formats.plain import Plain

_SKIPPED = "script style noscript template head svg math iframe object select textarea"
_BLOCKS = """
    address article aside blockquote body caption dd details div dl dt fieldset figcaption figure footer
    form header hr html legend li main nav ol p pre section summary table tbody tfoot thead tr ul
"""
_SKIP, _BLOCK = frozenset(_SKIPPED.split()), frozenset(_BLOCKS.split())
_CELL = frozenset(["td", "th"])
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)


def read(data: bytes) -> Plain:
    plain = Plain()
    walk(decode(data), plain)
    return plain


def decode(data: bytes) -> str:
    """By its byte order mark, else as its meta tag says, else as plain text."""
    found = _CHARSET.search(data[:4096])
    if found and not data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            # Only what maps bytes to characters: Python's list of codecs has others too.
            if codecs.lookup(found.group(1).decode())._is_text_encoding:
                return data.decode(found.group(1).decode(), errors="replace")
        except LookupError:
            pass
    return text.decode(data)


def walk(source: str, plain: Plain) -> None:
    """Add the text of an HTML page or fragment, block by block; without recursion, as nesting is deep."""
    from selectolax.lexbor import LexborHTMLParser

    root = LexborHTMLParser(source).root
    node, parts, level, raw = root, [], 0, 0
    while node is not None:
        tag = node.tag
        if tag == "-text":
            found = node.text(deep=False)
            parts.append(found if raw else re.sub(r"\s+", " ", found))
        elif tag == "br":
            parts.append("\n")
        elif tag in _CELL and "".join(parts).strip():
            parts.append(" | ")
        elif tag in _BLOCK or tag in _HEADINGS:
            _flush(plain, parts, level)
            level, raw = _HEADINGS.get(tag, 0), raw + (tag == "pre")
        if tag not in _SKIP and node.child is not None:
            node = node.child
            continue
        while node is not None and node.next is None:
            node = node.parent
            if node is not None and (node.tag in _BLOCK or node.tag in _HEADINGS):
                _flush(plain, parts, level)
                level, raw = 0, raw - (node.tag == "pre")
        node = node.next if node is not None else None
    _flush(plain, parts, level)


def _flush(plain: Plain, parts: list[str], level: int) -> None:
    plain.add(re.sub(r" {2,}", " ", "".join(parts)) if parts else "", level)
    parts.clear()
