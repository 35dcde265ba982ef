"""An untrusted file → a document: what it really is, within bounds, read by a child process."""

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apps.answers.documents import Heading, Parsed, check, check_metadata, check_name
from runtimes.errors import InputError

MAX_BYTES = 20 << 20
SECONDS = 20  # of processor time; twice that of the clock, where the processor is shared
TAKEN = "TXT, Markdown, HTML, PDF or DOCX"
_ROOT = Path(__file__).resolve().parents[2]
_MARKDOWN = (".md", ".markdown", ".mdown", ".mkd")
_HTML = re.compile(
    rb"\s*(<\?xml[^>]{0,200}>\s*)?(<!--.{0,2000}?-->\s*)*<(!doctype\s+html|html|head|body)[\s>]",
    re.IGNORECASE | re.DOTALL,
)
# What other files begin with, and what to do with them.
_OTHERS = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file; save it as DOCX or PDF"),
    (b"{\\rtf", "an RTF file; save it as DOCX or PDF"),
    (b"%!PS", "a PostScript file; save it as PDF"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\x1f\x8b", "a gzip archive; unpack it and send what is in it"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it and send what is in it"),
    (b"Rar!", "a RAR archive; unpack it and send what is in it"),
    (b"BZh", "a bzip2 archive; unpack it and send what is in it"),
    (b"\xfd7zXZ", "an xz archive; unpack it and send what is in it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it and send what is in it"),
    (b"\x89PNG", "an image; it needs text recognition first"),
    (b"\xff\xd8\xff", "an image; it needs text recognition first"),
    (b"GIF8", "an image; it needs text recognition first"),
    (b"SQLite format 3", "a database"),
)


def parse(
    data: bytes, name: str, metadata: Mapping[str, str] | None = None, seconds: int = SECONDS
) -> Parsed:
    """Read an uploaded file. Its name is kept to be shown; it never becomes a path nor tells the kind,
    but for Markdown, which is text like any other.

    Raises InputError, one line, for all that is not taken; nothing of it is kept then.
    """
    name = unicodedata.normalize("NFC", name)
    check_name(name)
    check_metadata(metadata or {})
    if not data:
        raise InputError(f"{name}: an empty file; send one with text in it")
    if len(data) > MAX_BYTES:
        raise InputError(f"{name}: {len(data)} bytes, over {MAX_BYTES >> 20} MB; split it")
    kind = _kind(data, name)
    found = _read(data, kind, name, seconds)
    if "error" in found:
        raise InputError(f"{name}: {found['error']}")
    headings = tuple(Heading(*row) for row in found["headings"])
    document = Parsed(name, found["text"], headings, kind, dict(metadata or {}))
    check(document)
    return document


def _kind(data: bytes, name: str) -> str:
    """What the bytes are: the name of a module of `formats`. Raises InputError."""
    if b"%PDF-" in data[:1024]:
        return "pdf"
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return _archive(data, name)
    for start, what in _OTHERS:
        if data.startswith(start):
            raise InputError(
                f"{name}: {what} is not read; {TAKEN} is" if ";" not in what else f"{name}: {what}"
            )
    if _HTML.match(data[:8192].removeprefix(b"\xef\xbb\xbf")):
        return "html"
    return "markdown" if name.lower().endswith(_MARKDOWN) else "text"


def _archive(data: bytes, name: str) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
    except Exception:  # zipfile raises whatever it meets
        raise InputError(f"{name}: a damaged archive, or a DOCX cut short; copy it again") from None
    if {"[Content_Types].xml", "word/document.xml"} <= names:
        return "docx"
    raise InputError(f"{name}: an archive that is no DOCX is not read; unpack it and send what is in it")


def _read(data: bytes, kind: str, name: str, seconds: int) -> dict[str, Any]:
    """Text and headings, from a child process that cannot take more than its bounds."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "apps.answers.reading", kind, str(seconds)]
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as answer:
        given.write(data)
        given.seek(0)
        try:
            done = subprocess.run(
                command,
                stdin=given,
                stdout=answer,
                stderr=subprocess.DEVNULL,
                env=environment,
                timeout=2 * seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"{name}: not read within {2 * seconds} s; split it") from None
        answer.seek(0)
        try:
            return json.load(answer)
        except ValueError:
            raise InputError(
                f"{name}: {_ended(done.returncode, seconds)}; split it or save it again"
            ) from None


def _ended(code: int, seconds: int) -> str:
    if code in (-9, -24):  # killed by the limit on processor time
        return f"not read within {seconds} s of processor time"
    return f"its reader ended without an answer (code {code})"
