"""Markdown (CommonMark with tables) → plain text; HTML in it is read as HTML."""

import re
from typing import Any

from apps.answers.formats import html, text
from apps.answers.formats.plain import Plain

_FRONT = re.compile(r"\A---\n.{0,20000}?\n---\n", re.DOTALL)


def read(data: bytes) -> Plain:
    from markdown_it import MarkdownIt

    source = text.decode(data).replace("\r\n", "\n").replace("\x00", "")
    plain, level = Plain(), 0
    row: list[str] | None = None
    for token in MarkdownIt("commonmark").enable("table").parse(_FRONT.sub("", source)):
        if token.type == "heading_open":
            level = int(token.tag[1:])
        elif token.type == "tr_open":
            row = []
        elif token.type == "tr_close" and row is not None:
            plain.add(" | ".join(row))
            row = None
        elif token.type == "inline":
            found = "".join(_inline(child) for child in token.children or [])
            if row is None:
                plain.add(found, level)
            else:
                row.append(found)
            level = 0
        elif token.type in ("fence", "code_block"):
            plain.add(token.content)
        elif token.type == "html_block":
            html.walk(token.content, plain)
    return plain


def _inline(token: Any) -> str:
    if token.type in ("text", "code_inline", "image"):
        return token.content
    return "\n" if token.type in ("softbreak", "hardbreak") else ""
